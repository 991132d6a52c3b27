"""Services and their endpoints -> frontends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

from msgspec import Struct

from kproxy.model import (
    GATEWAY,
    Address,
    EndpointSlice,
    Family,
    Frontend,
    FrontendKind,
    NamespacedName,
    Network,
    Node,
    Service,
    ServicePort,
    ServicePortName,
    family_of,
    format_address,
    network_family,
    owner_text,
)
from kproxy.problems import Problem, enumeration
from kproxy.resolve.claims import EXTERNAL, FIELDS, Claims, FrontendClaim, taking
from kproxy.resolve.endpoints import Choices, balance_of, choices
from kproxy.resolve.shares import shared_choices

FROM_POOL = (FrontendKind.LOAD_BALANCER, FrontendKind.GATEWAY)
"""The kinds whose addresses may come from --load-balancer-pool."""


def _addresses(service: Service, node: Node) -> Iterator[tuple[FrontendKind, Address]]:
    """Yield the addresses on which a Service is reachable, in the families of its ClusterIPs.

    A Gateway is reachable on all its addresses.

    An external address that is also a ClusterIP of the Service is a ClusterIP only. minikube's tunnel writes
    such a status; it must not change how pods reach the ClusterIP.
    """
    if service.type == GATEWAY:
        for address in dict.fromkeys(service.load_balancer_ips):
            if not _denying(address, node):
                yield FrontendKind.GATEWAY, address
        return
    families = {family_of(address) for address in service.cluster_ips}
    for kind, addresses in (
        (FrontendKind.CLUSTER_IP, service.cluster_ips),
        (FrontendKind.EXTERNAL_IP, service.external_ips),
        (FrontendKind.LOAD_BALANCER, service.load_balancer_ips),
        (FrontendKind.NODE_PORT, node.node_port_addresses),
    ):
        for address in dict.fromkeys(addresses):
            if family_of(address) not in families:
                continue
            if kind in EXTERNAL and (address in service.cluster_ips or _denying(address, node)):
                continue
            yield kind, address


def _denying(address: Address, node: Node) -> Network | None:
    """Return the range of --deny-external-addresses that contains an address."""
    if not node.denied:
        return None
    return next(
        (n for n in node.denied if network_family(n) is family_of(address) and ip_address(address) in n), None
    )


def source_ranges(service: Service, address: Address, node: Node) -> tuple[Network, ...] | None:
    """Return the clients that may use a load-balancer address, as disjoint ranges; None for all clients.

    As in kube-proxy, all clients may use an address for whose family there is no range. If the ranges
    contain this node, the Service's load-balancer addresses are added: packets of the node itself have
    such an address as source if it is configured on the node.
    """
    family = family_of(address)
    ranges = [network for network in service.source_ranges if network_family(network) is family]
    own = [ip_address(a) for a in node.addresses if family_of(a) is family]
    if any(a in network for a in own for network in ranges):
        ranges += [ip_network(a) for a in service.load_balancer_ips if family_of(a) is family]
    return tuple(merged(ranges)) if ranges else None


def merged(ranges: Iterable[Network]) -> Iterator[Network]:
    """Yield disjoint ranges with the same addresses. The kernel refuses overlapping intervals."""
    ranges = list(ranges)
    yield from collapse_addresses(network for network in ranges if isinstance(network, IPv4Network))
    yield from collapse_addresses(network for network in ranges if isinstance(network, IPv6Network))


def service_frontends(service: Service, slices: Iterable[EndpointSlice], node: Node) -> Iterator[Frontend]:
    """Yield every frontend of a Service whose addresses and node ports are allocated.

    Headless and ExternalName Services have none, nor have Services that another proxy serves.
    """
    if not service.wants_frontends or service.proxied_elsewhere:
        return
    slices = tuple(slices)
    addresses = list(_addresses(service, node))
    for port in service.ports:
        by_family: dict[Family, Choices] = {}
        for kind, address in addresses:
            family = family_of(address)
            if kind is FrontendKind.NODE_PORT and not port.node_port:
                continue
            if family not in by_family:
                by_family[family] = (
                    shared_choices(port, slices, family, node)
                    if service.type == GATEWAY
                    else choices(service, port, slices, family, node)
                )
            yield _frontend(service, port, kind, address, by_family[family], node)


def _is_from_pool(service: Service, address: Address, node: Node) -> bool:
    """Whether an address is from the pool, and not an address of the node, which uses its other ports."""
    return address in service.pool_ips and address not in (*node.addresses, *node.node_port_addresses)


def _frontend(
    service: Service, port: ServicePort, kind: FrontendKind, address: Address, chosen: Choices, node: Node
) -> Frontend:
    internal = kind is FrontendKind.CLUSTER_IP
    return Frontend(
        owner=ServicePortName(service.name, port.name),
        kind=kind,
        address=address,
        protocol=port.protocol,
        port=port.node_port if kind is FrontendKind.NODE_PORT else port.port,
        backends=chosen.internal if internal else chosen.cluster,
        from_outside=None if internal else chosen.outside,
        balance=balance_of(service),
        affinity_timeout=service.affinity_timeout,
        source_ranges=source_ranges(service, address, node) if kind is FrontendKind.LOAD_BALANCER else None,
        from_pool=kind in FROM_POOL and _is_from_pool(service, address, node),
        serving=chosen.serving,
    )


class Resolved(Struct, frozen=True):
    """The frontends of all Services."""

    frontends: list[Frontend]
    """In order of the Services' names."""
    problems: list[Problem]
    """One for each Service and field that lost a frontend to another Service."""
    warnings: list[Problem]
    """One for each Service and traffic policy that drops packets on this node."""


def all_frontends(
    services: Iterable[Service], slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]], node: Node
) -> Resolved:
    """Return the frontends of all Services. claims.py decides between Services that claim the same one."""
    claims = Claims()
    claims.change({s.name: claim(s, slices.get(s.name, ()), node) for s in services})
    return Resolved(list(claims.all_frontends()), claims.problems(), claims.warnings())


def claim(service: Service, slices: Iterable[EndpointSlice], node: Node) -> FrontendClaim:
    """Return the claim of a Service whose addresses and node ports are allocated."""
    slices = tuple(slices)
    frontends = tuple(service_frontends(service, slices, node))
    warnings = (*_dropping(service, frontends, slices, node), *_taking(service, frontends, node))
    return FrontendClaim(service.origin, frontends, warnings, tuple(_refused(service, node)))


def _refused(service: Service, node: Node) -> Iterator[Problem]:
    """Yield a problem for each address on which the settings refuse to serve a Service."""
    for kind, addresses in _external(service):
        for address in addresses:
            if (network := _denying(address, node)) and address not in service.cluster_ips:
                message = f"{format_address(address)} is refused: --deny-external-addresses {network}"
                yield Problem(service.origin.source, owner_text(service.name), FIELDS[kind], message)


def _taking(service: Service, frontends: Iterable[Frontend], node: Node) -> Iterator[Problem]:
    """Yield a warning for each external address that something else has, and needs.

    A Gateway may have the addresses of this node, because not all have a pool.
    """
    own = dict.fromkeys((*node.addresses, *node.node_port_addresses), "this node")
    others = {**({} if service.type == GATEWAY else own), **dict(node.relied_on)}
    taken = {(f.kind, f.address) for f in frontends if f.kind in EXTERNAL and f.address in others}
    for kind, address in sorted(taken):
        if address not in service.pool_ips:
            yield taking(service.name, service.origin, kind, address, f"the address of {others[address]}")


def _external(service: Service) -> Iterator[tuple[FrontendKind, tuple[Address, ...]]]:
    if service.type == GATEWAY:
        yield FrontendKind.GATEWAY, service.load_balancer_ips
    elif service.wants_cluster_ip and not service.proxied_elsewhere:
        yield FrontendKind.EXTERNAL_IP, service.external_ips
        yield FrontendKind.LOAD_BALANCER, service.load_balancer_ips


def _dropping(
    service: Service, frontends: Iterable[Frontend], slices: Iterable[EndpointSlice], node: Node
) -> Iterator[Problem]:
    """Yield a warning for each traffic policy Local because of which `node` drops packets."""
    if not (service.internal_local or service.external_local):
        return
    policies = {
        ("spec.internalTrafficPolicy", "to the ClusterIP")
        if side is frontend.backends
        else ("spec.externalTrafficPolicy", "from outside")
        for frontend in frontends
        for side in (frontend.backends, frontend.from_outside)
        if side is not None and side.elsewhere and not side.endpoints
    }
    for field, which in sorted(policies):
        message = f"no endpoint is on this node, {node.name}: packets {which} are dropped; {places(slices)}"
        yield Problem(service.origin.source, f"Service {service.name}", field, message)


def places(slices: Iterable[EndpointSlice]) -> str:
    """Return the nodes of the serving endpoints, as a clause."""
    nodes = {endpoint.node for slice_ in slices for endpoint in slice_.endpoints if endpoint.serving}
    known = sorted(nodes - {""})
    if not known:
        return "the nodes of its endpoints are unknown (no nodeName)"
    unknown = ", some on unknown nodes (no nodeName)" if "" in nodes else ""
    return f"its endpoints are on {enumeration(known)}{unknown}"

"""On which (address, protocol, port) a service is shown, and with which endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import NamedTuple

from kproxy.model import (
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
    network_family,
)
from kproxy.problems import Problem
from kproxy.resolve.claims import Claims, FrontendClaim
from kproxy.resolve.endpoints import Choices, balance_of, choices


def _shown(service: Service, node: Node) -> Iterator[tuple[FrontendKind, Address]]:
    """The addresses on which a service is shown, of the families that it has."""
    families = {family_of(address) for address in service.cluster_ips}
    for kind, addresses in (
        (FrontendKind.CLUSTER_IP, service.cluster_ips),
        (FrontendKind.EXTERNAL_IP, service.external_ips),
        (FrontendKind.LOAD_BALANCER, service.load_balancer_ips),
        (FrontendKind.NODE_PORT, node.node_port_addresses),
    ):
        for address in dict.fromkeys(addresses):
            if family_of(address) in families:
                yield kind, address


def source_ranges(service: Service, address: Address, node: Node) -> tuple[Network, ...] | None:
    """Who may use a load-balancer address: no two ranges overlap. None: everyone.

    Where this node may, the load-balancer addresses count as allowed, too: the node's own packets
    carry one as their source if it is one of the node's. Without a range of the address's family
    everyone may, as with kube-proxy.
    """
    family = family_of(address)
    ranges = [network for network in service.source_ranges if network_family(network) is family]
    own = [ip_address(a) for a in node.addresses if family_of(a) is family]
    if any(a in network for a in own for network in ranges):
        ranges += [ip_network(a) for a in service.load_balancer_ips if family_of(a) is family]
    return tuple(merged(ranges)) if ranges else None


def merged(ranges: Iterable[Network]) -> Iterator[Network]:
    """The same addresses in ranges of which no two overlap, which the kernel would refuse."""
    ranges = list(ranges)
    yield from collapse_addresses(network for network in ranges if isinstance(network, IPv4Network))
    yield from collapse_addresses(network for network in ranges if isinstance(network, IPv6Network))


def service_frontends(service: Service, slices: Iterable[EndpointSlice], node: Node) -> Iterator[Frontend]:
    """Every frontend of a service whose addresses and node ports are allocated.

    A headless or ExternalName service has none, and neither has one that another proxy serves.
    """
    if not service.wants_cluster_ip or service.proxied_elsewhere:
        return
    slices = tuple(slices)
    shown = list(_shown(service, node))
    for port in service.ports:
        known: dict[Family, Choices] = {}
        for kind, address in shown:
            family = family_of(address)
            if kind is FrontendKind.NODE_PORT and not port.node_port:
                continue
            if family not in known:
                known[family] = choices(service, port, slices, family, node)
            yield _frontend(service, port, kind, address, known[family], node)


def _is_given(service: Service, address: Address, node: Node) -> bool:
    """Whether it is an address of kproxy's; not if it is the node's own, whose other ports are in use."""
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
        local=chosen.local,
        balance=balance_of(service),
        affinity_timeout=service.affinity_timeout,
        source_ranges=source_ranges(service, address, node) if kind is FrontendKind.LOAD_BALANCER else None,
        given=kind is FrontendKind.LOAD_BALANCER and _is_given(service, address, node),
        serving=chosen.serving,
    )


class Resolved(NamedTuple):
    """What all services come to."""

    frontends: list[Frontend]
    """In order of the services' names."""
    problems: list[Problem]
    """Where several want to be shown."""


def all_frontends(
    services: Iterable[Service], slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]], node: Node
) -> Resolved:
    """The frontends of all services; resolve/claims.py says who gets what several want."""
    claims = Claims()
    claims.change({s.name: claim(s, slices.get(s.name, ()), node) for s in services})
    return Resolved(list(claims.everything()), claims.problems())


def claim(service: Service, slices: Iterable[EndpointSlice], node: Node) -> FrontendClaim:
    """Where a service whose addresses and node ports are allocated wants to be shown."""
    return FrontendClaim(service.origin, tuple(service_frontends(service, slices, node)))

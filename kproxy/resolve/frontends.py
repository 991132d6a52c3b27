"""Services and their EndpointSlices -> frontends, each with the endpoints that this node uses for it.

First the endpoints of a service port are selected, per family: by readiness, hints and locality. From these
come the lists of endpoints, one for each traffic policy. A frontend gets those of its kind.

The port of a Gateway has the endpoints of several backends, each with its share of the connections. A slot
chain chooses all slots with the same probability. So a share becomes a number of slots: the slots of backends
are in proportion to their weights, and the endpoints of one backend have the same number of slots. The share
of a backend without endpoints becomes empty slots. They refuse connections, as the Gateway API requires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from math import ceil, lcm
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from kproxy.model import (
    GATEWAY,
    Address,
    Backends,
    Balance,
    Endpoint,
    EndpointSlice,
    Family,
    Frontend,
    FrontendKind,
    Network,
    Node,
    Protocol,
    Service,
    ServicePort,
    ServicePortName,
    Share,
    family_of,
    format_address,
    network_family,
)
from kproxy.resolve import maglev

if TYPE_CHECKING:
    from fractions import Fraction

EXTERNAL = (FrontendKind.EXTERNAL_IP, FrontendKind.LOAD_BALANCER, FrontendKind.GATEWAY)
"""The kinds whose addresses a manifest or a controller chooses."""
FROM_POOL = (FrontendKind.LOAD_BALANCER, FrontendKind.GATEWAY)
"""The kinds whose addresses may come from --load-balancer-pool."""
EXACT = 1024
"""Up to so many slots, shares are exact."""
PRECISE = 8
"""Otherwise the smallest share gets so many slots: rounding changes no share by more than a sixteenth."""
MOST = 16384
"""About the maximum number of slots of a frontend with several backends. Each endpoint has at least one."""

Candidate: TypeAlias = tuple[Endpoint, int]
"""An endpoint, and the number of its port."""
Socket: TypeAlias = tuple[Address, int]
"""The address and the port of an endpoint."""


class Choices(Struct, frozen=True):
    """The endpoint lists of one service port, in one family."""

    internal: Backends
    """For ClusterIPs."""
    cluster: Backends
    """For external frontends: for pods and this node; with externalTrafficPolicy Cluster for all clients."""
    outside: Backends | None
    """For external frontends with externalTrafficPolicy Local: for all other clients. None with Cluster."""
    serving: tuple[Socket, ...]
    """UDP: every serving endpoint, selected or not, terminating or not."""


# --- which endpoints: readiness, hints, locality ---


def usable(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the ready endpoints; if there are none, those that serve while they terminate."""
    ready = [pair for pair in candidates if pair[0].ready]
    return ready or [pair for pair in candidates if pair[0].serving and pair[0].terminating]


def _use_hints(ready: Sequence[Candidate], hints_of: Callable[[Endpoint], Sequence[str]], own: str) -> bool:
    """Whether every ready endpoint has a hint, and at least one hint is `own`, this node or its zone."""
    if not own or not all(hints_of(endpoint) for endpoint, _ in ready):
        return False
    return any(own in hints_of(endpoint) for endpoint, _ in ready)


def _hinted(ready: Sequence[Candidate], node: Node) -> Sequence[Candidate]:
    """Return the endpoints that have a hint for this node, else for its zone, else all endpoints."""
    if not ready or not (ready[0][0].for_nodes or ready[0][0].for_zones):  # usually there are no hints
        return ready
    if _use_hints(ready, lambda endpoint: endpoint.for_nodes, node.name):
        return [pair for pair in ready if node.name in pair[0].for_nodes]
    if _use_hints(ready, lambda endpoint: endpoint.for_zones, node.zone):
        return [pair for pair in ready if node.zone in pair[0].for_zones]
    return ready


def for_cluster(candidates: Sequence[Candidate], node: Node) -> Sequence[Candidate]:
    """Return the endpoints for the traffic policy Cluster; none if no node has a usable endpoint.

    `candidates` are those of one service port in one family. With `on_node`, it corresponds to kube-proxy's
    CategorizeEndpoints.
    """
    return _hinted([pair for pair in candidates if pair[0].ready], node) or usable(candidates)


def on_node(candidates: Sequence[Candidate], node: Node) -> Sequence[Candidate]:
    """Return the endpoints for the traffic policy Local: those on this node, regardless of hints."""
    return usable([pair for pair in candidates if pair[0].node == node.name])


# --- lists of endpoints ---


def balance_of(service: Service) -> Balance:
    """Return how the frontends of a Service choose an endpoint."""
    if service.hashing is not None:
        return service.hashing
    return Balance.RANDOM if service.affinity_timeout is None else Balance.STICKY


def candidates(port: ServicePort, slices: Iterable[EndpointSlice], family: Family) -> list[Candidate]:
    """Return all endpoints of a service port in one family, in any state."""
    return [
        (endpoint, slice_port.port)
        for slice_ in slices
        if slice_.family is family and not slice_.headless
        for slice_port in slice_.ports
        if slice_port.name == port.name and slice_port.protocol is port.protocol
        for endpoint in slice_.endpoints
    ]


def _backends(service: Service, chosen: Sequence[Candidate], elsewhere: bool) -> Backends:
    if service.weights:
        sockets = {(endpoint.address, port): endpoint for endpoint, port in chosen}
        weighted = [
            socket
            for socket, endpoint in sorted(sockets.items(), key=lambda item: item[0])
            for _ in range(_weight(service, endpoint.pod, socket[0]))
        ]
    else:
        weighted = _sockets(chosen)
    if service.hashing is not None:
        return Backends(maglev.table(weighted), elsewhere)
    return Backends(tuple(weighted), elsewhere)


def _weight(service: Service, pod: str, address: Address) -> int:
    return service.weights.get(pod) or service.weights.get(format_address(address)) or 1


def serving_sockets(every: Iterable[Candidate]) -> tuple[Socket, ...]:
    """Return address and port of the serving endpoints, sorted."""
    return tuple(sorted({(endpoint.address, port) for endpoint, port in every if endpoint.serving}))


def choices(
    service: Service, port: ServicePort, slices: Iterable[EndpointSlice], family: Family, node: Node
) -> Choices:
    """Return the endpoint lists of `port` in one family, as `node` uses them."""
    every = candidates(port, slices, family)
    selected = for_cluster(every, node)
    cluster = local = _backends(service, selected, bool(selected))
    if service.internal_local or service.external_local:
        local = _backends(service, on_node(every, node), bool(selected))
    return Choices(
        internal=local if service.internal_local else cluster,
        cluster=cluster,
        outside=local if service.external_local else None,
        serving=serving_sockets(every) if port.protocol is Protocol.UDP else (),
    )


# --- shares of the backends of a Gateway ---


def shared_choices(port: ServicePort, slices: Sequence[EndpointSlice], family: Family, node: Node) -> Choices:
    """Return the endpoint lists of a port of a Gateway in one family, as `node` uses them."""
    groups = _groups(port, slices, family)
    chosen = {share: for_cluster(group, node) for share, group in groups.items()}
    every = [candidate for group in groups.values() for candidate in group]
    found = in_slots((share.weight, _sockets(group)) for share, group in chosen.items())
    return Choices(
        internal=found,
        cluster=found,
        outside=None,
        serving=serving_sockets(every) if port.protocol is Protocol.UDP else (),
    )


def _groups(
    port: ServicePort, slices: Sequence[EndpointSlice], family: Family
) -> Mapping[Share, list[Candidate]]:
    """Return the endpoints of each backend, also of one that has none in this family."""
    shares = {s.share for s in slices if s.share and any(each.name == port.name for each in s.ports)}
    return {
        share: candidates(port, [each for each in slices if each.share == share], family)
        for share in sorted(shares)
    }


def _sockets(group: Iterable[Candidate]) -> list[Socket]:
    """Return address and port of endpoints, sorted, each once. It is faster to sort before than after."""
    return list(dict.fromkeys(sorted([(endpoint.address, port) for endpoint, port in group])))


def in_slots(backends: Iterable[tuple[int, Sequence[Socket]]]) -> Backends:
    """Return the slots of backends: (weight, endpoints) each."""
    from fractions import Fraction  # not at the top: only routes have shares

    weighted = [(weight, sockets) for weight, sockets in backends if weight]
    total = sum(weight for weight, _ in weighted)
    shares = [(Fraction(weight, total * len(sockets)), sockets) for weight, sockets in weighted if sockets]
    if not shares:
        return Backends(())
    refused = Fraction(sum(weight for weight, sockets in weighted if not sockets), total)
    size = _size([share for share, _ in shares] + ([refused] if refused else []))
    slots = [socket for share, sockets in shares for socket in sockets for _ in range(_count(share, size))]
    return Backends(tuple(sorted(slots)), refusing=_count(refused, size) if refused else 0)


def _size(shares: Sequence[Fraction]) -> int:
    """Return the number of slots in which every share is a whole number; almost, if that is too large."""
    exact = lcm(*(share.denominator for share in shares))
    if exact <= EXACT:
        return exact
    return min(exact, max(EXACT, ceil(PRECISE / min(shares))), MOST)


def _count(share: Fraction, size: int) -> int:
    return max(1, round(share * size))


# --- frontends ---


def _addresses(service: Service, node: Node) -> list[tuple[FrontendKind, Address]]:
    """Return the addresses on which a Service is reachable, in the families of its ClusterIPs.

    A Gateway is reachable on all its addresses.
    """
    if service.type == GATEWAY:
        addresses = dict.fromkeys(service.load_balancer_ips)
        return [(FrontendKind.GATEWAY, address) for address in addresses if not denying(address, node)]
    found = [(FrontendKind.CLUSTER_IP, address) for address in dict.fromkeys(service.cluster_ips)]
    families = {family_of(address) for address in service.cluster_ips}
    if service.external_ips or service.load_balancer_ips:
        found += [each for each in _external(service, node) if family_of(each[1]) in families]
    if any(port.node_port for port in service.ports):
        own = dict.fromkeys(node.node_port_addresses)
        found += [(FrontendKind.NODE_PORT, address) for address in own if family_of(address) in families]
    return found


def _external(service: Service, node: Node) -> Iterator[tuple[FrontendKind, Address]]:
    """Yield the external addresses of a Service that it may have.

    One that is also a ClusterIP of the Service is a ClusterIP only. minikube's tunnel writes such a status;
    it must not change how pods reach the ClusterIP.
    """
    for kind, addresses in (
        (FrontendKind.EXTERNAL_IP, service.external_ips),
        (FrontendKind.LOAD_BALANCER, service.load_balancer_ips),
    ):
        for address in dict.fromkeys(addresses):
            if address not in service.cluster_ips and not denying(address, node):
                yield kind, address


def denying(address: Address, node: Node) -> Network | None:
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


def _by_port(slices: Iterable[EndpointSlice]) -> Mapping[tuple[str, Protocol], Sequence[EndpointSlice]]:
    """Return the slices of each port, with this port only. So each port of a slice is looked at once."""
    found: dict[tuple[str, Protocol], list[EndpointSlice]] = {}
    for slice_ in slices:
        for port in slice_.ports:
            found.setdefault((port.name, port.protocol), []).append(replace(slice_, ports=(port,)))
    return found


def service_frontends(service: Service, slices: Iterable[EndpointSlice], node: Node) -> Iterator[Frontend]:
    """Yield every frontend of a Service whose addresses and node ports are allocated.

    Headless and ExternalName Services have none, nor have Services that another proxy serves.
    """
    if not service.wants_frontends or service.proxied_elsewhere:
        return
    slices, addresses = tuple(slices), _addresses(service, node)
    of_port = _by_port(slices) if len(service.ports) > 1 and service.type != GATEWAY else None
    for port in service.ports:
        if of_port is not None:
            slices = of_port.get((port.name, port.protocol), ())
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

"""The endpoints among which one node distributes the connections to a service port, per family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kproxy.model import (
    Address,
    Backends,
    Balance,
    EndpointSlice,
    Family,
    Node,
    Protocol,
    Service,
    ServicePort,
    format_address,
)
from kproxy.resolve import maglev
from kproxy.resolve.topology import Candidate, categorize


class Choices(NamedTuple):
    """The endpoint lists of one service port, in one family."""

    internal: Backends
    """For ClusterIPs."""
    cluster: Backends
    """For external frontends: for pods and this node; with externalTrafficPolicy Cluster for all clients."""
    outside: Backends | None
    """For external frontends with externalTrafficPolicy Local: for all other clients. None with Cluster."""
    local: tuple[Address, ...]
    """Endpoints that may connect to themselves through this node (hairpin): those on this node, and those
    whose node is unknown. With policy Local all endpoints, since this node serves the cluster-wide list
    to pods of other nodes, too."""
    serving: tuple[tuple[Address, int], ...]
    """UDP: every serving endpoint, selected or not, terminating or not."""


def balance_of(service: Service) -> Balance:
    """Return how the frontends of a Service choose an endpoint."""
    if service.hashing is not None:
        return service.hashing
    return Balance.RANDOM if service.affinity_timeout is None else Balance.STICKY


def _candidates(port: ServicePort, slices: Iterable[EndpointSlice], family: Family) -> list[Candidate]:
    return [
        (endpoint, slice_port.port)
        for slice_ in slices
        if slice_.family is family and not slice_.headless
        for slice_port in slice_.ports
        if slice_port.name == port.name and slice_port.protocol is port.protocol
        for endpoint in slice_.endpoints
    ]


def _backends(service: Service, chosen: Sequence[Candidate], elsewhere: bool) -> Backends:
    sockets = {(endpoint.address, port): endpoint for endpoint, port in chosen}
    if service.weights:
        weighted = [
            socket
            for socket, endpoint in sorted(sockets.items(), key=lambda item: item[0])
            for _ in range(_weight(service, endpoint.pod, socket[0]))
        ]
    else:
        weighted = sorted(sockets)
    if service.hashing is not None:
        return Backends(maglev.table(weighted), elsewhere)
    return Backends(tuple(weighted), elsewhere)


def _weight(service: Service, pod: str, address: Address) -> int:
    return service.weights.get(pod) or service.weights.get(format_address(address)) or 1


def _serving(candidates: Iterable[Candidate]) -> tuple[tuple[Address, int], ...]:
    return tuple(sorted({(endpoint.address, port) for endpoint, port in candidates if endpoint.serving}))


def choices(
    service: Service, port: ServicePort, slices: Iterable[EndpointSlice], family: Family, node: Node
) -> Choices:
    """Return the endpoint lists of `port` in one family, as `node` uses them."""
    candidates = _candidates(port, slices, family)
    found = categorize(candidates, node)
    cluster = _backends(service, found.cluster, found.has_any)
    local = cluster
    if service.internal_local or service.external_local:
        local = _backends(service, found.local, found.has_any)
    nodes = {endpoint.address: endpoint.node for endpoint, _ in (*found.cluster, *found.local)}
    hairpin = {
        address for address, where in nodes.items() if service.external_local or where in ("", node.name)
    }
    return Choices(
        internal=local if service.internal_local else cluster,
        cluster=cluster,
        outside=local if service.external_local else None,
        local=tuple(sorted(hairpin)),
        serving=_serving(candidates) if port.protocol is Protocol.UDP else (),
    )

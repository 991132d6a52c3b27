"""The endpoints among which one node distributes the connections to a service port, per family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from kproxy.model import (
    Address,
    Backends,
    Balance,
    Endpoint,
    EndpointSlice,
    Family,
    Node,
    Protocol,
    Service,
    ServicePort,
    format_address,
)
from kproxy.resolve import maglev

Candidate: TypeAlias = tuple[Endpoint, int]
"""An endpoint, and the number of its port."""


class Categorized(Struct, frozen=True):
    """The endpoint lists for the traffic policies Cluster and Local."""

    cluster: Sequence[Candidate]
    local: Sequence[Candidate]
    """The endpoints on this node, regardless of hints."""
    has_any: bool
    """Whether any node has a usable endpoint."""


class Choices(Struct, frozen=True):
    """The endpoint lists of one service port, in one family."""

    internal: Backends
    """For ClusterIPs."""
    cluster: Backends
    """For external frontends: for pods and this node; with externalTrafficPolicy Cluster for all clients."""
    outside: Backends | None
    """For external frontends with externalTrafficPolicy Local: for all other clients. None with Cluster."""
    serving: tuple[tuple[Address, int], ...]
    """UDP: every serving endpoint, selected or not, terminating or not."""


# --- which endpoints: readiness, hints, locality ---


def usable(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the ready endpoints; if there are none, those that serve while they terminate."""
    ready = [pair for pair in candidates if pair[0].ready]
    return ready or [pair for pair in candidates if pair[0].serving and pair[0].terminating]


def _use_hints(ready: Sequence[Candidate], hints_of: Callable[[Endpoint], Sequence[str]], own: str) -> bool:
    """Whether every ready endpoint has a hint, and at least one hint is `own`, this node or its zone."""
    hints = [hints_of(endpoint) for endpoint, _ in ready]
    return bool(own) and all(hints) and any(own in names for names in hints)


def _hinted(candidates: Sequence[Candidate], node: Node) -> Sequence[Candidate]:
    """Return the endpoints that have a hint for this node, else for its zone, else all endpoints."""
    ready = [pair for pair in candidates if pair[0].ready]
    if _use_hints(ready, lambda endpoint: endpoint.for_nodes, node.name):
        return [pair for pair in candidates if node.name in pair[0].for_nodes]
    if _use_hints(ready, lambda endpoint: endpoint.for_zones, node.zone):
        return [pair for pair in candidates if node.zone in pair[0].for_zones]
    return candidates


def categorize(candidates: Sequence[Candidate], node: Node) -> Categorized:
    """Select the endpoints that `node` uses, from those of one service port in one family.

    It corresponds to kube-proxy's CategorizeEndpoints.
    """
    near = [pair for pair in _hinted(candidates, node) if pair[0].ready]
    cluster = near or usable(candidates)
    local = usable([pair for pair in candidates if pair[0].node == node.name])
    return Categorized(cluster, local, has_any=bool(cluster or local))


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


def serving_sockets(every: Iterable[Candidate]) -> tuple[tuple[Address, int], ...]:
    """Return address and port of the serving endpoints, sorted."""
    return tuple(sorted({(endpoint.address, port) for endpoint, port in every if endpoint.serving}))


def choices(
    service: Service, port: ServicePort, slices: Iterable[EndpointSlice], family: Family, node: Node
) -> Choices:
    """Return the endpoint lists of `port` in one family, as `node` uses them."""
    every = candidates(port, slices, family)
    found = categorize(every, node)
    cluster = _backends(service, found.cluster, found.has_any)
    local = cluster
    if service.internal_local or service.external_local:
        local = _backends(service, found.local, found.has_any)
    return Choices(
        internal=local if service.internal_local else cluster,
        cluster=cluster,
        outside=local if service.external_local else None,
        serving=serving_sockets(every) if port.protocol is Protocol.UDP else (),
    )

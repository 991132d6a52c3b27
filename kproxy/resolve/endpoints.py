"""What connections to a service port are spread over, in one family, as seen from one node."""

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
    """The lists of endpoints that a service port's frontends choose from."""

    internal: Backends
    """For its ClusterIPs."""
    cluster: Backends
    """For external frontends: for pods and this node, and with policy Cluster for everyone."""
    outside: Backends | None
    """For external frontends with policy Local: for everyone else."""
    local: tuple[Address, ...]
    """Addresses from which a packet to themselves may come: those that are, or may be (their node is
    not known), on this node. With policy Local, all: pods of other nodes get the cluster-wide list here."""
    serving: tuple[tuple[Address, int], ...]
    """UDP: every endpoint that serves, whoever may use it, terminating or not."""


def balance_of(service: Service) -> Balance:
    """How a service chooses among its endpoints."""
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


def _spread(service: Service, chosen: Sequence[Candidate], any_at_all: bool) -> Backends:
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
        return Backends(maglev.table(weighted), any_at_all)
    return Backends(tuple(weighted), any_at_all)


def _weight(service: Service, pod: str, address: Address) -> int:
    return service.weights.get(pod) or service.weights.get(format_address(address)) or 1


def _serving(candidates: Iterable[Candidate]) -> tuple[tuple[Address, int], ...]:
    return tuple(sorted({(endpoint.address, port) for endpoint, port in candidates if endpoint.serving}))


def choices(
    service: Service, port: ServicePort, slices: Iterable[EndpointSlice], family: Family, node: Node
) -> Choices:
    """The endpoints of `port`, by who asks."""
    candidates = _candidates(port, slices, family)
    found = categorize(candidates, node)
    cluster = _spread(service, found.cluster, found.any)
    local = cluster
    if service.internal_local or service.external_local:
        local = _spread(service, found.local, found.any)
    reachable = {endpoint.address: endpoint.node for endpoint, _ in (*found.cluster, *found.local)}
    loops = {
        address for address, where in reachable.items() if service.external_local or where in ("", node.name)
    }
    return Choices(
        internal=local if service.internal_local else cluster,
        cluster=cluster,
        outside=local if service.external_local else None,
        local=tuple(sorted(loops)),
        serving=_serving(candidates) if port.protocol is Protocol.UDP else (),
    )

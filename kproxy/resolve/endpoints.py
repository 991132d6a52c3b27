"""Which endpoints a service port has.

A slice's port belongs to the service port of the same name and protocol. Ready
endpoints are used; only if there is none, those that still serve while they
terminate (kube-proxy's CategorizeEndpoints).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kproxy.model import Address, Endpoint, EndpointSlice, Family, ServicePort


class Backends(NamedTuple):
    """What connections to a frontend are spread over."""

    endpoints: tuple[tuple[Address, int], ...]
    """Sorted, each once."""
    local: tuple[Address, ...]
    """Addresses among them that are on this node, or may be: their node is not known."""


NOTHING = Backends((), ())


def usable(endpoints: Sequence[tuple[Endpoint, int]]) -> Sequence[tuple[Endpoint, int]]:
    """The ready ones; if none is, those serving while terminating."""
    ready = [pair for pair in endpoints if pair[0].ready]
    return ready or [pair for pair in endpoints if pair[0].serving and pair[0].terminating]


def backends(port: ServicePort, slices: Iterable[EndpointSlice], family: Family, node: str) -> Backends:
    """The endpoints of `port` in one family, as seen from `node`."""
    candidates = [
        (endpoint, slice_port.port)
        for slice_ in slices
        if slice_.family is family
        for slice_port in slice_.ports
        if slice_port.name == port.name and slice_port.protocol is port.protocol
        for endpoint in slice_.endpoints
    ]
    chosen = usable(candidates)
    if not chosen:
        return NOTHING
    return Backends(
        tuple(sorted({(endpoint.address, number) for endpoint, number in chosen})),
        tuple(sorted({endpoint.address for endpoint, _ in chosen if endpoint.node in ("", node)})),
    )

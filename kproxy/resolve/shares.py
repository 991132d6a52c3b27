"""The endpoints of a port of a Gateway: those of several backends, each with its share of the connections.

A slot chain chooses all slots with the same probability. So a share becomes a number of slots: the slots of
backends are in proportion to their weights, and the endpoints of one backend have the same number of slots.
The share of a backend without endpoints becomes empty slots. They refuse connections, as the Gateway API
requires.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil, lcm

from kproxy.model import (
    Address,
    Backends,
    EndpointSlice,
    Family,
    Node,
    Protocol,
    ServicePort,
    Share,
)
from kproxy.resolve.endpoints import Candidate, Choices, candidates, categorize, serving_sockets

Socket = tuple[Address, int]
EXACT = 1024
"""Up to so many slots, shares are exact."""
PRECISE = 8
"""Otherwise the smallest share gets so many slots: rounding changes no share by more than a sixteenth."""
MOST = 16384
"""About the maximum number of slots of a frontend with several backends. Each endpoint has at least one."""


def shared_choices(port: ServicePort, slices: Sequence[EndpointSlice], family: Family, node: Node) -> Choices:
    """Return the endpoint lists of a port of a Gateway in one family, as `node` uses them."""
    groups = _groups(port, slices, family)
    chosen = {share: categorize(group, node).cluster for share, group in groups.items()}
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
    return sorted({(endpoint.address, port) for endpoint, port in group})


def in_slots(backends: Iterable[tuple[int, Sequence[Socket]]]) -> Backends:
    """Return the slots of backends: (weight, endpoints) each."""
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

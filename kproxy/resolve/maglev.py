"""Consistent hashing: which endpoint each slot of a hash table belongs to (Maglev, NSDI 2016, section 3.4).

Every endpoint has a permutation of the slots, which depends only on its address and port. The
endpoints take turns, and each takes the next free slot of its permutation. So all nodes compute
the same table, every endpoint gets almost the same number of slots, and if an endpoint is removed,
few slots of the others change. docs/decisions.md has the measured figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kproxy.digest import blake2b
from kproxy.model import Address

SLOTS = 1021
"""A prime number, so that every step size visits all slots. With 100 endpoints each has about 10."""

Socket = tuple[Address, int]


def _permutation(endpoint: Socket, turn: int) -> tuple[int, int]:
    """Return the first slot of the permutation and its step size."""
    address, port = endpoint
    name = address + port.to_bytes(2, "big") + turn.to_bytes(2, "big")
    digest = blake2b(name, digest_size=16).digest()
    start, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    return start % SLOTS, step % (SLOTS - 1) + 1


def table(endpoints: Sequence[Socket]) -> tuple[Socket, ...]:
    """Return the endpoint of each slot, or () if there are no endpoints.

    An endpoint that occurs several times (its weight) takes that many turns. If there are more turns
    than slots, the numbers are scaled down, but each endpoint takes at least one.
    """
    if not endpoints:
        return ()
    weights, total = Counter(endpoints), max(len(endpoints), SLOTS)
    turns = sorted(
        (turn, endpoint)
        for endpoint, weight in weights.items()
        for turn in range(max(weight * SLOTS // total, 1))
    )
    permutations = [_permutation(endpoint, turn) for turn, endpoint in turns]
    next_slots = [start for start, _ in permutations]
    slots: list[Socket | None] = [None] * SLOTS
    filled = 0
    while True:
        for index, (_, step) in enumerate(permutations):
            slot = next_slots[index]
            while slots[slot] is not None:
                slot = (slot + step) % SLOTS
            slots[slot] = turns[index][1]
            next_slots[index] = (slot + step) % SLOTS
            filled += 1
            if filled == SLOTS:
                return tuple(endpoint for endpoint in slots if endpoint is not None)

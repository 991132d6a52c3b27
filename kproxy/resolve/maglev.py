"""Consistent hashing: which endpoint each slot of a hash table belongs to (Maglev, NSDI 2016, section 3.4).

Every endpoint has a permutation of the slots, from its own name alone, and the endpoints
take turns in claiming the next free slot of theirs. So all nodes come to the same table,
every endpoint gets almost the same share, and when one goes, few slots of the others
change hands. docs/decisions.md has the measured figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from kproxy.model import Address

SLOTS = 1021
"""A prime, so that every step visits all slots; a hundred endpoints have ten each."""

Socket = tuple[Address, int]


def _permutation(endpoint: Socket, turn: int) -> tuple[int, int]:
    """Where an endpoint begins, and by how many slots it goes on."""
    address, port = endpoint
    name = address + port.to_bytes(2, "big") + turn.to_bytes(2, "big")
    digest = blake2b(name, digest_size=16).digest()
    start, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
    return start % SLOTS, step % (SLOTS - 1) + 1


def table(endpoints: Sequence[Socket]) -> tuple[Socket, ...]:
    """The endpoint of each slot; one given several times (a weight) takes as many turns. () for none.

    More turns than slots are scaled down, so that everyone gets one.
    """
    if not endpoints:
        return ()
    weights, total = Counter(endpoints), max(len(endpoints), SLOTS)
    turns = sorted(
        (turn, endpoint)
        for endpoint, weight in weights.items()
        for turn in range(max(weight * SLOTS // total, 1))
    )
    places = [_permutation(endpoint, turn) for turn, endpoint in turns]
    next_of = [start for start, _ in places]
    slots: list[Socket | None] = [None] * SLOTS
    filled = 0
    while True:
        for index, (_, step) in enumerate(places):
            slot = next_of[index]
            while slots[slot] is not None:
                slot = (slot + step) % SLOTS
            slots[slot] = turns[index][1]
            next_of[index] = (slot + step) % SLOTS
            filled += 1
            if filled == SLOTS:
                return tuple(endpoint for endpoint in slots if endpoint is not None)

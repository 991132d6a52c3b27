"""jhash by known values: Linux's own, computed by a C compiler from include/linux/jhash.h."""

from __future__ import annotations

import pytest

from kproxy.table.jhash import jhash, slot_of

VALUES = [
    ("", 0x0, 0xDEADBEEF),
    ("61", 0x0, 0x58D68708),
    ("0af40102", 0x6B70726F, 0x3B509F2A),
    ("0af401029c400000", 0x6B70726F, 0xA16F5D27),
    ("000102030405060708090a0b", 0x1, 0x453F0BF7),
    ("000102030405060708090a0b0c", 0x1, 0xC9D965FE),
    ("000102030405060708090a0b0c0d0e0f", 0x6B70726F, 0xCC930387),
    ("000102030405060708090a0b0c0d0e0f10111213", 0xFFFFFFFF, 0x9AEC4275),
    ("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223", 0x7, 0x0C1CF40C),
]


@pytest.mark.parametrize(("data", "seed", "value"), VALUES)
def test_jhash(data: str, seed: int, value: int) -> None:
    assert jhash(bytes.fromhex(data), seed) == value


@pytest.mark.parametrize("slots", [1, 3, 1021])
def test_slots_are_distributed_evenly(slots: int) -> None:
    found = [slot_of(number.to_bytes(4, "big"), slots, 0x6B70726F) for number in range(20 * slots)]
    assert set(found) <= set(range(slots))
    assert max(found.count(slot) for slot in range(slots)) < 60

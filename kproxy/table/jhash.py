"""Linux's jhash (include/linux/jhash.h, Bob Jenkins' lookup3), as `jhash` in a rule computes it."""

from __future__ import annotations

import sys
from typing import Literal

_MASK = 0xFFFFFFFF
_BLOCK = 12


def slot_of(data: bytes, slots: int, seed: int) -> int:
    """Return the result of `jhash DATA mod SLOTS seed SEED`, with DATA as in the kernel's registers."""
    return jhash(data, seed) * slots >> 32


def jhash(data: bytes, seed: int) -> int:
    """Return the hash of `data`: 32 bits."""
    a = b = c = (0xDEADBEEF + len(data) + seed) & _MASK
    while len(data) > _BLOCK:
        a, b, c = _mix(*_add((a, b, c), data[:_BLOCK], sys.byteorder))
        data = data[_BLOCK:]
    return _final(*_add((a, b, c), data.ljust(_BLOCK, b"\0"), "little")) if data else c


def _add(state: tuple[int, int, int], block: bytes, order: Literal["little", "big"]) -> tuple[int, int, int]:
    a, b, c = (int.from_bytes(block[at : at + 4], order) for at in (0, 4, 8))
    return (state[0] + a) & _MASK, (state[1] + b) & _MASK, (state[2] + c) & _MASK


def _turn(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _MASK) ^ _turn(c, bits)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turn(b, bits)) & _MASK
        a, b, c = b, c, a
    return b

"""Packs keys that only tests need: of single slots, and of entries that packets write."""

from __future__ import annotations

from kproxy.model import Address
from kproxy.table.keys import AffinityKey, PackedSocket, SlotKey, frontend_socket, slot_keys
from kproxy.table.layout import FrontendSide


def slot_key(frontend: PackedSocket, number: int) -> SlotKey:
    """Return the key of a slot of a frontend."""
    (key,) = slot_keys(frontend, [number])
    return key


def slot(side: FrontendSide, number: int) -> SlotKey:
    """Return the key of a slot of a frontend side."""
    return slot_key(frontend_socket(side.key), side.scope.base + number)


def affinity_key(client: Address, frontend: PackedSocket) -> AffinityKey:
    """Return the key of a client of a frontend in an affinity map."""
    return AffinityKey(client + frontend)

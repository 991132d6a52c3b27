"""Keys that only tests pack: single slots, and those that packets write."""

from __future__ import annotations

from kproxy.model import Address
from kproxy.table.keys import AffinityKey, PackedSocket, SlotKey, frontend_socket, slot_keys
from kproxy.table.layout import FrontendSide


def slot_key(frontend: PackedSocket, number: int) -> SlotKey:
    """The key of a slot of a frontend."""
    (key,) = slot_keys(frontend, [number])
    return key


def slot(side: FrontendSide, number: int) -> SlotKey:
    """The key of a slot of a frontend side."""
    return slot_key(frontend_socket(side.key), side.scope.base + number)


def affinity_key(client: Address, frontend: PackedSocket) -> AffinityKey:
    """The key of a client of a frontend."""
    return AffinityKey(client + frontend)

"""Packs the keys of single slots, which only tests need."""

from __future__ import annotations

from kproxy.table.layout import FrontendSide, PackedSocket, SlotKey, frontend_socket, slot_keys


def slot_key(frontend: PackedSocket, number: int) -> SlotKey:
    """Return the key of a slot of a frontend."""
    (key,) = slot_keys(frontend, number, 1)
    return key


def slot(side: FrontendSide, number: int) -> SlotKey:
    """Return the key of a slot of a frontend side."""
    return slot_key(frontend_socket(side.key), side.scope.base + number)

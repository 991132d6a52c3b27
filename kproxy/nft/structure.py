"""A table as the kernel lists it, without the elements of services, in the kernel's own bytes."""

from __future__ import annotations

from typing import NamedTuple


class ChainStructure(NamedTuple):
    """A chain: its declaration, and its rules in order."""

    declaration: bytes
    rules: tuple[bytes, ...]


class Structure(NamedTuple):
    """A table without the elements that come from services."""

    table: bytes
    sets: dict[str, bytes]
    chains: dict[str, ChainStructure]
    constants: dict[str, frozenset[bytes]]
    """Elements of the sets that depend on options only, raw."""

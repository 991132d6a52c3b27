"""A table as the kernel lists it, in the kernel's own bytes, without the elements that transactions write."""

from __future__ import annotations

from typing import NamedTuple


class ChainStructure(NamedTuple):
    """A chain: its declaration, and its rules in order."""

    declaration: bytes
    rules: tuple[bytes, ...]


class Structure(NamedTuple):
    """A table without the elements that transactions write."""

    table: bytes
    sets: dict[str, bytes]
    chains: dict[str, ChainStructure]
    constants: dict[str, frozenset[bytes]]
    """The elements of the sets that have the same ones always."""

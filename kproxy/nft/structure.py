"""The structure of a table as the kernel lists it, in the kernel's bytes: declarations and rules."""

from __future__ import annotations

from typing import NamedTuple


class ChainStructure(NamedTuple):
    """The declaration of a chain, and its rules in order."""

    declaration: bytes
    rules: tuple[bytes, ...]


class Structure(NamedTuple):
    """A table without the elements that transactions or packets write."""

    table: bytes
    sets: dict[str, bytes]
    chains: dict[str, ChainStructure]
    constants: dict[str, frozenset[bytes]]
    """The elements of the constant sets."""

"""The structure of a table as the kernel lists it, in the kernel's bytes: declarations and rules."""

from __future__ import annotations

from enum import IntFlag

from msgspec import Struct


class TableFlags(IntFlag):
    """The flags of a table (NFT_TABLE_F_* of linux/netfilter/nf_tables.h)."""

    NONE = 0
    DORMANT = 1
    """The kernel does not enter its base chains."""
    OWNER = 2
    """Only the socket that set this flag can change the table."""
    PERSIST = 4
    """The table stays when its owner's socket is closed. Then another socket can own it."""
    OWNED = OWNER | PERSIST


class ChainStructure(Struct, frozen=True):
    """The declaration of a chain, and its rules in order."""

    declaration: bytes
    rules: tuple[bytes, ...]


class Structure(Struct, frozen=True):
    """A table without the elements that transactions or packets write."""

    table: TableFlags
    sets: dict[str, bytes]
    counters: dict[str, bytes]
    """The counters that the elements of a set get, by set. Sets without them are left out."""
    chains: dict[str, ChainStructure]
    constants: dict[str, frozenset[bytes]]
    """The elements of the constant sets."""
    other_types: frozenset[str] = frozenset()
    """The sets whose keys or values have another type than those of the set that is expected by this name."""

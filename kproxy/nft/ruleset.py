"""A table as data: sets, maps and chains, as declared; what is in the maps is apart (elements.py)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from kproxy.model import Family, Protocol
from kproxy.nft.elements import Field


class SetDeclaration(NamedTuple):
    """A set or a map."""

    name: str
    spec: tuple[str, ...]
    """nft statements: `type ...`, `flags ...`."""
    about: str
    key: tuple[Field, ...] = ()
    value: tuple[Field, ...] = ()
    """Fields of a data map's values."""
    is_map: bool = False
    constant: tuple[str, ...] | None = None
    """The elements of a set that has the same ones always, as nft text; None: transactions write them."""
    dynamic: bool = False
    """Written by packets."""

    @property
    def interval_key(self) -> bool:
        """Whether a key is a range of concatenated fields: packed, it is a first key and a last key."""
        return len(self.key) > 1 and "flags interval" in self.spec


class TupleField(Enum):
    """A field of a connection's tuples in conntrack: the tuple's direction, and the field by nft's name."""

    ORIGINAL_SADDR = ("original", "saddr")
    ORIGINAL_DADDR = ("original", "daddr")
    ORIGINAL_PROTO_DST = ("original", "proto-dst")
    REPLY_SADDR = ("reply", "saddr")
    REPLY_PROTO_SRC = ("reply", "proto-src")

    def __init__(self, direction: str, field: str) -> None:
        self.direction = direction
        self.field = field

    @property
    def is_address(self) -> bool:
        """Whether it is an address, and not a port."""
        return self.field in ("saddr", "daddr")

    def width(self, family: Family) -> int:
        """Bytes in a packed key or value."""
        return family.width if self.is_address else 4

    def expression(self, family: Family) -> str:
        """As nft writes it: `ct original ip saddr`, `ct reply proto-src`."""
        return f"ct {self.direction} {f'{family} ' if self.is_address else ''}{self.field}"


class MapUpdate(NamedTuple):
    """A rule that writes an element into a map: the key and the value come from the connection's tuples.

    A type of its own because libnftables before 1.1 aborts on the IPv6 form (a map's key and value
    pass 16 bytes), which the kernel takes: that one has to be sent by netlink.
    """

    family: Family
    protocol: Protocol
    map: str
    key: tuple[TupleField, ...]
    value: tuple[TupleField, ...]
    timeout: int
    """Seconds."""

    def __str__(self) -> str:
        key, value = self._expressions(self.key), self._expressions(self.value)
        element = f"{key} timeout {self.timeout}s : {value}"
        return f"meta l4proto {self.protocol} update @{self.map} {{ {element} }}"

    def _expressions(self, fields: tuple[TupleField, ...]) -> str:
        return " . ".join(field.expression(self.family) for field in fields)


Rule = str | MapUpdate


class Chain(NamedTuple):
    """A chain; `hook` is the statement that makes it a base chain, "" for the others."""

    name: str
    rules: tuple[Rule, ...]
    about: str
    hook: str = ""


class Skeleton(NamedTuple):
    """A table without the elements that transactions and packets write."""

    family: Family
    table: str
    """Its name."""
    sets: tuple[SetDeclaration, ...]
    chains: tuple[Chain, ...]

    def set(self, name: str) -> SetDeclaration:
        """The declaration of that name; KeyError if there is none."""
        for declaration in self.sets:
            if declaration.name == name:
                return declaration
        raise KeyError(name)

    @property
    def written_sets(self) -> tuple[SetDeclaration, ...]:
        """The sets and maps whose elements transactions write."""
        return tuple(d for d in self.sets if d.constant is None and not d.dynamic)

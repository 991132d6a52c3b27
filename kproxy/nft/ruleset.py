"""A table as data: the declarations of its sets and maps, and its chains. elements.py has the elements."""

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
    """A comment for scripts."""
    key: tuple[Field, ...] = ()
    value: tuple[Field, ...] = ()
    """The fields of a value; () for a set and for a verdict map."""
    is_map: bool = False
    constant: tuple[str, ...] | None = None
    """The elements of a constant set, as nft text; None: transactions or packets write the elements."""
    dynamic: bool = False
    """Whether rules add elements, when they evaluate packets."""

    @property
    def interval_key(self) -> bool:
        """Whether a key is a range of concatenated fields. It is packed as a first key and a last key."""
        return len(self.key) > 1 and "flags interval" in self.spec


class TupleField(Enum):
    """A field of a connection's tuples in conntrack: the tuple's direction, and nft's name of the field."""

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
        """Whether the field is an address. Otherwise it is a port."""
        return self.field in ("saddr", "daddr")

    def width(self, family: Family) -> int:
        """Return the number of bytes in a packed key or value."""
        return family.width if self.is_address else 4

    def expression(self, family: Family) -> str:
        """Return nft's expression: `ct original ip saddr`, `ct reply proto-src`."""
        return f"ct {self.direction} {f'{family} ' if self.is_address else ''}{self.field}"


class MapUpdate(NamedTuple):
    """A rule that adds or updates an element of a map. Key and value come from the connection's tuples.

    It has its own type because the IPv6 form must be sent over netlink. The kernel accepts it, but
    libnftables before 1.1 aborts, because key and value are longer than 16 bytes.
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
    """A chain and its rules."""

    name: str
    rules: tuple[Rule, ...]
    about: str
    """A comment for scripts."""
    hook: str = ""
    """The statement that makes it a base chain; "" for other chains."""


class Skeleton(NamedTuple):
    """The declaration of a table: its sets, maps and chains, without elements that are written later."""

    family: Family
    table: str
    """The name of the table."""
    sets: tuple[SetDeclaration, ...]
    chains: tuple[Chain, ...]

    def set(self, name: str) -> SetDeclaration:
        """Return the declaration of a set or map. Raises KeyError if there is none with this name."""
        for declaration in self.sets:
            if declaration.name == name:
                return declaration
        raise KeyError(name)

    @property
    def written_sets(self) -> tuple[SetDeclaration, ...]:
        """The sets and maps whose elements transactions write."""
        return tuple(d for d in self.sets if d.constant is None and not d.dynamic)

"""Expressions: what a rule reads from a packet, from its connection, or from a generator of numbers.

`str` returns nft's notation. kernel/netlink/core/expressions.py packs them for the kernel.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

from msgspec import Struct

from kproxy.model import Family, Protocol


class HeaderField(Struct, frozen=True):
    """A field of a header: `ip daddr`, `tcp dport`, `th dport` (of any transport protocol)."""

    header: str
    """`ip`, `ip6`, `th`, or a protocol."""
    name: str

    @property
    def protocol(self) -> Protocol | None:
        """The transport protocol that the packet must have; None if it can have any."""
        return Protocol(self.header) if self.header in tuple(Protocol) else None

    def __str__(self) -> str:
        return f"{self.header} {self.name}"


class NetworkByte(Struct, frozen=True):
    """One byte of the network header: `@nh,120,8`."""

    offset: int
    """In bytes from the start of the header."""

    def __str__(self) -> str:
        return f"@nh,{8 * self.offset},8"


class Meta(Enum):
    """A property of the packet that no header contains in one place."""

    PROTOCOL = "meta l4proto"
    INPUT_INTERFACE = "iifname"
    OUTPUT_INTERFACE = "oifname"

    def __str__(self) -> str:
        return self.value


INTERFACES = (Meta.INPUT_INTERFACE, Meta.OUTPUT_INTERFACE)


class Connection(Enum):
    """A set of bits of the connection."""

    STATE = "ct state"
    STATUS = "ct status"

    def __str__(self) -> str:
        return self.value


class TupleField(Struct, frozen=True):
    """A field of a connection's tuples in conntrack: `ct original ip saddr`, `ct reply proto-src`."""

    direction: str
    """`original` or `reply`."""
    name: str
    """`saddr`, `daddr`, `proto-src` or `proto-dst`."""
    family: Family

    def __str__(self) -> str:
        of_family = f"{self.family} " if self.name in ("saddr", "daddr") else ""
        return f"ct {self.direction} {of_family}{self.name}"


class AddressType(Struct, frozen=True):
    """What kind of address the source or the destination is for this node: `fib saddr type`."""

    name: Literal["saddr", "daddr"]

    def __str__(self) -> str:
        return f"fib {self.name} type"


class RandomNumber(Struct, frozen=True):
    """A random number from `offset` to `offset + modulus - 1`."""

    modulus: int
    offset: int = 0

    def __str__(self) -> str:
        return f"numgen random mod {self.modulus}{_offset(self.offset)}"


class Hash(Struct, frozen=True):
    """The hash of some fields, from `offset` to `offset + modulus - 1`."""

    fields: tuple[HeaderField, ...]
    modulus: int
    seed: int
    offset: int = 0

    def __str__(self) -> str:
        numbers = f"mod {self.modulus} seed {self.seed:#x}{_offset(self.offset)}"
        return f"jhash {concatenated(self.fields)} {numbers}"


def _offset(offset: int) -> str:
    return f" offset {offset}" if offset else ""


Field: TypeAlias = HeaderField | NetworkByte | Meta | TupleField
Expression: TypeAlias = Field | RandomNumber | Hash
"""What can be a part of a concatenation."""
Concatenation: TypeAlias = tuple[Expression, ...]
"""Consecutive values, for example the key of a map."""


def concatenated(parts: tuple[Expression, ...]) -> str:
    """Return nft's notation for a concatenation."""
    return " . ".join(map(str, parts))

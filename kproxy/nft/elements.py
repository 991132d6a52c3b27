"""Elements of sets and maps, in the kernel's form: packed keys and values.

A key consists of fields. Each is padded to a multiple of four bytes (a kernel register). Addresses, protocols
and ports are in network order. A number is in host order, as `numgen` and `jhash` return it.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import NamedTuple, TypeAlias

from kproxy.model import Family, Protocol, format_address


class Field(Enum):
    """A part of a concatenated key or value."""

    ADDRESS = "address"
    PROTOCOL = "protocol"
    PORT = "port"
    NUMBER = "number"
    BYTE = "byte"

    def type_name(self, family: Family) -> str:
        """Return nft's name of the type."""
        return {
            Field.ADDRESS: "ipv4_addr" if family is Family.IPV4 else "ipv6_addr",
            Field.PROTOCOL: "inet_proto",
            Field.PORT: "inet_service",
            Field.NUMBER: "integer",
            Field.BYTE: "integer",
        }[self]


class Verdict(NamedTuple):
    """The value of an element of a verdict map."""

    text: str
    """The verdict as nft writes it: `goto lb-3`."""
    comment: str = ""
    """The element's comment."""

    @property
    def chain(self) -> str:
        """The chain that the verdict leads to; "" if it leads to none."""
        return self.text.partition(" ")[2]


Value: TypeAlias = bytes | Verdict
"""b"" for an element of a set."""
Elements: TypeAlias = dict[str, dict[bytes, Value]]
"""By set or map: key to value. The key b"" is nft's `*`: all keys that have no element."""

Keys: TypeAlias = dict[str, set[bytes]]
"""Some of a table's elements, by set or map."""

_NUMBERS = {protocol.number: protocol for protocol in Protocol}
COMMENT_BYTES = 127
"""The maximum length of an element's comment in nft, without the final NUL."""


def range_ends(key: bytes) -> tuple[bytes, bytes]:
    """Split the key of a range into its first and its last key."""
    half = len(key) // 2
    return key[:half], key[half:]


def unpack(packed: bytes, fields: tuple[Field, ...], family: Family) -> tuple[str, ...]:
    """Return the fields of a key or value as nft writes them. Raises ValueError if the length is wrong."""
    texts, position = [], 0
    for kind in fields:
        width = family.width if kind is Field.ADDRESS else 4
        part = packed[position : position + width]
        position += width
        match kind:
            case Field.ADDRESS:
                texts.append(format_address(part))
            case Field.PROTOCOL:
                texts.append(str(_NUMBERS.get(part[0], part[0])))
            case Field.PORT:
                texts.append(str(int.from_bytes(part[:2], "big")))
            case Field.BYTE:
                texts.append(str(part[0]))
            case Field.NUMBER:
                texts.append(str(int.from_bytes(part, sys.byteorder)))
    if position != len(packed):
        raise ValueError(f"{packed.hex()} is not {' . '.join(kind.value for kind in fields)}")
    return tuple(texts)

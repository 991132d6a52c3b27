"""Domain names in the wire format of RFC 1035, and the names that Kubernetes gives to addresses.

A `Name` is in lower case, so that a dict compares names as DNS does. A length byte is below 64, and the codes
of upper-case letters are above, so `bytes.lower` changes letters only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from struct import pack
from typing import TypeAlias

from kproxy.model import Address, Endpoint, Network, format_address

Name: TypeAlias = bytes
"""A whole name in wire format, in lower case and without compression."""

LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
LONGEST = 255
"""The maximum length of a name in wire format (RFC 1035)."""
HEADER = 12
"""The length of a message's header, which is the offset of the name in the question."""


def name_of(text: str) -> Name | None:
    """Return the name of `web.default.svc.cluster.local`; None if it is not a valid name of a host."""
    labels = text.removesuffix(".").split(".")
    if not all(map(LABEL.fullmatch, labels)):
        return None
    name = b"".join(bytes((len(label),)) + label.lower().encode() for label in labels) + b"\0"
    return name if len(name) <= LONGEST else None


def below(name: Name, *labels: str) -> Name | None:
    """Return the name `LABEL.LABEL.name`; None if it is not valid."""
    if not all(map(LABEL.fullmatch, labels)):
        return None
    found = b"".join(bytes((len(label),)) + label.lower().encode() for label in labels) + name
    return found if len(found) <= LONGEST else None


def text_of(name: Name) -> str:
    """Return a name as text, with a dot at its end."""
    starts = offsets(name)
    labels = [name[start + 1 : start + 1 + name[start]].decode("latin-1") for start in starts]
    return ".".join(labels) + "."


def offsets(name: Name) -> Iterator[int]:
    """Yield the offset of each label."""
    start = 0
    while length := name[start]:
        yield start
        start += length + 1


def suffixes(name: Name) -> Iterator[Name]:
    """Yield the name and its parents, without the root."""
    return (name[start:] for start in offsets(name))


def pointers(question: Name) -> Mapping[Name, int]:
    """Return the offset in a message of each suffix of the name in the question."""
    return {question[start:]: HEADER + start for start in offsets(question)}


def compressed(name: Name, known: Mapping[Name, int]) -> bytes:
    """Return a name whose suffix is replaced by a pointer to one of the suffixes in `known`, if possible."""
    for start in offsets(name):
        if (at := known.get(name[start:])) is not None:
            return name[:start] + pack("!H", 0xC000 | at)
    return name


ARPA = {4: b"\7in-addr\4arpa\0", 16: b"\3ip6\4arpa\0"}
"""The parents of reverse names, by the length of an address."""
_OCTETS = tuple(bytes((len(str(octet)),)) + str(octet).encode() for octet in range(256))
_NIBBLES = tuple(b"\1%x\1%x" % (octet & 15, octet >> 4) for octet in range(256))
_LABELS = {4: _OCTETS, 16: _NIBBLES}


def reverse_name(address: Address) -> Name:
    """Return the name of an address's PTR record."""
    labels = _LABELS[len(address)]
    return b"".join([labels[octet] for octet in address[::-1]]) + ARPA[len(address)]


def reverse_zones(network: Network) -> list[Name]:
    """Return the zones that contain exactly the addresses of a network."""
    bits = 8 if network.version == 4 else 4
    count = max(-(-network.prefixlen // bits), 1)
    parts = network.subnets(new_prefix=max(count * bits, network.prefixlen))
    names = (reverse_name(part.network_address.packed) for part in parts)
    return [name[list(offsets(name))[-2 - count] :] for name in names]


def dashed(address: Address) -> str:
    """Return the label that Kubernetes makes of an address: `10-0-0-8`, `fd00--1`."""
    label = format_address(address).replace(".", "-").replace(":", "-")
    return f"{'0' if label.startswith('-') else ''}{label}{'0' if label.endswith('-') else ''}"


def endpoint_label(endpoint: Endpoint) -> str:
    """Return the label of an endpoint below the name of its headless Service."""
    return endpoint.hostname or dashed(endpoint.address)

"""The first packets of TCP, prepared in advance, so that sending them needs no computation. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

FIRST_PORT = 1024
"""The first source port."""
SYN = 0x02
TCP = 6


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def syn(source: str, source_port: int, destination: str, port: int) -> bytes:
    """Return an IPv4 packet with a SYN."""
    ends = IPv4Address(source).packed + IPv4Address(destination).packed

    def segment(check: int) -> bytes:
        return struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, SYN, 64240, check, 0)

    length = len(segment(0))
    check = checksum(ends + struct.pack("!BBH", 0, TCP, length) + segment(0))
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, TCP, 0)  # without its checksum
    return header + ends + segment(check)


def syns(source: str, destinations: Sequence[tuple[str, int]], count: int) -> Iterator[tuple[bytes, str]]:
    """Yield packets to the destinations in turn, each with a new source port, and the destination address."""
    for index in range(count):
        address, port = destinations[index % len(destinations)]
        yield syn(source, FIRST_PORT + index, address, port), address

"""What kproxy knows of other programs' tables: chains with hooks, rules that translate or exempt. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

NETWORK, TRANSPORT, PROTOCOL, FAMILY, INTERFACE = "network", "transport", "protocol", "family", "interface"
"""Where a byte of a packet is: in one of two headers, or in what the kernel keeps with the packet."""
Packet: TypeAlias = Mapping[tuple[str, int], int]
"""The known bytes of a packet, by place and offset."""


class ForeignChain(NamedTuple):
    """A chain of another program."""

    family: str
    """ip, ip6 or inet."""
    table: str
    name: str
    hook: str = ""
    """prerouting, input, forward, output or postrouting; "" if the chain is not attached to one."""
    priority: int = 0
    """Lower ones are first."""
    drops: bool = False
    """Whether its policy is drop."""
    rules: int = 0
    """The number of its rules."""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class ForeignTranslation(NamedTuple):
    """A rule of another program that translates destinations (dnat, redirect, DNAT, REDIRECT)."""

    chain: ForeignChain
    constants: frozenset[bytes]
    """The values that its matches compare with: addresses of 4 or 16 bytes, ports of 2 bytes."""
    first: int
    """The lowest priority of a chain through which its table translates destinations."""


class ForeignTest(NamedTuple):
    """A comparison in a rule: of bytes of a packet with ranges of values."""

    place: str
    offset: int
    mask: bytes
    """As long as the value. The bits of the packet that count."""
    ranges: tuple[tuple[bytes, bytes], ...]
    """The first and the last value of each."""
    outside: bool = False
    """Whether the packet must be in none of them."""

    def passes(self, packet: Packet) -> bool | None:
        """Whether a packet passes; None if bytes of it are unknown."""
        value = bytearray()
        for index, bits in enumerate(self.mask):
            byte = packet.get((self.place, self.offset + index))
            if byte is None:
                return None
            value.append(byte & bits)
        return any(first <= value <= last for first, last in self.ranges) is not self.outside


class ForeignExemption(NamedTuple):
    """A rule of another program that exempts packets from connection tracking (notrack, CT --notrack)."""

    chain: ForeignChain
    tests: tuple[ForeignTest, ...]
    """Those that kproxy understands: the rule may have more."""
    first: int
    """The lowest priority of a chain through which its table exempts packets."""

    def takes(self, packet: Packet) -> bool:
        """Whether the rule may exempt a packet: it passes the tests of known bytes.

        If other tests are of unknown bytes, it must pass at least one of the headers.
        """
        has_unknown = passes_header = False
        for test in self.tests:
            result = test.passes(packet)
            if result is False:
                return False
            has_unknown |= result is None
            passes_header |= bool(result) and test.place in (NETWORK, TRANSPORT)
        return passes_header or not has_unknown


class Foreign(NamedTuple):
    """The tables of other programs."""

    chains: tuple[ForeignChain, ...]
    translations: tuple[ForeignTranslation, ...]
    exemptions: tuple[ForeignExemption, ...] = ()

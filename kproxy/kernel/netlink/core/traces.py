"""Reads the kernel's trace messages. linux/netfilter/nf_tables.h (NFTA_TRACE_*) defines them."""

from __future__ import annotations

import struct
from typing import NamedTuple

from kproxy.kernel.netlink.core.codec import attributes, read_string
from kproxy.kernel.netlink.core.constants import (
    NFT_TRACETYPE_RULE,
    NFTA_TRACE_CHAIN,
    NFTA_TRACE_NETWORK_HEADER,
    NFTA_TRACE_OIF,
    NFTA_TRACE_POLICY,
    NFTA_TRACE_RULE_HANDLE,
    NFTA_TRACE_TABLE,
    NFTA_TRACE_TRANSPORT_HEADER,
    NFTA_TRACE_TYPE,
    NFTA_TRACE_VERDICT,
)
from kproxy.kernel.netlink.core.elements import VERDICTS, read_verdict
from kproxy.model import Address

ADDRESSES = {4: (12, 16, 4), 6: (8, 24, 16)}
"""By version of IP: offsets of source and destination in the header, and the length of an address."""


class TraceMessage(NamedTuple):
    """One message. A field that the kernel left out is 0, "" or b""."""

    table: str
    chain: str
    handle: int | None
    """The handle of the rule; None if the chain ended, and its policy applied or the packet returned."""
    verdict: str
    source: Address
    destination: Address
    ports: tuple[int, int]
    """The first two fields of the transport header."""
    interface: int
    """The index of the interface through which the packet leaves."""

    def completed(self, last: TraceMessage) -> TraceMessage:
        """Add the headers of the last message, if the kernel left them out.

        It sends them once for each base chain.
        """
        if self.source:
            return self
        return self._replace(
            source=last.source, destination=last.destination, ports=last.ports, interface=last.interface
        )


def read_trace(content: memoryview) -> TraceMessage:
    """Read the attributes of a message."""
    found = dict(attributes(content))
    # Newer kernels send the end of a chain to which a packet jumped as a rule with the handle 0.
    handle = _number(found, NFTA_TRACE_RULE_HANDLE) or None
    is_rule = _number(found, NFTA_TRACE_TYPE) == NFT_TRACETYPE_RULE
    source, destination = _addresses(bytes(found.get(NFTA_TRACE_NETWORK_HEADER, b"")))
    return TraceMessage(
        _text(found, NFTA_TRACE_TABLE),
        _text(found, NFTA_TRACE_CHAIN),
        handle if is_rule else None,
        _verdict(found),
        source,
        destination,
        _ports(bytes(found.get(NFTA_TRACE_TRANSPORT_HEADER, b""))),
        _number(found, NFTA_TRACE_OIF),
    )


def _number(found: dict[int, memoryview], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "big")


def _text(found: dict[int, memoryview], kind: int) -> str:
    return read_string(found[kind]) if kind in found else ""


def _verdict(found: dict[int, memoryview]) -> str:
    if NFTA_TRACE_POLICY in found:
        return VERDICTS.get(_number(found, NFTA_TRACE_POLICY), "")
    return read_verdict(bytes(found[NFTA_TRACE_VERDICT])) if NFTA_TRACE_VERDICT in found else ""


def _addresses(header: bytes) -> tuple[Address, Address]:
    source, destination, length = ADDRESSES.get(header[0] >> 4 if header else 0, (0, 0, 0))
    return header[source : source + length], header[destination : destination + length]


def _ports(header: bytes) -> tuple[int, int]:
    return struct.unpack(">HH", header[:4]) if len(header) >= 4 else (0, 0)

"""Reads rules of other programs that exempt packets from tracking. They are packed as nft does."""

from __future__ import annotations

import struct

import pytest

from kproxy.kernel.netlink.core.codec import attribute, be32, nested, string
from kproxy.kernel.netlink.core.constants import (
    NFT_CMP_EQ,
    NFT_CMP_GTE,
    NFT_CMP_LTE,
    NFT_CMP_NEQ,
    NFT_LOOKUP_F_INV,
    NFT_META_IIF,
    NFT_META_IIFNAME,
    NFT_META_L4PROTO,
    NFT_META_NFPROTO,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER,
    NFT_REG_1,
    NFT_SET_ELEM_INTERVAL_END,
    NFTA_BITWISE_DREG,
    NFTA_BITWISE_MASK,
    NFTA_BITWISE_SREG,
    NFTA_CMP_DATA,
    NFTA_CMP_OP,
    NFTA_CMP_SREG,
    NFTA_DATA_VALUE,
    NFTA_LOOKUP_FLAGS,
    NFTA_LOOKUP_SET,
    NFTA_LOOKUP_SREG,
    NFTA_META_DREG,
    NFTA_META_KEY,
    NFTA_PAYLOAD_BASE,
    NFTA_PAYLOAD_DREG,
    NFTA_PAYLOAD_LEN,
    NFTA_PAYLOAD_OFFSET,
    NFTA_RANGE_FROM_DATA,
    NFTA_RANGE_OP,
    NFTA_RANGE_SREG,
    NFTA_RANGE_TO_DATA,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY,
    NFTA_XT_INFO,
    NFTA_XT_NAME,
    XT_CT_NOTRACK,
)
from kproxy.kernel.netlink.core.exemptions import NEVER, Ranges, exemption_tests, is_exemption, set_ranges
from kproxy.kernel.netlink.core.expressions import expression
from kproxy.nft.foreign import FAMILY, NETWORK, PROTOCOL, TRANSPORT, ForeignTest

TCP, PORT, CLUSTER_IP, RANGE = b"\x06", b"\x00\x50", bytes([10, 96, 0, 1]), bytes([10, 96, 0, 0])


def value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(NFTA_DATA_VALUE, data))


def payload(base: int, offset: int, length: int) -> bytes:
    return expression(
        "payload",
        be32(NFTA_PAYLOAD_DREG, NFT_REG_1),
        be32(NFTA_PAYLOAD_BASE, base),
        be32(NFTA_PAYLOAD_OFFSET, offset),
        be32(NFTA_PAYLOAD_LEN, length),
    )


def meta(key: int) -> bytes:
    return expression("meta", be32(NFTA_META_KEY, key), be32(NFTA_META_DREG, NFT_REG_1))


def mask(data: bytes) -> bytes:
    registers = be32(NFTA_BITWISE_SREG, NFT_REG_1), be32(NFTA_BITWISE_DREG, NFT_REG_1)
    return expression("bitwise", *registers, value(NFTA_BITWISE_MASK, data))


def compare(operation: int, data: bytes) -> bytes:
    return expression(
        "cmp", be32(NFTA_CMP_SREG, NFT_REG_1), be32(NFTA_CMP_OP, operation), value(NFTA_CMP_DATA, data)
    )


def between(operation: int, first: bytes, last: bytes) -> bytes:
    ends = value(NFTA_RANGE_FROM_DATA, first), value(NFTA_RANGE_TO_DATA, last)
    return expression("range", be32(NFTA_RANGE_SREG, NFT_REG_1), be32(NFTA_RANGE_OP, operation), *ends)


def lookup(name: str, flags: int = 0) -> bytes:
    register = be32(NFTA_LOOKUP_SREG, NFT_REG_1)
    return expression("lookup", string(NFTA_LOOKUP_SET, name), register, be32(NFTA_LOOKUP_FLAGS, flags))


def target(name: str, flags: int) -> bytes:
    return expression(
        "target", string(NFTA_XT_NAME, name), attribute(NFTA_XT_INFO, struct.pack("=HHI", flags, 0, 0))
    )


DADDR, DPORT = payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4), payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
L4PROTO, COUNTER = meta(NFT_META_L4PROTO), expression("counter")
OF_SET: Ranges = ((b"\x00\x50", b"\x00\x50"), (b"\x1f\x90", b"\x1f\x99"))


def ranges_of(name: str) -> Ranges | None:
    return OF_SET if name == "ports" else None


def bytes_of(place: str, offset: int, data: bytes, masks: bytes = b"\xff" * 16) -> tuple[ForeignTest, ...]:
    """Return the tests whether bytes are equal to these: one for each."""
    return tuple(
        ForeignTest(place, offset + n, masks[n : n + 1], ((data[n : n + 1], data[n : n + 1]),))
        for n in range(len(data))
    )


def port_test(*ranges: tuple[bytes, bytes], outside: bool = False) -> ForeignTest:
    return ForeignTest(TRANSPORT, 2, b"\xff\xff", ranges, outside)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (b"", ()),
        (DADDR + compare(NFT_CMP_EQ, CLUSTER_IP), bytes_of(NETWORK, 16, CLUSTER_IP)),
        (
            DADDR + mask(b"\xff\xf0\0\0") + compare(NFT_CMP_EQ, RANGE),
            bytes_of(NETWORK, 16, RANGE, b"\xff\xf0\0\0"),
        ),
        (DADDR + mask(b"\xff") + compare(NFT_CMP_EQ, CLUSTER_IP), ()),
        (L4PROTO + compare(NFT_CMP_EQ, TCP), bytes_of(PROTOCOL, 0, TCP)),
        (meta(NFT_META_NFPROTO) + compare(NFT_CMP_EQ, b"\x02"), bytes_of(FAMILY, 0, b"\x02")),
        (DPORT + compare(NFT_CMP_NEQ, PORT), (port_test((PORT, PORT), outside=True),)),
        (DPORT + compare(NFT_CMP_LTE, PORT), (port_test((b"\0\0", PORT)),)),
        (DPORT + compare(NFT_CMP_GTE, PORT), (port_test((PORT, b"\xff\xff")),)),
        (DPORT + between(NFT_CMP_EQ, PORT, b"\x1f\x90"), (port_test((PORT, b"\x1f\x90")),)),
        (DPORT + between(NFT_CMP_NEQ, PORT, b"\x1f\x90"), (port_test((PORT, b"\x1f\x90"), outside=True),)),
        (DPORT + lookup("ports"), (port_test(*OF_SET),)),
        (DPORT + lookup("ports", NFT_LOOKUP_F_INV), (port_test(*OF_SET, outside=True),)),
        (DPORT + lookup("too-large"), ()),
        (DADDR + lookup("ports"), ()),
        (meta(NFT_META_IIFNAME) + compare(NFT_CMP_EQ, b"lo".ljust(16, b"\0")), (NEVER,)),
        (meta(NFT_META_IIF) + compare(NFT_CMP_EQ, struct.pack("=I", 1)), (NEVER,)),
        (meta(NFT_META_IIFNAME) + compare(NFT_CMP_NEQ, b"lo".ljust(16, b"\0")), ()),
        (meta(NFT_META_IIFNAME) + lookup("ports"), ()),
        (meta(9999) + compare(NFT_CMP_EQ, TCP), ()),
        (payload(NFT_PAYLOAD_NETWORK_HEADER, 0, 65) + compare(NFT_CMP_EQ, b"\0" * 65), ()),
        (DADDR + COUNTER + compare(NFT_CMP_EQ, CLUSTER_IP), ()),
    ],
)
def test_the_tests_of_headers_and_protocols_are_read(rule: bytes, expected: tuple[ForeignTest, ...]) -> None:
    assert tuple(exemption_tests(memoryview(rule), ranges_of)) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DADDR + compare(NFT_CMP_EQ, CLUSTER_IP) + expression("notrack"), True),
        (target("NOTRACK", 0), True),
        (target("CT", XT_CT_NOTRACK), True),
        (target("CT", 0), False),
        (target("MARK", XT_CT_NOTRACK), False),
        (COUNTER, False),
    ],
)
def test_a_rule_that_exempts_is_recognized(rule: bytes, expected: bool) -> None:
    assert is_exemption(memoryview(rule)) is expected


def element(data: bytes, flags: int = 0) -> memoryview:
    return memoryview(value(NFTA_SET_ELEM_KEY, data) + be32(NFTA_SET_ELEM_FLAGS, flags))


def test_the_ranges_of_a_set_are_read() -> None:
    end = NFT_SET_ELEM_INTERVAL_END
    single = [element(b"\x1f\x90"), element(PORT)]
    assert set_ranges(single) == ((PORT, PORT), (b"\x1f\x90", b"\x1f\x90"))
    intervals = [
        element(b"\0\0", end),
        element(PORT),
        element(b"\x00\x51", end),
        element(b"\x1f\x90"),
        element(b"\x1f\x9a", end),
    ]
    assert set_ranges(intervals) == OF_SET

"""Reads rules of other programs that exempt packets from connection tracking, and the tests in them.

A test of a header or of the protocol is read. Others are left out, for example those of interfaces and marks:
the rule may exempt fewer packets than its tests say.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from kproxy.kernel.netlink.core import constants
from kproxy.kernel.netlink.core.codec import attributes, read_string
from kproxy.kernel.netlink.core.constants import (
    IFNAMSIZ,
    NFT_CMP_EQ,
    NFT_CMP_NEQ,
    NFT_LOOKUP_F_INV,
    NFT_META_IIF,
    NFT_META_IIFNAME,
    NFT_META_L4PROTO,
    NFT_META_NFPROTO,
    NFT_META_OIF,
    NFT_META_OIFNAME,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER,
    NFT_SET_ELEM_INTERVAL_END,
    NFTA_BITWISE_DREG,
    NFTA_BITWISE_MASK,
    NFTA_BITWISE_SREG,
    NFTA_CMP_DATA,
    NFTA_CMP_OP,
    NFTA_CMP_SREG,
    NFTA_DATA_VALUE,
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
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
from kproxy.nft.foreign import FAMILY, INTERFACE, NETWORK, PROTOCOL, TRANSPORT, ForeignTest

Data: TypeAlias = Mapping[int, memoryview]
Ranges: TypeAlias = tuple[tuple[bytes, bytes], ...]
HEADERS = {NFT_PAYLOAD_NETWORK_HEADER: NETWORK, NFT_PAYLOAD_TRANSPORT_HEADER: TRANSPORT}
METAS = {NFT_META_L4PROTO: PROTOCOL, NFT_META_NFPROTO: FAMILY}
INTERFACES = (NFT_META_IIF, NFT_META_OIF, NFT_META_IIFNAME, NFT_META_OIFNAME)
LOOPBACK = (b"lo".ljust(IFNAMSIZ, b"\0"), struct.pack("=I", 1))
"""Its name and its number."""
NEVER = ForeignTest(PROTOCOL, 0, b"\xff", ())
"""What no packet passes. Packets to Services do not pass the loopback interface."""
MOST_BYTES = 64
"""The maximum number of bytes that a rule can load."""


def is_exemption(expressions: memoryview) -> bool:
    """Whether a rule exempts packets from connection tracking."""
    every = read_expressions(expressions)
    return any(name == "notrack" or (name == "target" and _is_target(data)) for name, data in every)


def read_expressions(expressions: memoryview) -> Iterator[tuple[str, Data]]:
    """Yield the name and the attributes of each expression of a rule."""
    for _, expression in attributes(expressions):
        found = dict(attributes(expression))
        yield read_string(found[NFTA_EXPR_NAME]), dict(attributes(found.get(NFTA_EXPR_DATA, memoryview(b""))))


def _is_target(data: Data) -> bool:
    """Whether a target of iptables exempts: NOTRACK, or CT with its first flag (struct xt_ct_target_info)."""
    name, info = read_string(data[NFTA_XT_NAME]), data.get(NFTA_XT_INFO, memoryview(b""))
    return name == "NOTRACK" or (name == "CT" and bool(struct.unpack_from("=H", info)[0] & XT_CT_NOTRACK))


def exemption_tests(
    expressions: memoryview, ranges_of: Callable[[str], Ranges | None]
) -> Iterator[ForeignTest]:
    """Yield the tests of a rule. `ranges_of` returns what a set contains; None if that is unknown."""
    loaded: dict[int, ForeignTest] = {}
    for name, data in read_expressions(expressions):
        match name:
            case "payload" | "meta":
                _load(loaded, name, data)
            case "bitwise":
                _mask(loaded, data)
            case "cmp":
                read = loaded.get(_number(data[NFTA_CMP_SREG]))
                yield from _compared(read, _number(data[NFTA_CMP_OP]), _value(data[NFTA_CMP_DATA]))
            case "range":
                ranges = ((_value(data[NFTA_RANGE_FROM_DATA]), _value(data[NFTA_RANGE_TO_DATA])),)
                outside = _number(data[NFTA_RANGE_OP]) == NFT_CMP_NEQ
                yield from _test(loaded.get(_number(data[NFTA_RANGE_SREG])), ranges, outside)
            case "lookup":
                inside = ranges_of(read_string(data[NFTA_LOOKUP_SET]))
                outside = bool(_number(data.get(NFTA_LOOKUP_FLAGS, b"")) & NFT_LOOKUP_F_INV)
                yield from _test(loaded.get(_number(data[NFTA_LOOKUP_SREG])), inside, outside)
            case _:  # it may load anything into any register
                loaded.clear()


def _number(data: memoryview | bytes) -> int:
    return int.from_bytes(data, "big")


def _value(data: memoryview) -> bytes:
    return bytes(dict(attributes(data)).get(NFTA_DATA_VALUE, b""))


def _load(loaded: dict[int, ForeignTest], name: str, data: Data) -> None:
    register = _number(data.get(NFTA_PAYLOAD_DREG if name == "payload" else NFTA_META_DREG, b""))
    loaded.pop(register, None)
    if name == "meta":
        key = _number(data.get(NFTA_META_KEY, b""))
        place = INTERFACE if key in INTERFACES else METAS.get(key, "")
        offset, length = 0, 1
    else:
        place = HEADERS.get(_number(data[NFTA_PAYLOAD_BASE]), "")
        offset, length = _number(data[NFTA_PAYLOAD_OFFSET]), _number(data[NFTA_PAYLOAD_LEN])
    if place and length <= MOST_BYTES:
        loaded[register] = ForeignTest(place, offset, b"\xff" * length, ())


def _mask(loaded: dict[int, ForeignTest], data: Data) -> None:
    read = loaded.get(_number(data[NFTA_BITWISE_SREG]))
    mask = _value(data[NFTA_BITWISE_MASK]) if NFTA_BITWISE_MASK in data else b""
    loaded.pop(register := _number(data[NFTA_BITWISE_DREG]), None)
    if read is not None and len(mask) == len(read.mask):
        loaded[register] = read._replace(mask=mask)


def _compared(read: ForeignTest | None, operation: int, value: bytes) -> Iterator[ForeignTest]:
    if read is None:
        return
    if read.place == INTERFACE:
        if operation == NFT_CMP_EQ and value in LOOPBACK:
            yield NEVER
        return
    least, most = bytes(len(value)), b"\xff" * len(value)
    match operation:
        case constants.NFT_CMP_EQ:
            yield from _bytes(read, value)
        case constants.NFT_CMP_NEQ:
            yield from _test(read, ((value, value),), True)
        case constants.NFT_CMP_LTE:
            yield from _test(read, ((least, value),))
        case constants.NFT_CMP_GTE:
            yield from _test(read, ((value, most),))


def _bytes(read: ForeignTest, value: bytes) -> Iterator[ForeignTest]:
    """Yield a test of each byte. nft compares fields that follow each other at once, and some are unknown."""
    if len(value) == len(read.mask):
        for index in range(len(value)):
            at = slice(index, index + 1)
            yield ForeignTest(read.place, read.offset + index, read.mask[at], ((value[at], value[at]),))


def _test(read: ForeignTest | None, ranges: Ranges | None, outside: bool = False) -> Iterator[ForeignTest]:
    """Yield the test if what it reads is known, and if its values have the same length."""
    if read is None or ranges is None or read.place == INTERFACE:
        return
    if all(len(first) == len(last) == len(read.mask) for first, last in ranges):
        yield read._replace(ranges=ranges, outside=outside)


def set_ranges(elements: Iterable[memoryview]) -> Ranges:
    """Return the ranges in a set of one field. In sets with intervals, an element may be the end of one."""
    bounds: list[tuple[bytes, bool]] = []
    for element in elements:
        found = dict(attributes(element))
        is_end = bool(_number(found.get(NFTA_SET_ELEM_FLAGS, b"")) & NFT_SET_ELEM_INTERVAL_END)
        bounds.append((_value(found[NFTA_SET_ELEM_KEY]), is_end))
    bounds.sort()
    ends = [*bounds[1:], (b"", False)]
    return tuple(
        (first, _before(last) if ends_there else first)
        for (first, is_end), (last, ends_there) in zip(bounds, ends, strict=True)
        if not is_end
    )


def _before(value: bytes) -> bytes:
    return (int.from_bytes(value, "big") - 1).to_bytes(len(value), "big")

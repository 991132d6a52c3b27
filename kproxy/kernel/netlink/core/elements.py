"""Packs and reads elements of sets and maps. linux/netfilter/nf_tables.h defines the layout.

The code is optimized for tens of thousands of elements: it packs an element by joining a few byte strings,
and reads counters by position.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache

from kproxy.kernel.netlink.core.codec import attribute, attributes, be32, nested, read_string, string
from kproxy.kernel.netlink.core.constants import (
    NF_ACCEPT,
    NF_DROP,
    NFT_CONTINUE,
    NFT_GOTO,
    NFT_JUMP,
    NFT_RETURN,
    NFT_SET_ELEM_CATCHALL,
    NFTA_COUNTER_PACKETS,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_EXPR_DATA,
    NFTA_LIST_ELEM,
    NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_EXPIRATION,
    NFTA_SET_ELEM_EXPR,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_KEY_END,
    NFTA_SET_ELEM_USERDATA,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    NFTNL_UDATA_SET_ELEM_COMMENT,
    NLA_F_NESTED,
    NLA_TYPE_MASK,
)
from kproxy.nft.elements import Value, Verdict

CALLS = {"goto": NFT_GOTO, "jump": NFT_JUMP}
"""Verdicts that name a chain."""
VERDICTS = {NF_DROP: "drop", NF_ACCEPT: "accept", NFT_RETURN: "return", NFT_CONTINUE: "continue"}
CODES = {text: code for code, text in VERDICTS.items()}
COUNTER = b"counter\0"


# --- packing ---


def pack_verdict(kind: int, text: str) -> bytes:
    """Pack a verdict as nft writes it, in an attribute of type `kind`."""
    action, _, chain = text.partition(" ")
    code = be32(NFTA_VERDICT_CODE, CALLS[action] if chain else CODES[action])
    name = string(NFTA_VERDICT_CHAIN, chain) if chain else b""
    return nested(kind, nested(NFTA_DATA_VERDICT, code, name))


@lru_cache
def _data(kind: int, width: int) -> bytes:
    """Return the headers of `width` bytes of data: kind { VALUE }. `width` is a multiple of four."""
    return struct.pack("=HHHH", width + 8, kind | NLA_F_NESTED, width + 4, NFTA_DATA_VALUE)


@lru_cache
def _element(width: int) -> bytes:
    """Return the header of an element of `width` bytes."""
    return struct.pack("=HH", width + 4, NFTA_LIST_ELEM | NLA_F_NESTED)


def pack_elements(members: Mapping[bytes, Value], ranges: bool = False) -> Iterator[bytes]:
    """Pack each element as an attribute. With `ranges`, a key consists of a first and a last key."""
    verdicts: dict[str, bytes] = {}
    for key, value in members.items():
        if not key:
            body = be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_CATCHALL)
        elif ranges:
            width = len(key) // 2
            body = _data(NFTA_SET_ELEM_KEY, width) + key[:width]
            body += _data(NFTA_SET_ELEM_KEY_END, width) + key[width:]
        else:
            body = _data(NFTA_SET_ELEM_KEY, len(key)) + key
        if isinstance(value, Verdict):
            if value.text not in verdicts:
                verdicts[value.text] = pack_verdict(NFTA_SET_ELEM_DATA, value.text)
            body += verdicts[value.text]
            if value.comment:
                comment = value.comment.encode() + b"\0"
                record = bytes([NFTNL_UDATA_SET_ELEM_COMMENT, len(comment)]) + comment
                body += attribute(NFTA_SET_ELEM_USERDATA, record)
        elif value:
            body += _data(NFTA_SET_ELEM_DATA, len(value)) + value
        yield list_element(body)


def list_element(body: bytes) -> bytes:
    """Return an element as an attribute of a list. `body` contains its attributes."""
    return _element(len(body)) + body


# --- reading ---


@lru_cache
def read_verdict(data: bytes) -> str:
    """Return a verdict as text. Cached, because 10,000 elements share a few verdicts."""
    fields = dict(attributes(memoryview(data)))
    (code,) = struct.unpack(">i", fields[NFTA_VERDICT_CODE])
    for action, number in CALLS.items():
        if code == number:
            return f"{action} {read_string(fields[NFTA_VERDICT_CHAIN])}"
    return VERDICTS.get(code, str(code))


def _read_comment(data: memoryview) -> str:
    position = 0
    while position + 2 <= len(data):
        kind, length = data[position], data[position + 1]
        if kind == NFTNL_UDATA_SET_ELEM_COMMENT:
            return read_string(data[position + 2 : position + 2 + length])
        position += 2 + length
    return ""


def read_element(data: memoryview, ranges: bool = False) -> tuple[bytes, Value]:
    """Return the key and value of an element, without its counter and timeout.

    The key of a range consists of its first and its last key. With `ranges`, an element without a last key is
    a range of one key.
    """
    key, last, value, comment = b"", b"", b"", ""
    verdict: str | None = None
    for kind, content in attributes(data):
        if kind == NFTA_SET_ELEM_KEY:  # { VALUE }
            key = bytes(content[4:])
        elif kind == NFTA_SET_ELEM_DATA:  # { VALUE | VERDICT }
            if struct.unpack_from("=HH", content)[1] & NLA_TYPE_MASK == NFTA_DATA_VALUE:
                value = bytes(content[4:])
            else:
                verdict = read_verdict(bytes(content[4:]))
        elif kind == NFTA_SET_ELEM_USERDATA:
            comment = _read_comment(content)
        elif kind == NFTA_SET_ELEM_KEY_END:  # { VALUE }
            last = bytes(content[4:])
    if ranges or last:
        key += last or key
    return key, (value if verdict is None else Verdict(verdict, comment))


def read_expiration(element: memoryview) -> int | None:
    """Return the seconds until an element expires; None if it does not."""
    for kind, content in attributes(element):
        if kind == NFTA_SET_ELEM_EXPIRATION:
            return int.from_bytes(content, "big") // 1000
    return None


def read_packets(element: memoryview) -> int:
    """Return the number of packets that the counter of an element counted; 0 without a counter."""
    expression = dict(attributes(dict(attributes(element)).get(NFTA_SET_ELEM_EXPR, memoryview(b""))))
    counts = dict(attributes(expression.get(NFTA_EXPR_DATA, memoryview(b""))))
    return int.from_bytes(counts.get(NFTA_COUNTER_PACKETS, b""), "big")


def split_counter(element: memoryview) -> tuple[bytes, int]:
    """Return an element of a map with counters without its counter, and the number of packets.

    The rest is an element that `read_element` reads. The counter is found as in `read_counter`.
    """
    data = bytes(element)
    key_end = 4 + int.from_bytes(data[4:6], sys.byteorder)
    value_end = key_end + 4 + int.from_bytes(data[key_end + 4 : key_end + 6], sys.byteorder)
    if data[value_end + 8 : value_end + 16] != COUNTER:
        return data, 0
    packets = int.from_bytes(data[value_end + 36 : value_end + 44], "big")
    return data[:value_end] + data[value_end + 44 :], packets


def read_counter(element: memoryview) -> tuple[bytes, bytes, int]:
    """Return key, value and number of packets (0 without a counter) of an element of a map with counters.

    The fields are read by position, because a scrape reads 100,000 elements: KEY { VALUE }, DATA { VALUE },
    EXPR { NAME "counter", DATA { BYTES, PACKETS } }. All kernels with counters in elements use this order.
    """
    key_end = 4 + int.from_bytes(element[4:6], sys.byteorder)
    value_end = key_end + 4 + int.from_bytes(element[key_end + 4 : key_end + 6], sys.byteorder)
    counted = 0
    if element[value_end + 8 : value_end + 16] == COUNTER:
        counted = int.from_bytes(element[value_end + 36 : value_end + 44], "big")
    return bytes(element[8:key_end]), bytes(element[key_end + 8 : value_end]), counted

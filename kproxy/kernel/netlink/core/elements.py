"""Packs and reads elements of sets and maps, and finds those that the kernel refused.

linux/netfilter/nf_tables.h defines the layout.

The code is optimized for tens of thousands of elements: it packs an element by joining a few byte strings,
and reads counters by position.

To a refused message, Linux 5.18 and later answer with the offset of the refused element. So one attempt can
name several elements: the first refused element of each message.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice, repeat
from typing import TypeGuard

from msgspec import Struct

from kproxy.kernel.netlink.core.codec import (
    BatchMessage,
    ErrorReply,
    RefusedMessage,
    attribute,
    attributes,
    be32,
    nested,
    padded,
    read_string,
    string,
)
from kproxy.kernel.netlink.core.constants import (
    NF_ACCEPT,
    NF_DROP,
    NFGENMSG_LEN,
    NFT_CONTINUE,
    NFT_GOTO,
    NFT_JUMP,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSETELEM,
    NFT_RETURN,
    NFT_SET_ELEM_CATCHALL,
    NFTA_COUNTER_PACKETS,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_EXPR_DATA,
    NFTA_LIST_ELEM,
    NFTA_RULE_CHAIN,
    NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_EXPIRATION,
    NFTA_SET_ELEM_EXPR,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_KEY_END,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_SET_ELEM_USERDATA,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    NFTNL_UDATA_SET_ELEM_COMMENT,
    NLA_F_NESTED,
    NLA_HDRLEN,
    NLA_TYPE_MASK,
    NLM_F_CREATE,
    NLMSG_HDRLEN,
)
from kproxy.model import Family
from kproxy.nft.elements import Value, Verdict
from kproxy.table.layout import TABLE

CALLS = {"goto": NFT_GOTO, "jump": NFT_JUMP}
"""Verdicts that name a chain."""
VERDICTS = {NF_DROP: "drop", NF_ACCEPT: "accept", NFT_RETURN: "return", NFT_CONTINUE: "continue"}
CODES = {text: code for code, text in VERDICTS.items()}
COUNTER = b"counter\0"
MIN_ELEMENT = 16
"""The bytes of the shortest element: headers, and a key of four bytes."""
CHUNK = 60_000
"""The maximum number of bytes of elements per message. An attribute's length has 16 bits."""
ELEMENT_MESSAGES = (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_DESTROYSETELEM)


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


# --- messages ---


def _packed_chunks(members: Mapping[bytes, Value], ranges: bool) -> Iterator[bytes]:
    """Pack elements as `pack_elements` does, and join them to chunks."""
    if ranges or not _are_alike(members):
        return _chunks(pack_elements(members, ranges))
    return _alike_chunks(members)


def _are_alike(members: Mapping[bytes, Value]) -> TypeGuard[Mapping[bytes, bytes]]:
    """Whether all keys and all values are data of equal widths."""
    keys, values = set(map(len, members)), set(map(len, members.values()))
    is_data = set(map(type, members.values())) == {bytes}
    return is_data and len(keys) == len(values) == 1 and 0 not in keys


def _alike_chunks(members: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Pack elements that are alike, with headers that are packed once. That takes a third of the time."""
    key, value = next(iter(members.items()))
    before_key, before_value = _headers(len(key), len(value))
    parts = chain.from_iterable(zip(repeat(before_key), members, repeat(before_value), members.values()))
    count = CHUNK // len(before_key + key + before_value + value)
    while chunk := b"".join(islice(parts, 4 * count)):
        yield chunk


def _headers(key: int, value: int) -> tuple[bytes, bytes]:
    """Return the headers before key and value of an element with a key and a value of these widths."""
    before_key = _data(NFTA_SET_ELEM_KEY, key)
    before_value = _data(NFTA_SET_ELEM_DATA, value) if value else b""
    return _element(len(before_key) + key + len(before_value) + value) + before_key, before_value


def _chunks(elements: Iterable[bytes]) -> Iterator[bytes]:
    chunk, size = [], 0
    for element in elements:
        chunk.append(element)
        size += len(element)
        if size > CHUNK:
            yield b"".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def element_messages(
    kind: int, family: Family, name: str, members: Mapping[bytes, Value], ranges: bool = False
) -> Iterator[BatchMessage]:
    """Return the messages that add (NFT_MSG_NEWSETELEM) or remove elements of one set or map.

    With `ranges`, a key consists of a first and a last key.
    """
    return _messages(kind, family, name, _packed_chunks(members, ranges))


def packed_messages(
    kind: int, family: Family, name: str, elements: Iterable[bytes]
) -> Iterator[BatchMessage]:
    """Return such messages for packed elements."""
    return _messages(kind, family, name, _chunks(elements))


def _messages(kind: int, family: Family, name: str, chunks: Iterable[bytes]) -> Iterator[BatchMessage]:
    flags = NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0
    head = string(NFTA_SET_ELEM_LIST_TABLE, TABLE) + string(NFTA_SET_ELEM_LIST_SET, name)
    for chunk in chunks:
        yield BatchMessage(kind, flags, family, head + nested(NFTA_SET_ELEM_LIST_ELEMENTS, chunk))


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


def read_elements(elements: memoryview, ranges: bool = False) -> Iterable[tuple[bytes, Value]]:
    """Return the elements of a list as `read_element` does.

    If all have the layout of the first one, and their keys and values are data, they are read by position.
    That takes a fifth of the time.
    """
    layout = None if ranges else _layout(elements)
    if layout and not len(elements) % layout.size:
        heads, keys, *rest = zip(*layout.iter_unpack(elements), strict=True)
        middles, values = rest or ((b"",), repeat(b""))
        if len(set(heads)) == len(set(middles)) == 1:
            return zip(keys, values, strict=False)
    return (read_element(element, ranges) for _, element in attributes(elements))


def _layout(elements: memoryview) -> struct.Struct | None:
    """Return the layout of the first element: headers, key, perhaps headers and value, what is skipped.

    None if it has another one, for example with a verdict. It begins with KEY { VALUE }, DATA { VALUE }.
    """
    if len(elements) < MIN_ELEMENT:
        return None
    width, _, key_width, key_kind = struct.unpack_from("=HHHH", elements)
    end = NLA_HDRLEN + key_width
    if key_kind & NLA_TYPE_MASK != NFTA_SET_ELEM_KEY or key_width <= 8 or width % 4 or key_width % 4:
        return None
    if end == width:
        return struct.Struct(f"=12s{key_width - 8}s")
    if not end + 8 < width <= len(elements):
        return None
    value_width, kind, _, value_kind = struct.unpack_from("=HHHH", elements, end)
    left = width - end - value_width
    if (kind & NLA_TYPE_MASK, value_kind & NLA_TYPE_MASK) != (NFTA_SET_ELEM_DATA, NFTA_DATA_VALUE):
        return None
    if value_width <= 8 or value_width % 4 or left < 0:
        return None
    return struct.Struct(f"=12s{key_width - 8}s8s{value_width - 8}s{left}x")


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


# --- refused elements ---


class KernelRefusal(Struct, frozen=True):
    """What the kernel refused in a message of a batch, and why."""

    errno: int
    kind: int
    """NFT_MSG_*."""
    family: Family
    name: str
    """The set or map; for a rule, its chain; "" for messages about other objects."""
    key: bytes
    """The key of the first refused element; b"" if the kernel does not name it."""
    text: str
    """The kernel's error message; "" if there is none."""

    @property
    def is_element(self) -> bool:
        """Whether the message adds or removes elements."""
        return self.kind in ELEMENT_MESSAGES


def refusals(refused: Iterable[RefusedMessage]) -> tuple[KernelRefusal, ...]:
    """Return the refusals of a batch in their order, without those that are only a consequence of another."""
    return tuple(_causes(_refusal(*each) for each in refused))


def _refusal(refused: BatchMessage, error: ErrorReply) -> KernelRefusal:
    name, key = "", b""
    if refused.kind in ELEMENT_MESSAGES:
        name = read_string(dict(attributes(memoryview(refused.body)))[NFTA_SET_ELEM_LIST_SET])
        key = _key(refused.body, error.offset)
    elif refused.kind == NFT_MSG_NEWRULE:
        name = read_string(dict(attributes(memoryview(refused.body)))[NFTA_RULE_CHAIN])
    return KernelRefusal(error.errno, refused.kind, refused.family, name, key, error.text)


def _key(body: bytes, offset: int | None) -> bytes:
    """Return the key of the element at `offset` of the message; b"" if no element is there.

    The offset counts from the message's header, as in all kernels that name elements.
    """
    position = NLMSG_HDRLEN + NFGENMSG_LEN
    for kind, content in attributes(memoryview(body)):
        if kind == NFTA_SET_ELEM_LIST_ELEMENTS and offset is not None:
            end = position + NLA_HDRLEN
            if offset < end:
                return b""
            for _, element in attributes(content):
                end += NLA_HDRLEN + padded(len(element))
                if offset < end:
                    return read_element(element)[0]
        position += NLA_HDRLEN + padded(len(content))
    return b""


def _causes(refusals: Iterable[KernelRefusal]) -> Iterator[KernelRefusal]:
    """Omit refusals that are only a consequence of another one.

    If the kernel refuses to remove an element, it does not remove the elements after it in the same message.
    It may then refuse to add elements to this set, because the old ones still exist.
    """
    incomplete = set()
    for refusal in refusals:
        changed_set = refusal.family, refusal.name
        if refusal.kind != NFT_MSG_NEWSETELEM:
            incomplete.add(changed_set)
        elif changed_set in incomplete:
            continue
        yield refusal

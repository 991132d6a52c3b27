"""Packs batches of nf_tables messages, and reads the kernel's answers to them.

The kernel applies all messages of a batch or none. It evaluates every message, even after it has refused one.
To each refused message it answers with the error, and since Linux 5.18 with the offset of the refused
element. So one attempt can name several elements: the first refused element of each message.

Only the last message requests an acknowledgement. So an accepted batch has one answer, however large it is.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kproxy.kernel.netlink.core.codec import (
    NFPROTO,
    Message,
    attributes,
    header,
    message_type,
    nested,
    padded,
    read_error,
    read_string,
    string,
)
from kproxy.kernel.netlink.core.constants import (
    NFGENMSG_LEN,
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSETELEM,
    NFTA_RULE_CHAIN,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NLA_HDRLEN,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLMSG_ERROR,
    NLMSG_HDRLEN,
)
from kproxy.kernel.netlink.core.elements import pack_elements, read_element
from kproxy.model import Family
from kproxy.nft.elements import Value
from kproxy.table.names import TABLE

CHUNK = 60_000
"""The maximum number of bytes of elements per message. An attribute's length has 16 bits."""
MAX_REFUSALS = 1000
"""The maximum number of refusals to evaluate per batch."""
ELEMENT_MESSAGES = (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_DESTROYSETELEM)


class BatchMessage(NamedTuple):
    """One message of a batch."""

    kind: int
    """NFT_MSG_*."""
    flags: int
    """NLM_F_*."""
    family: Family
    body: bytes
    """The attributes."""


class Refusal(NamedTuple):
    """A message of a batch that the kernel refused."""

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


class Result(NamedTuple):
    """The result of a batch."""

    errno: int
    """0: the kernel applied the batch. Otherwise the first error; the kernel applied nothing."""
    refusals: tuple[Refusal, ...]
    """The refused messages in their order, without those that are only a consequence of another refusal."""


class Batch:
    """The messages of one transaction."""

    def __init__(self, messages: Iterable[BatchMessage], begin: int) -> None:
        """`begin` is the first sequence number of the batch. Its messages have the following ones."""
        self.begin = begin
        self.messages = list(messages)
        self.end = begin + len(self.messages) + 1
        """The last sequence number of the batch."""

    def pack(self) -> bytes:
        """Return the batch as one datagram."""
        last = self.end - 1
        parts = [_limit(NFNL_MSG_BATCH_BEGIN, self.begin)]
        for sequence, (kind, flags, family, body) in enumerate(self.messages, self.begin + 1):
            flags |= NLM_F_ACK if sequence == last else 0
            type_ = message_type(NFNL_SUBSYS_NFTABLES, kind)
            parts += (header(type_, flags, sequence, NFPROTO[family], len(body)), body)
        parts.append(_limit(NFNL_MSG_BATCH_END, self.end))
        return b"".join(parts)

    def read(self, replies: Iterable[Message]) -> Result:
        """Evaluate all answers of the kernel. ENOBUFS means that the acknowledgement is missing."""
        first, acknowledged = 0, False
        refusals: list[Refusal] = []
        for reply in replies:
            if reply.kind != NLMSG_ERROR:
                continue
            error = read_error(reply)
            first = first or error.errno
            acknowledged |= reply.sequence == self.end - 1
            if error.errno and self.begin < reply.sequence < self.end and len(refusals) < MAX_REFUSALS:
                refused = self.messages[reply.sequence - self.begin - 1]
                refusals.append(_refusal(refused, error.errno, error.offset, error.text))
        if not first and not acknowledged:
            first = errno.ENOBUFS
        return Result(first, tuple(_causes(refusals)))


def _limit(kind: int, sequence: int) -> bytes:
    """Return the message that begins or ends a batch."""
    return header(kind, 0, sequence, 0, 0, NFNL_SUBSYS_NFTABLES)


def _refusal(refused: BatchMessage, error: int, offset: int | None, text: str) -> Refusal:
    name, key = "", b""
    if refused.kind in ELEMENT_MESSAGES:
        name = read_string(dict(attributes(memoryview(refused.body)))[NFTA_SET_ELEM_LIST_SET])
        key = _key(refused.body, offset)
    elif refused.kind == NFT_MSG_NEWRULE:
        name = read_string(dict(attributes(memoryview(refused.body)))[NFTA_RULE_CHAIN])
    return Refusal(error, refused.kind, refused.family, name, key, text)


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


def _causes(refusals: Iterable[Refusal]) -> Iterator[Refusal]:
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


# --- the messages of kproxy's batches ---


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
    return packed_messages(kind, family, name, pack_elements(members, ranges))


def packed_messages(
    kind: int, family: Family, name: str, elements: Iterable[bytes]
) -> Iterator[BatchMessage]:
    """Return such messages for packed elements."""
    flags = NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0
    head = string(NFTA_SET_ELEM_LIST_TABLE, TABLE) + string(NFTA_SET_ELEM_LIST_SET, name)
    for chunk in _chunks(elements):
        yield BatchMessage(kind, flags, family, head + nested(NFTA_SET_ELEM_LIST_ELEMENTS, chunk))

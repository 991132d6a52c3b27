"""Packs and reads netlink messages. linux/netlink.h and linux/netfilter/nfnetlink.h define the format.

A message consists of a header, for netfilter a second header (struct nfgenmsg), and attributes. An attribute
consists of its length, its type and its data, padded to four bytes. Its data may be attributes again.

The kernel applies all messages of a batch or none. It evaluates every message, even after it has refused one,
and answers to each refused message with the error. Only the last message requests an acknowledgement. So an
accepted batch has one answer, however large it is.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from kproxy.kernel.netlink.core.constants import (
    NFGENMSG_LEN,
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NLA_F_NESTED,
    NLA_HDRLEN,
    NLA_TYPE_MASK,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSG_HDRLEN,
    NLMSGERR_ATTR_MSG,
    NLMSGERR_ATTR_OFFS,
)
from kproxy.model import Family

_ATTRIBUTE = struct.Struct("=HH")
_pack_attribute, _unpack_attribute = _ATTRIBUTE.pack, _ATTRIBUTE.unpack_from
"""Length and type of an attribute. Compiled, since a dump has hundreds of thousands of them."""
NFPROTO = {Family.IPV4: NFPROTO_IPV4, Family.IPV6: NFPROTO_IPV6}
INET = "inet"
"""nft's name of the family of tables for both address families. kproxy has no such table."""
NFPROTO_OF_TABLES: dict[str, int] = {**{str(name): n for name, n in NFPROTO.items()}, INET: NFPROTO_INET}

MAX_REFUSALS = 1000
"""The maximum number of refusals to evaluate per batch."""


class Message(NamedTuple):
    """A message from the kernel."""

    kind: int
    """NLMSG_ERROR, NLMSG_DONE, or a subsystem and its message (`message_type`)."""
    flags: int
    """NLM_F_*."""
    sequence: int
    """The sequence number of the request that it answers."""
    content: memoryview
    """The bytes after netlink's header."""


class ErrorReply(Struct, frozen=True):
    """The content of a message of type NLMSG_ERROR."""

    errno: int
    """0: the request was accepted."""
    text: str
    """The kernel's error message (NLMSGERR_ATTR_MSG); "" if there is none."""
    offset: int | None
    """The offset of the refused attribute in the request (NLMSGERR_ATTR_OFFS), counted from its header."""


def padded(length: int) -> int:
    """Round `length` up to a multiple of four."""
    return (length + 3) & ~3


# --- packing ---


def attribute(kind: int, data: bytes) -> bytes:
    """Pack an attribute, padded to four bytes."""
    size = len(data)
    return _pack_attribute(size + NLA_HDRLEN, kind) + data + bytes(-size & 3)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Pack an attribute that contains attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def string(kind: int, text: str) -> bytes:
    """Pack a NUL-terminated string."""
    return attribute(kind, text.encode() + b"\0")


def be32(kind: int, number: int) -> bytes:
    """Pack a 32-bit number in network order."""
    return _pack_attribute(NLA_HDRLEN + 4, kind) + (number & 0xFFFFFFFF).to_bytes(4, "big")


def message_type(subsystem: int, kind: int) -> int:
    """Return the type of a message of a subsystem of netfilter (NFNL_SUBSYS_*)."""
    return subsystem << 8 | kind


def header(kind: int, flags: int, sequence: int, family: int, size: int, resource: int = 0) -> bytes:
    """Pack the headers of netlink and nfnetlink for a request with `size` bytes of attributes."""
    length = NLMSG_HDRLEN + NFGENMSG_LEN + size
    netlink = struct.pack("=IHHII", length, kind, flags | NLM_F_REQUEST, sequence, 0)
    return netlink + struct.pack(">BBH", family, 0, resource)


def message(kind: int, flags: int, sequence: int, family: int, body: bytes) -> bytes:
    """Pack a request: the headers, and `body`, which contains the attributes."""
    return header(kind, flags, sequence, family, len(body)) + body


# --- reading ---


def messages(data: memoryview) -> Iterator[Message]:
    """Return the messages of a datagram. Raises ValueError if a length is not that of a message."""
    position = 0
    while position + NLMSG_HDRLEN <= len(data):
        length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data, position)
        if not NLMSG_HDRLEN <= length <= len(data) - position:
            raise ValueError(f"a message of netlink has a length of {length} bytes")
        yield Message(kind, flags, sequence, data[position + NLMSG_HDRLEN : position + length])
        position += padded(length)


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Return the attributes in a message's body: type without flags, and content.

    As in the kernel, the first one with a length that is too small ends them.
    """
    position = 0
    while position + NLA_HDRLEN <= len(data):
        length, kind = _unpack_attribute(data, position)
        if length < NLA_HDRLEN:
            return
        yield kind & NLA_TYPE_MASK, data[position + NLA_HDRLEN : position + length]
        position += (length + 3) & ~3


def read_string(data: memoryview) -> str:
    """Read a NUL-terminated string."""
    return bytes(data).rstrip(b"\0").decode(errors="replace")


def read_error(reply: Message) -> ErrorReply:
    """Read a message of type NLMSG_ERROR, including the attributes of an extended acknowledgement.

    The message contains the error number, and the request that it answers. With NLM_F_CAPPED, it contains
    only the header of the request.
    """
    code, length = struct.unpack_from("=iI", reply.content)
    if not reply.flags & NLM_F_ACK_TLVS:
        return ErrorReply(-code, "", None)
    request = NLMSG_HDRLEN if reply.flags & NLM_F_CAPPED else padded(length)
    found = dict(attributes(reply.content[4 + request :]))
    offset = found.get(NLMSGERR_ATTR_OFFS)
    return ErrorReply(
        -code,
        read_string(found.get(NLMSGERR_ATTR_MSG, memoryview(b""))),
        None if offset is None else struct.unpack("=I", offset)[0],
    )


# --- batches ---


class BatchMessage(NamedTuple):
    """One message of a batch."""

    kind: int
    """NFT_MSG_*."""
    flags: int
    """NLM_F_*."""
    family: Family
    body: bytes
    """The attributes."""


class RefusedMessage(NamedTuple):
    """A message of a batch that the kernel refused, and its answer."""

    message: BatchMessage
    error: ErrorReply


class Result(Struct, frozen=True):
    """The result of a batch."""

    errno: int
    """0: the kernel applied the batch. Otherwise the first error; the kernel applied nothing."""
    refused: tuple[RefusedMessage, ...]
    """In their order, also those that are only a consequence of another refusal."""


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
        refused: list[RefusedMessage] = []
        for reply in replies:
            if reply.kind != NLMSG_ERROR:
                continue
            error = read_error(reply)
            first = first or error.errno
            acknowledged |= reply.sequence == self.end - 1
            if error.errno and self.begin < reply.sequence < self.end and len(refused) < MAX_REFUSALS:
                message = self.messages[reply.sequence - self.begin - 1]
                refused.append(RefusedMessage(message, error))
        if not first and not acknowledged:
            first = errno.ENOBUFS
        return Result(first, tuple(refused))


def _limit(kind: int, sequence: int) -> bytes:
    """Return the message that begins or ends a batch."""
    return header(kind, 0, sequence, 0, 0, NFNL_SUBSYS_NFTABLES)

"""DNS messages as bytes: a query is parsed, and a reply is composed (RFC 1035, 6891).

Queries come from anywhere, so each length is checked before it is used. A message that is not a query, or
that is too short for a header, gets no reply, because replies to replies could circulate without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from struct import pack, unpack_from
from typing import NamedTuple

from kproxy.dns.core.names import HEADER, LONGEST, Name

LIMIT_PLAIN = 512
"""The maximum length of a reply over UDP to a client without EDNS."""
LIMIT_UDP = 1232
"""The maximum length over UDP for all clients: it fits into the smallest MTU of IPv6 without fragments."""
LIMIT_TCP = 65535
OPT = 41
"""The type of EDNS's record."""
OPT_LENGTH = 11
LONGEST_LABEL = 63
# Bits of the header's flags.
QR, OPCODE, AA, TC, RD, RA, CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
DO = 0x8000
"""The bit of EDNS's flags for DNSSEC. It is returned as received (RFC 3225)."""


class Code(IntEnum):
    """The codes of replies that kproxy sends itself."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Query(NamedTuple):
    """A query with one question."""

    ident: bytes
    """The ID, which the reply repeats."""
    flags: int
    name: Name
    question: bytes
    """The question as received: the case of its letters is repeated (RFC 4343)."""
    edns: tuple[int, int] | None
    """The length that the client can receive over UDP, and the flags; None without EDNS."""

    @property
    def kind(self) -> int:
        """The type of the records that are asked for."""
        return int.from_bytes(self.question[-4:-2], "big")

    @property
    def recursion_desired(self) -> bool:
        """Whether the client asks the server to ask other servers."""
        return bool(self.flags & RD)

    def limit(self, over_tcp: bool) -> int:
        """Return the maximum length of the reply."""
        if over_tcp:
            return LIMIT_TCP
        return LIMIT_PLAIN if self.edns is None else min(max(self.edns[0], LIMIT_PLAIN), LIMIT_UDP)


def parse(data: bytes) -> Query | bytes | None:
    """Parse a message. Returns the reply to a malformed query, and None if there must be no reply."""
    if len(data) < HEADER:
        return None
    flags, questions, answers, authorities, extras = unpack_from("!5H", data, 2)
    if flags & QR:
        return None
    if flags & OPCODE:
        return error(data, Code.NOTIMP)
    if questions != 1 or answers or authorities or extras > 1:
        return error(data, Code.FORMERR)
    end = _end_of_question(data)
    if not end:
        return error(data, Code.FORMERR)
    name, question, edns = data[HEADER : end - 4].lower(), data[HEADER:end], None
    if extras:
        if not _is_opt(data, end):
            return error(data, Code.FORMERR)
        size, extended = unpack_from("!HxxH", data, end + 3)
        edns = size, extended
    elif len(data) != end:
        return error(data, Code.FORMERR)
    query = Query(data[:2], flags, name, question, edns)
    if edns and data[end + 6]:
        return compose(query, Code.BADVERS, limit=LIMIT_PLAIN)
    return query


def _end_of_question(data: bytes) -> int:
    """Return the offset after the question; 0 if it is malformed or its name is compressed."""
    at, longest = HEADER, min(HEADER + LONGEST, len(data)) - 1
    while at <= longest:
        length = data[at]
        if not length:
            end = at + 5
            return end if end <= len(data) else 0
        if length > LONGEST_LABEL:
            return 0
        at += length + 1
    return 0


def _is_opt(data: bytes, at: int) -> bool:
    """Whether the bytes from `at` to the end are one OPT record."""
    if len(data) < at + OPT_LENGTH or data[at : at + 3] != b"\0\0\x29":
        return False
    end = at + OPT_LENGTH + int.from_bytes(data[at + 9 : at + OPT_LENGTH], "big")
    at += OPT_LENGTH
    while at + 4 <= end and end == len(data):
        at += 4 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at == end == len(data)


def error(data: bytes, code: Code) -> bytes:
    """Return the reply without question to a query that could not be parsed."""
    flags = int.from_bytes(data[2:4], "big") & (OPCODE | RD)
    return data[:2] + pack("!5H", QR | flags | code, 0, 0, 0, 0)


def compose(
    query: Query,
    code: Code = Code.NOERROR,
    records: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    extras: Sequence[bytes] = (),
    flags: int = 0,
    limit: int = LIMIT_PLAIN,
) -> bytes:
    """Return a reply of at most `limit` bytes.

    `flags` are added to those that every reply has. If not all fit, the additional records are left out
    first. If records do not fit either, the reply has those that fit, and is marked as truncated.
    """
    flags |= QR | (query.flags & (RD | CD)) | (code & 15)
    edns, opt = query.edns, b""
    if edns is not None:
        opt = pack("!xHHBBHH", OPT, LIMIT_UDP, code >> 4, 0, edns[1] & DO, 0)
    left = limit - HEADER - len(query.question) - len(opt)
    left, kept = _fitting(records, left)
    left, kept_authority = _fitting(authority, left)
    if kept < len(records) or kept_authority < len(authority):
        flags |= TC
        left = 0
    _, kept_extras = _fitting(extras, left)
    counts = kept, kept_authority, kept_extras + bool(opt)
    return b"".join(
        (
            query.ident,
            pack("!5H", flags, 1, *counts),
            query.question,
            *records[:kept],
            *authority[:kept_authority],
            *extras[:kept_extras],
            opt,
        )
    )


def _fitting(records: Iterable[bytes], left: int) -> tuple[int, int]:
    """Return the bytes that remain of `left`, and how many records fit into it."""
    kept = 0
    for each in records:
        if len(each) > left:
            break
        left -= len(each)
        kept += 1
    return left, kept

"""Asks upstream servers for names outside the zone.

Each query has a new ID and a new socket, and thus a random port. Only a datagram of the server with this ID
and this question is its reply; others are ignored. A server that does not answer in time, or not usefully,
is followed by the next one. The server that answered last is asked first. A truncated reply is asked for
again over TCP, and so is one that is longer than the query allows. A server that does not know EDNS is asked
again without it.

Clients that ask the same question at the same time share one query. So a server that asks kproxy again for
what kproxy asks it causes no loop, and a flood of equal questions is one question.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import pack, unpack_from
from typing import NamedTuple

from kproxy.dns.core.names import HEADER
from kproxy.dns.core.wire import CD, LIMIT_UDP, OPCODE, OPT, OPT_LENGTH, QR, RD, TC
from kproxy.limits import DNS_UPSTREAM_QUERIES, DNS_UPSTREAM_SECONDS, DNS_UPSTREAM_TRIES
from kproxy.settings.text import SocketAddress

USELESS = frozenset({2, 4, 5})
"""Codes of replies after which another server is asked: SERVFAIL, NOTIMP, REFUSED."""


UNKNOWN_EDNS = frozenset({1, 4})
"""Codes of replies to a query with EDNS from servers that do not know it: FORMERR, NOTIMP (RFC 6891, 7)."""


class Question(NamedTuple):
    """What is asked. Equal questions share a query."""

    wire: bytes
    """Name in lower case, type and class."""
    checking_disabled: bool
    dnssec: bool
    """Whether the reply may have records of DNSSEC."""


class Upstream:
    """The upstream servers. Use it in the thread of the running event loop."""

    def __init__(self, servers: Callable[[], Sequence[SocketAddress]]) -> None:
        """`servers` returns the servers. It is called for each query."""
        self._servers = servers
        self._asked: dict[Question, asyncio.Task[bytes | None]] = {}
        self._preferred: SocketAddress | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a server to ask."""
        return bool(self._servers())

    def has_room(self, question: Question) -> bool:
        """Whether `ask` would ask a server."""
        return question in self._asked or len(self._asked) < DNS_UPSTREAM_QUERIES

    async def ask(self, question: Question) -> bytes | None:
        """Return the reply; None if no server replies, or if too many queries are waiting."""
        task = self._asked.get(question)
        if task is None:
            if not self.has_room(question):
                return None
            task = self._asked[question] = asyncio.get_running_loop().create_task(self._ask(question))
            task.add_done_callback(lambda _: self._asked.pop(question, None))
        return await asyncio.shield(task)

    async def _ask(self, question: Question) -> bytes | None:
        servers = list(self._servers())
        servers.sort(key=lambda server: server != self._preferred)
        last: bytes | None = None
        for server in servers * DNS_UPSTREAM_TRIES:
            with suppress(OSError):  # also TimeoutError: ask the next one
                async with asyncio.timeout(DNS_UPSTREAM_SECONDS):
                    last = await _exchange(server, question)
                if last[3] & 15 not in USELESS:
                    self._preferred = server
                    return last
        return last


async def _exchange(server: SocketAddress, question: Question) -> bytes:
    """Return a server's reply. Raises OSError."""
    query = query_bytes(question, os.urandom(2))
    reply = await _exchange_over_udp(server, query)
    if reply[3] & 15 in UNKNOWN_EDNS and reply[10:HEADER] == b"\0\0":
        query = query_bytes(question, os.urandom(2), edns=False)
        reply = await _exchange_over_udp(server, query)
    if int.from_bytes(reply[2:4], "big") & TC or len(reply) > LIMIT_UDP:
        return await _exchange_over_tcp(server, query)
    return reply


async def _exchange_over_udp(server: SocketAddress, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Exchange(query), remote_addr=(server.host, server.port)
    )
    try:
        return await protocol.reply
    finally:
        transport.close()


async def _exchange_over_tcp(server: SocketAddress, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        reply = await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError from error
    finally:
        writer.transport.abort()
    if not is_reply(query, reply):
        raise ConnectionError  # a server that sends something else first may never stop
    return reply


class _Exchange(asyncio.DatagramProtocol):
    """Sends a query, and waits for its reply."""

    def __init__(self, query: bytes) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._query = query

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Send the query."""
        transport.sendto(self._query)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take the reply. The kernel passes only datagrams of the server."""
        if not self.reply.done() and is_reply(self._query, data):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """Give up, since the server's host refuses the port."""
        if not self.reply.done():
            self.reply.set_exception(exc)


def query_bytes(question: Question, ident: bytes, edns: bool = True) -> bytes:
    """Return the message that asks a question."""
    flags = RD | (CD if question.checking_disabled else 0)
    opt = pack("!xHHIH", OPT, LIMIT_UDP, 0x8000 if question.dnssec else 0, 0) if edns else b""
    return ident + pack("!5H", flags, 1, 0, 0, edns) + question.wire + opt


def is_reply(query: bytes, data: bytes) -> bool:
    """Whether a message is the reply to a query: it has the same ID, operation and question."""
    if len(data) < HEADER or data[:2] != query[:2]:
        return False
    flags, questions = unpack_from("!HH", data, 2)
    end = len(query) - (OPT_LENGTH if query[HEADER - 1] else 0)
    same_name = data[HEADER : end - 4].lower() == query[HEADER : end - 4]
    same_type = data[end - 4 : end] == query[end - 4 : end]  # a byte of it may be that of a letter
    return bool(flags & QR) and not flags & OPCODE and questions == 1 and same_name and same_type

"""Connections: HTTP/1.1 with h11, on asyncio's streams.

All bytes of an answer pass through `Connection.emit`, where faults delay them or cut them off.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import h11
import msgspec

from tests.apiserver import protobuf

PIECE = 256 * 1024
CHUNKED_FROM = 2048
CHUNKS = 200
"""The number of chunks that are sent in one piece, if there are so many."""
GZIP_FROM = 128 * 1024
"""A real server compresses longer answers for clients that accept gzip."""


Headers = Sequence[tuple[str, str]]


class Request(NamedTuple):
    """A complete request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """With names in lower case."""
    body: bytes
    common_name: str
    """The common name in the client's certificate, "" without one."""


class Cut(Exception):
    """The connection must be reset immediately."""


class Connection:
    """A connection of one client, and the answers to its requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = 0) -> None:
        self.reader, self.writer, self.number = reader, writer, number
        self.http = h11.Connection(h11.SERVER)
        self.remaining: int | None = None
        """The number of bytes that may still be sent before the connection is reset."""
        self.pace: tuple[int, float] | None = None
        """The size of a piece in bytes, and the pause after it in seconds."""
        self._gzip = False
        self.protobuf = False
        """Whether the present request is answered in protobuf, as far as that is possible."""

    async def request(self) -> Request | None:
        """Return the next request; None if the client has closed, or does not speak HTTP."""
        body: list[bytes] = []
        head: h11.Request | None = None
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                if self.http.our_state is h11.SEND_RESPONSE or self.http.our_state is h11.IDLE:
                    await self.answer(error.error_status_hint, str(error).encode(), "text/plain")
                return None
            if event is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    await self.emit(self.http.send(h11.InformationalResponse(status_code=100, headers=[])))
                self.http.receive_data(await self.reader.read(PIECE))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head
                return self._request(head, b"".join(body))
            else:
                return None

    def _request(self, head: h11.Request, body: bytes) -> Request:
        path, _, query = head.target.decode("ascii").partition("?")
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        self._gzip = "gzip" in headers.get("accept-encoding", "")
        return Request(
            head.method.decode(),
            unquote(path),
            dict(parse_qsl(query, keep_blank_values=True)),
            headers,
            body,
            _common_name(self.writer.get_extra_info("ssl_object")),
        )

    async def closed(self) -> None:
        """Return when the client has closed or reset the connection."""
        try:
            while data := await self.reader.read(PIECE):
                self.http.receive_data(data)
        except OSError:
            pass

    # Answers

    async def answer(
        self, status: int, body: bytes, content_type: str = "application/json", headers: Headers = ()
    ) -> None:
        """Send a complete answer. Like a real server, send a long one in chunks."""
        fields = [("content-type", content_type), *headers]
        if self._gzip and len(body) >= GZIP_FROM:
            body = gzip.compress(body, 1)
            fields += [("content-encoding", "gzip"), ("vary", "Accept-Encoding")]
        if len(body) < CHUNKED_FROM:
            fields.append(("content-length", str(len(body))))
        await self._head(status, fields)
        for start in range(0, len(body), PIECE):
            await self._send(h11.Data(data=body[start : start + PIECE]))
        await self.end()

    async def json(self, status: int, content: object, headers: Headers = ()) -> None:
        """Send a complete answer with a JSON body."""
        await self.answer(status, msgspec.json.encode(content) + b"\n", headers=headers)

    async def object(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send an object, a list or a Status, which is JSON here, in the format that the client accepts."""
        with suppress(protobuf.Unencodable):
            if self.protobuf:
                body = protobuf.response(body)
                await self.answer(status, body, protobuf.MEDIA_TYPE, headers)
                return
        await self.answer(status, body, headers=headers)

    async def begin(self) -> None:
        """Send the head of a watch."""
        kind = f"{protobuf.MEDIA_TYPE};stream=watch" if self.protobuf else "application/json"
        await self._head(200, [("content-type", kind)])

    async def events(self, lines: Iterable[bytes]) -> None:
        """Send events of a watch, which are lines of JSON here, in the format of its head."""
        await self.chunks(list(map(protobuf.event, lines) if self.protobuf else lines))

    async def chunks(self, parts: Sequence[bytes]) -> None:
        """Send parts of a stream, each as a chunk, as a real server does with events."""
        for start in range(0, len(parts), CHUNKS):
            sent = (self.http.send(h11.Data(data=part)) for part in parts[start : start + CHUNKS])
            await self.emit(b"".join(data for data in sent if data))

    async def _head(self, status: int, headers: Headers) -> None:
        await self._send(h11.Response(status_code=status, headers=list(headers), reason=reason(status)))

    async def send(self, data: bytes) -> None:
        """Send a part of a stream."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Send the end of an answer."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        parts = self.http.send_with_data_passthrough(event)
        if parts:
            await self.emit(b"".join(parts))

    async def emit(self, data: bytes) -> None:
        """Send bytes to the client, subject to faults."""
        cut = self.remaining is not None and len(data) >= self.remaining
        if self.remaining is not None:
            data = data[: self.remaining]
            self.remaining -= len(data)
        if self.pace:
            size, seconds = self.pace
            for start in range(0, len(data), size):
                self.writer.write(data[start : start + size])
                await self.writer.drain()
                await asyncio.sleep(seconds)
        else:
            self.writer.write(data)
            await self.writer.drain()
        if cut:
            raise Cut

    def reset(self) -> None:
        """End the connection with a RST."""
        try:
            raw = self.writer.get_extra_info("socket")
        except AttributeError:  # raised by a closed TLS transport (Python 3.11)
            return
        if raw is not None and raw.fileno() >= 0:  # else the client has closed the connection
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def reason(status: int) -> str:
    """Return the reason phrase of a status code, "" for an undefined one."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


Handle = Callable[[Connection, Request], Awaitable[None]]


async def serve(connection: Connection, handle: Handle) -> None:
    """Answer the requests of a connection until it ends."""
    try:
        while request := await connection.request():
            await handle(connection, request)
            if connection.http.our_state is not h11.DONE or connection.http.their_state is not h11.DONE:
                break
            connection.http.start_next_cycle()
    except Cut:
        await asyncio.sleep(0.01)  # a RST would overtake the bytes that were sent before
        connection.reset()
    except (OSError, ssl.SSLError, h11.LocalProtocolError):
        pass
    finally:
        connection.writer.close()


def _common_name(tls: ssl.SSLObject | None) -> str:
    """Return the common name in the client's certificate, "" without one."""
    certificate: dict[str, Any] = (tls.getpeercert() if tls else None) or {}
    subject = dict(pair for part in certificate.get("subject", ()) for pair in part)
    return str(subject.get("commonName", ""))

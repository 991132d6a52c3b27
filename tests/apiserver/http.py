"""Connections: HTTP/1.1 by h11, on asyncio's streams.

All bytes of an answer pass through `Connection.emit`, where faults can slow them down or cut them off.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import h11
import msgspec

PIECE = 256 * 1024
CHUNKED_FROM = 2048
GZIP_FROM = 128 * 1024
"""A real server compresses what is longer than this, for those who accept gzip."""


Headers = Sequence[tuple[str, str]]


class Request(NamedTuple):
    """A request, read whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes
    common_name: str
    """Of the client's certificate, "" without one."""


class Cut(Exception):
    """The connection is to end here and now."""


class Connection:
    """One client, and the answers to its requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = 0) -> None:
        self.reader, self.writer, self.number = reader, writer, number
        self.http = h11.Connection(h11.SERVER)
        self.remaining: int | None = None
        """Bytes that may still be sent before the connection is reset."""
        self.pace: tuple[int, float] | None = None
        """Bytes at a time, and seconds between them."""
        self._gzip = False

    async def request(self) -> Request | None:
        """The next request; None if the client has closed, or speaks something else."""
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

    async def gone(self) -> None:
        """Returns when the client has closed or broken the connection."""
        try:
            while data := await self.reader.read(PIECE):
                self.http.receive_data(data)
        except OSError:
            pass

    # Answers

    async def answer(
        self, status: int, body: bytes, content_type: str = "application/json", headers: Headers = ()
    ) -> None:
        """A whole answer. A long one is chunked, as a real server's is."""
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
        """A whole answer, of something that is to be JSON."""
        await self.answer(status, msgspec.json.encode(content) + b"\n", headers=headers)

    async def begin(self, status: int = 200) -> None:
        """The head of a stream."""
        await self._head(status, [("content-type", "application/json")])

    async def _head(self, status: int, headers: Headers) -> None:
        await self._send(h11.Response(status_code=status, headers=list(headers), reason=reason(status)))

    async def send(self, data: bytes) -> None:
        """A piece of a stream."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The end of an answer."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        parts = self.http.send_with_data_passthrough(event)
        if parts:
            await self.emit(b"".join(parts))

    async def emit(self, data: bytes) -> None:
        """Bytes to the client, as faults let them."""
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
        """End it with a RST."""
        try:
            raw = self.writer.get_extra_info("socket")
        except AttributeError:  # so says a TLS transport that is closed already (Python 3.11)
            return
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def reason(status: int) -> str:
    """The phrase that goes with a status code, "" for one that nobody has defined."""
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
        await asyncio.sleep(0.01)  # so that what was sent before arrives: a RST overtakes it
        connection.reset()
    except (OSError, ssl.SSLError, h11.LocalProtocolError):
        pass
    finally:
        connection.writer.close()


def _common_name(tls: ssl.SSLObject | None) -> str:
    """The subject's CN of the client's certificate, "" if there is none."""
    certificate: dict[str, Any] = (tls.getpeercert() if tls else None) or {}
    subject = dict(pair for part in certificate.get("subject", ()) for pair in part)
    return str(subject.get("commonName", ""))

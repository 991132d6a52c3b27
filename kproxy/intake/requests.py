"""A client of HTTP/1.1: sends requests to one server, and reads the responses as they arrive.

h11 makes the requests, and httptools parses the responses: in a watch, each event is a chunk, which takes h11
5 µs and httptools 0.1 µs. Connections are used again. The client does not follow redirects, and it keeps no
cookies. Pauses of the server have a limit.

It decompresses bodies itself. A few bytes of gzip become gigabytes. So a piece has a limit, other tasks have
their turn after each piece, and the reader can stop after any of them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import h11
import httptools
import msgspec

from kproxy.intake.dial import Dial
from kproxy.limits import (
    API_ERROR,
    API_PAGE,
    API_PAGE_SECONDS,
    API_PIECE,
    HEAD_SECONDS,
    KIB,
    MIB,
    READ_BUFFER,
    RESPONSE_HEAD,
)
from kproxy.problems import InvalidResponseError, LimitError

GZIP = 16 + zlib.MAX_WBITS
IDLE_SECONDS = 15.0
"""The time for which an unused connection stays open."""


class RequestError(OSError):
    """A request failed. The text is a sentence."""


class DisconnectedError(RequestError):
    """The server closed the connection before the response."""


class Request(NamedTuple):
    """A request."""

    method: str
    path: str
    """Encoded, with its query."""
    content: Any = None
    """What is sent as JSON; None for nothing."""


class Response:
    """The head of a response, and its body, which is read once. `HttpClient.send` makes it."""

    def __init__(self, head: _Head, connection: _Connection, pause: float | None) -> None:
        self.status = head.status
        self.received = 0
        """The number of bytes of the body that were read."""
        self._headers = head.headers
        self._connection = connection
        self._pause = pause

    def header(self, name: str) -> str | None:
        """Return the value of a header; None if there is none. `name` is in lower case."""
        return self._headers.get(name)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Return the body as it arrives. Raises OSError, also TimeoutError after a pause that is too long."""
        while piece := await self._connection.piece(self._pause):
            self.received += len(piece)
            yield piece

    async def decompressed(self) -> AsyncIterator[bytes]:
        """Return the decompressed body as it arrives. Raises InvalidResponseError, and as `pieces` does."""
        split = _splitter(self.header("content-encoding") or "identity")
        async for data in self.pieces():
            for piece in split(data):
                yield piece
                await asyncio.sleep(0)
        if isinstance(split, _Gunzip) and not split.ended:
            raise InvalidResponseError("the compressed response is incomplete")

    async def read(self) -> bytearray:
        """Return a whole body, decompressed. Raises LimitError if it is too long or takes too long.

        Other errors are those of `decompressed`.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(API_PAGE_SECONDS) as limit:
                async for piece in self.decompressed():
                    body += piece
                    if max(len(body), self.received) > API_PAGE:
                        raise LimitError(f"the response is longer than {API_PAGE // MIB} MiB")
        except TimeoutError:
            if limit.expired():
                raise LimitError(f"the response takes longer than {API_PAGE_SECONDS:g} s") from None
            raise
        return body

    async def begin(self) -> bytes:
        """Return the begin of a body, decompressed, which is that of an error. It may be incomplete."""
        body = b""
        async with asyncio.timeout(API_PAGE_SECONDS):
            async for piece in self.decompressed():
                body += piece
                if len(body) >= API_ERROR:
                    break
        return body[:API_ERROR]


class HttpClient:
    """Sends requests over connections that `dial` opens. Use it in one event loop, until `close`."""

    def __init__(self, dial: Dial, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        """`headers` are part of each request."""
        self._dial = dial
        self._headers = headers
        self._unused: list[_Connection] = []

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._unused:
            self._unused.pop().close()

    @asynccontextmanager
    async def send(
        self, request: Request, pause: float | None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Response]:
        """Return the response to a request, whatever its status.

        `pause` limits the time in which the server sends nothing (s). Raises OSError: ConnectError,
        RequestError, and TimeoutError.
        """
        content = b"" if request.content is None else msgspec.json.encode(request.content)
        wanted = h11.Request(
            method=request.method,
            target=request.path,
            headers=[*self._all_headers(headers, content).items()],
        )
        async with asyncio.timeout(HEAD_SECONDS):  # also if informational responses never end
            connection, head = await self._exchange(wanted, content, pause)
        try:
            yield Response(head, connection, pause)
        finally:
            self._keep(connection)

    def _all_headers(self, headers: Mapping[str, str], content: bytes) -> dict[str, str]:
        about = {"Content-Type": "application/json", "Content-Length": str(len(content))} if content else {}
        return {**self._headers, **headers, **about}

    async def _exchange(
        self, request: h11.Request, content: bytes, pause: float | None
    ) -> tuple[_Connection, _Head]:
        """Send a request. The server may have closed an unused connection, so another one is tried then.

        A POST might be carried out twice by that, so it has its own connection.
        """
        while self._unused and request.method != b"POST":
            connection = self._unused.pop()
            if not await connection.is_silent():
                connection.close()
                continue
            with suppress(DisconnectedError, ConnectionError):
                return connection, await connection.exchange(request, content, pause)
        connection = _Connection(*await self._dial())
        return connection, await connection.exchange(request, content, pause)

    def _keep(self, connection: _Connection) -> None:
        """Use a connection again, if its response was read to the end."""
        if connection.begin_again():
            self._unused.append(connection)
            asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, connection, connection.requests)
        else:
            connection.close()

    def _expire(self, connection: _Connection, requests: int) -> None:
        """Close a connection that was not used meanwhile."""
        if connection in self._unused and connection.requests == requests:
            self._unused.remove(connection)
            connection.close()


class _Head(NamedTuple):
    """The head of a response."""

    status: int
    headers: dict[str, str]
    """With names in lower case."""


class _Connection:
    """A connection that carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests = 0
        """How many were sent."""
        self._reader, self._writer = reader, writer
        self._parser = _Parser()

    async def exchange(self, request: h11.Request, content: bytes, pause: float | None) -> _Head:
        """Send a request, and return the head of the response. If that fails, close the connection."""
        try:
            self._send(request, content)
            while not self._parser.head:
                await self._receive(pause)
        except BaseException:
            self.close()
            raise
        return self._parser.head

    async def piece(self, pause: float | None) -> bytes:
        """Return the next part of the body, without waiting for more than there is; b"" at its end."""
        while not (piece := self._parser.take()) and not self._parser.complete:
            await self._receive(pause)
        return piece

    def begin_again(self) -> bool:
        """Prepare the next request. Returns whether that is possible."""
        is_possible = self._parser.reusable and not self._reader.at_eof()
        self._parser.release()
        self._parser = _Parser()
        return is_possible

    async def is_silent(self) -> bool:
        """Return whether an unused connection is open, and nothing has arrived that was not requested.

        It would be taken for the response to the next request. An example is the body of a 204.
        """
        try:
            async with asyncio.timeout(0):
                await self._reader.read(1)
        except TimeoutError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close the connection immediately."""
        self._parser.release()
        self._writer.transport.abort()

    def _send(self, request: h11.Request, content: bytes) -> None:
        self.requests += 1
        events = [request, *([h11.Data(data=content)] if content else []), h11.EndOfMessage()]
        protocol = h11.Connection(h11.CLIENT)
        self._writer.write(b"".join(protocol.send(event) or b"" for event in events))

    async def _receive(self, pause: float | None) -> None:
        async with asyncio.timeout(pause):
            data = await self._reader.read(READ_BUFFER)
        if data:
            self._parser.feed(data)
        else:
            self._parser.end()


class _Parser:
    """Parses a response. httptools calls the methods whose names begin with `on_`."""

    def __init__(self) -> None:
        self.head: _Head | None = None
        self.complete = False
        self.reusable = False
        """Whether the connection can carry another request."""
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._without_body = self._size_of_headers = 0
        """The number of bytes since the last part of the body: of heads, chunk sizes and trailers. And the
        size of all headers."""
        self._error = ""
        self._parser: Any = httptools.HttpResponseParser(self)

    def release(self) -> None:
        """Break the cycle of references with httptools, so that both are freed without garbage collection.

        Nothing can be parsed afterwards.
        """
        self._parser = None

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises RequestError."""
        before = len(self._parts)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("it changes the protocol")
        except httptools.HttpParserError as error:
            self._fail(str(error))
        self._without_body = 0 if len(self._parts) > before else self._without_body + len(data)
        if max(self._without_body, self._size_of_headers) > RESPONSE_HEAD:
            self._fail(f"it has more than {RESPONSE_HEAD // KIB} KiB of headers")
        if not self._parts:
            self._raise()

    def end(self) -> None:
        """End the response, because the server has closed the connection. Raises RequestError."""
        if self.head is None:
            raise DisconnectedError("the server closed the connection without a response")
        if self.head.headers.keys() & {"content-length", "transfer-encoding"} and not self.complete:
            raise RequestError("the response is incomplete")
        self.complete = True

    def take(self) -> bytes:
        """Return the part of the body that has arrived since the last call. Raises RequestError."""
        if not self._parts:
            self._raise()
        taken, self._parts = b"".join(self._parts), []
        return taken

    def _fail(self, reason: str) -> None:
        """Record an error. What has arrived before it is returned first. After the response, it is none."""
        self.reusable = False
        if not self.complete:
            self._error = f"invalid response: {reason}"

    def _raise(self) -> None:
        if self._error:
            raise RequestError(self._error)

    def on_message_begin(self) -> None:
        """If there is a response already, these bytes were not requested."""
        self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers and what follows after the response do not matter."""
        self._size_of_headers += len(name) + len(value)
        if self.head is None:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.head is None and status // 100 != 1:
            self.head = _Head(status, self._headers)

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """An informational response (1xx) is followed by the response."""
        if self.head is None:
            self._headers = {}
        elif not self.complete:
            self.complete, self.reusable = True, self._parser.should_keep_alive()


def _splitter(encoding: str) -> _Gunzip | _Cut:
    if encoding.lower() == "gzip":
        return _Gunzip()
    if encoding.lower() == "identity":
        return _Cut()
    raise InvalidResponseError(f"the response has the encoding {encoding!r}, which was not requested")


class _Cut:
    """Cuts data into pieces."""

    def __call__(self, data: bytes) -> Iterator[bytes]:
        return (data[start : start + API_PIECE] for start in range(0, len(data), API_PIECE))


class _Gunzip:
    """Decompresses data into pieces."""

    def __init__(self) -> None:
        self.ended = False
        self._stream = zlib.decompressobj(GZIP)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.ended:
                raise InvalidResponseError("data follows after the end of the compressed response")
            try:
                piece = self._stream.decompress(data, API_PIECE)
            except zlib.error as error:
                raise InvalidResponseError(f"the compressed response is invalid: {error}") from None
            self.ended = self._stream.eof
            data = self._stream.unused_data if self.ended else self._stream.unconsumed_tail
            yield piece

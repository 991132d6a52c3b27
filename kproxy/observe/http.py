"""A small HTTP/1.1 server in the daemon's event loop, for health checks and metrics.

It serves a function from requests to responses. The clients are load balancers, kubelets and
Prometheus, but untrusted clients may reach the port, too. So the size and the time of a request are limited
(limits.py), and so are the connections (intake/clients.py). One request is served in each turn of the event
loop. h11 implements the protocol.

An address that cannot be bound causes a warning, and is tried again: another process may release the port, or
duplicate detection of an IPv6 address may still be running. kproxy continues meanwhile, because programming
services has priority over health checks.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias

import h11

from kproxy.intake.clients import Client, Clients
from kproxy.intake.turns import Turns
from kproxy.limits import (
    FIRST_REQUEST_SECONDS,
    IDLE_SECONDS,
    REQUEST_HEAD,
    REQUEST_PAUSE,
    REQUEST_SECONDS,
    RESPONSE_PIECE,
    RESPONSE_SECONDS,
)
from kproxy.settings.text import SocketAddress

RETRY_SECONDS = 5.0
BACKLOG = 128


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Without Content-Length and Connection, which the server adds."""
    body: bytes


class Request(NamedTuple):
    """An HTTP request without its body."""

    path: str
    """Without query."""
    method: str = "GET"
    host: str = ""
    """The header Host: the name or address that the client used, perhaps with a port; "" if absent."""
    address: str = ""
    """The address of this host to which the client connected."""


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]
"""Takes a request with the method GET or HEAD."""
Warn: TypeAlias = Callable[[str], None]
"""Takes a warning for the operator."""

NOT_FOUND = Response(404, (("Content-Type", "text/plain; charset=utf-8"),), b"not found\n")


def listening_socket(address: SocketAddress) -> socket.socket:
    """Return a non-blocking socket that listens on `address`. Raises OSError."""
    wildcard = ip_address(address.host).is_unspecified
    if wildcard and socket.has_ipv6:
        with suppress(OSError):  # the kernel has no IPv6
            return _listening(socket.AF_INET6, "::", address.port, v6_only=False)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return _listening(family, address.host, address.port, v6_only=True)


def _listening(family: socket.AddressFamily, host: str, port: int, v6_only: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class HttpServer:
    """Listens on one address from `open` to `close`. Use it in the thread of the running event loop."""

    def __init__(
        self,
        address: SocketAddress,
        origin: str,
        handler: Handler,
        warn: Warn,
        clients: Clients | None = None,
    ) -> None:
        """`origin` is where the address comes from, for messages. `clients` are those of all servers."""
        self.address = address
        """The address. When it listens, port 0 is replaced by the real port."""
        self._origin = origin
        self._handler = handler
        self._warn = warn
        self._task: asyncio.Task[None] | None = None
        self._clients = clients or Clients()
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Listen, immediately or as soon as the address can be bound. Does nothing if it is open already."""
        if self._task is None:
            bound = self._bind()
            self._task = asyncio.get_running_loop().create_task(self._serve(bound))
            if isinstance(bound, socket.socket):
                self._task.add_done_callback(lambda _: bound.close())  # also if the task never ran

    def close(self) -> None:
        """Stop listening, and end all connections."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._clients.disconnect(self._listener)

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._clients.of(self._listener))

    def _bind(self) -> socket.socket | OSError:
        try:
            listener = listening_socket(self.address)
        except OSError as error:
            return error
        self.address = SocketAddress(self.address.host, listener.getsockname()[1])
        self._listener = listener
        return listener

    async def _serve(self, bound: socket.socket | OSError) -> None:
        warned_of = ""
        while isinstance(bound, OSError):
            reason = bound.strerror or str(bound)
            if reason != warned_of:
                warned_of = reason
                where = f"{self.address} ({self._origin})"
                self._warn(f"cannot listen on {where}: {reason}; retrying every {RETRY_SECONDS:g} s")
            await asyncio.sleep(RETRY_SECONDS)
            bound = self._bind()
        if warned_of:
            self._warn(f"now listening on {self.address}")
        await self._clients.accept(bound, self._accepted, self._warn_of, REQUEST_HEAD)

    def _warn_of(self, problem: str) -> None:
        self._warn(f"{self.address}: {problem}")

    async def _accepted(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await _Connection(client, reader, writer, self._clients.turns, self._handler).run()
        except (OSError, h11.ProtocolError):  # an error of the client
            writer.transport.abort()
        except Exception as error:
            writer.transport.abort()
            self._warn(f"a request to {self.address} failed: {error!r}")


class _Connection:
    """One client's requests, one after the other."""

    def __init__(
        self,
        client: Client,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        turns: Turns,
        handler: Handler,
    ) -> None:
        self._client, self._reader, self._writer = client, reader, writer
        self._writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until everything was sent
        self._turns = turns
        self._handler = handler
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_HEAD)
        self._is_first = True

    async def run(self) -> None:
        """Serve requests until the client disconnects or sends an invalid one. Raises TimeoutError."""
        while True:
            try:
                request = await self._request()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                await self._answer(
                    Response(status, (), HTTPStatus(status).phrase.encode() + b"\n"), close=True
                )
                return
            if request is None:
                return
            # A body is not read. If there is one, the connection is closed after the response.
            complete = isinstance(self._protocol.next_event(), h11.EndOfMessage)
            response = await self._response(request)
            await self._answer(response, close=not complete, with_body=request.method != b"HEAD")
            self._client.active()
            self._is_first = False
            if self._protocol.our_state is h11.MUST_CLOSE:
                return
            self._protocol.start_next_cycle()
            await asyncio.sleep(REQUEST_PAUSE)

    async def _request(self) -> h11.Request | None:
        """Return the head of the next request; None if the client has closed the connection."""
        clock = asyncio.get_running_loop().time
        started = bool(self._protocol.trailing_data[0])
        idle = FIRST_REQUEST_SECONDS if self._is_first else IDLE_SECONDS
        deadline = clock() + (REQUEST_SECONDS if started else idle)
        while (event := await self._next_event()) is h11.NEED_DATA:
            async with asyncio.timeout_at(deadline):
                data = await self._reader.read(REQUEST_HEAD)
            if data and not started:
                started, deadline = True, clock() + REQUEST_SECONDS
            self._protocol.receive_data(data)
        return event if isinstance(event, h11.Request) else None

    async def _next_event(self) -> object:
        async with self._turns:
            return self._protocol.next_event()

    async def _response(self, request: h11.Request) -> Response:
        method, target = request.method.decode(), request.target.decode("latin-1")
        if method not in ("GET", "HEAD"):
            return Response(405, (("Allow", "GET, HEAD"),), b"")
        host = next((value for name, value in request.headers if name == b"host"), b"")
        address = self._writer.get_extra_info("sockname")[0]
        found = self._handler(Request(target.partition("?")[0], method, host.decode("latin-1"), address))
        return found if isinstance(found, Response) else await found

    async def _answer(self, response: Response, close: bool, with_body: bool = True) -> None:
        headers = [*response.headers, ("Content-Length", str(len(response.body)))]
        if close:
            headers.append(("Connection", "close"))
        reason, body = HTTPStatus(response.status).phrase, response.body if with_body else b""
        head = self._protocol.send(h11.Response(status_code=response.status, headers=headers, reason=reason))
        if with_body:
            self._protocol.send_with_data_passthrough(h11.Data(data=body))
        self._protocol.send(h11.EndOfMessage())
        async with asyncio.timeout(RESPONSE_SECONDS):
            await self._send((head or b"") + body[:RESPONSE_PIECE])
            for start in range(RESPONSE_PIECE, len(body), RESPONSE_PIECE):
                await self._send(memoryview(body)[start : start + RESPONSE_PIECE])

    async def _send(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        await self._writer.drain()

"""Serves DNS on addresses of this host, over UDP and TCP.

UDP is read in batches, without a transport of asyncio. A reply that the socket cannot take is lost, as on the
network: the client asks again.

Over TCP, a connection may send many queries (RFC 7766). It ends if it is idle, if a query takes too long to
arrive, or if the client does not read its replies. If there are too many connections, the one that has been
idle longest is closed.

The sockets bind to addresses that the host does not have yet (IP_FREEBIND), so the order does not matter. An
address that cannot be bound is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from contextlib import suppress

from kproxy.dns.resolver import Resolver
from kproxy.settings.text import SocketAddress

logger = logging.getLogger(__name__)
BATCH = 64
"""Datagrams that are answered before other work of the event loop."""
LONGEST_QUERY = 4096
"""A longer message is cut, and thus malformed. A query has at most some hundred bytes."""
RECEIVE_BUFFER = 1 << 20
"""Bytes that the kernel keeps while the event loop works on something else."""
CONNECTIONS = 256
"""The maximum number of TCP connections of all addresses."""
IDLE_SECONDS = 10.0
"""The maximum time between two queries of a connection, and for one query or reply to pass."""
SWEEP_SECONDS = 1.0
RETRY_SECONDS = 5.0
BACKLOG = 128
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h


class Server:
    """Listens on addresses from `open` to `close`. Use it in the thread of the running event loop."""

    def __init__(self, addresses: Iterable[SocketAddress], resolver: Resolver) -> None:
        self.resolver = resolver
        self.listening: list[SocketAddress] = []
        """The addresses that are served. A port 0 is replaced by the real port."""
        self._waiting = list(addresses)
        self._warned: set[str] = set()
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Connection, float] = {}
        """When each connection last made progress."""
        self._task: asyncio.Task[None] | None = None

    @property
    def failing(self) -> list[SocketAddress]:
        """The addresses that are not served yet."""
        return list(self._waiting)

    @property
    def connections(self) -> int:
        """The number of TCP connections."""
        return len(self._connections)

    async def open(self) -> None:
        """Serve each address, immediately or as soon as it can be bound."""
        await self._bind()
        self._task = asyncio.create_task(self._look_after())

    def close(self) -> None:
        """Stop serving, and end all connections."""
        if self._task is not None:
            self._task.cancel()
        for server in self._servers:
            server.close()
        for udp in self._sockets:
            asyncio.get_running_loop().remove_reader(udp)
            udp.close()
        for connection in tuple(self._connections):
            connection.abort()

    async def _bind(self) -> None:
        for address in tuple(self._waiting):
            try:
                bound = await self._serve(address)
            except OSError as error:
                reason = f"cannot serve DNS on {address}: {error.strerror or error}"
                if reason not in self._warned:
                    self._warned.add(reason)
                    logger.warning("%s; retrying every %g s", reason, RETRY_SECONDS)
                continue
            self._waiting.remove(address)
            self.listening.append(bound)
            logger.info("serving DNS on %s", bound)

    async def _serve(self, address: SocketAddress) -> SocketAddress:
        loop = asyncio.get_running_loop()
        udp = _bound(address, socket.SOCK_DGRAM)
        try:
            bound = SocketAddress(address.host, udp.getsockname()[1])
            listener = _bound(bound, socket.SOCK_STREAM)
        except OSError:
            udp.close()
            raise
        listener.listen(BACKLOG)
        self._servers.append(await loop.create_server(lambda: Connection(self), sock=listener))
        self._sockets.append(udp)
        loop.add_reader(udp, self._read, udp)
        return bound

    async def _look_after(self) -> None:
        """Bind what could not be bound, and close idle connections. Never returns."""
        loop = asyncio.get_running_loop()
        tried = loop.time()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            if self._waiting and now - tried >= RETRY_SECONDS:
                tried = now
                await self._bind()
            for connection, last in tuple(self._connections.items()):
                if now - last > IDLE_SECONDS:
                    connection.abort()

    def _read(self, udp: socket.socket) -> None:
        """Answer the datagrams that wait, up to a batch."""
        for _ in range(BATCH):
            try:
                data, client = udp.recvfrom(LONGEST_QUERY)
            except OSError:  # there is none left, or the kernel reports an error of an earlier reply
                return
            reply = self.resolver.answer(data, client[0], over_tcp=False)
            if reply is not None:
                with suppress(OSError):
                    udp.sendto(reply, client)

    # --- called by connections ---

    def connected(self, connection: Connection) -> None:
        """Record a connection, and close the one that has been idle longest if there are too many."""
        if len(self._connections) >= CONNECTIONS:
            min(self._connections, key=lambda each: self._connections[each]).abort()
        self.progressed(connection)

    def progressed(self, connection: Connection) -> None:
        """Record that a connection is in use."""
        self._connections[connection] = asyncio.get_running_loop().time()

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)


class Connection(asyncio.Protocol):
    """One client's queries over TCP. Each message follows its length in two bytes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = bytearray()
        self._host = ""
        self._transport: asyncio.Transport
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to receive."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, peer = transport, transport.get_extra_info("peername")
        self._host = peer[0] if peer else ""
        transport.set_write_buffer_limits(0)
        self._server.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._server.disconnected(self)

    def data_received(self, data: bytes) -> None:
        """Answer the queries that are complete."""
        self._received += data
        self._answer()

    def pause_writing(self) -> None:
        """Read no more queries before the client has received the replies."""
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._server.progressed(self)
        self._answer()
        if not self._paused:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close the connection without sending what waits."""
        self._server.disconnected(self)
        self._transport.abort()

    def _answer(self) -> None:
        while not self._paused and len(self._received) >= 2:
            length = int.from_bytes(self._received[:2], "big")
            if length > LONGEST_QUERY:
                self.abort()
                return
            if len(self._received) < 2 + length:
                return
            message = bytes(self._received[2 : 2 + length])
            del self._received[: 2 + length]
            reply = self._server.resolver.answer(message, self._host, over_tcp=True)
            if reply is None:
                self.abort()
                return
            self._server.progressed(self)
            self._transport.write(len(reply).to_bytes(2, "big") + reply)


def _bound(address: SocketAddress, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket, bound to an address that the host need not have. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family is socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            found.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        else:
            found.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if kind is socket.SOCK_DGRAM:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        else:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address.host, address.port))
    except OSError:
        found.close()
        raise
    return found

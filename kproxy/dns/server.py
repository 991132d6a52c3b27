"""Serves DNS on addresses of this host, over UDP and TCP.

UDP is read in batches, without a transport of asyncio. A reply that the socket cannot take is lost, as on the
network: the client asks again.

Over TCP, a connection may send many queries (RFC 7766). It ends if it is idle, if a query takes too long to
arrive, or if the client does not read its replies. intake/clients.py limits the number of connections.

The sockets bind to addresses that the host does not have yet (IP_FREEBIND), so the order does not matter. An
address that cannot be bound is tried again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

from kproxy.dns.resolver import Resolver
from kproxy.intake.clients import Client, Clients
from kproxy.kernel.netlink.core.constants import SO_RCVBUFFORCE
from kproxy.limits import DNS_BATCH, DNS_IDLE_SECONDS, DNS_QUERY, DNS_RECEIVE_BUFFER
from kproxy.settings.text import SocketAddress

logger = logging.getLogger(__name__)
RETRY_SECONDS = 5.0
BACKLOG = 128
PORT_TRIES = 10
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h


class Server:
    """Listens on addresses from `open` to `close`. Use it in the thread of the running event loop."""

    def __init__(
        self, addresses: Iterable[SocketAddress], resolver: Resolver, clients: Clients | None = None
    ) -> None:
        """`clients` are those of all servers together."""
        self.resolver = resolver
        self.listening: list[SocketAddress] = []
        """The addresses that are served. A port 0 is replaced by the real port."""
        self.failing: dict[SocketAddress, str] = {}
        """The addresses that are not served, and why."""
        self._waiting = list(addresses)
        self._clients = clients or Clients()
        self._udp: list[socket.socket] = []
        self._tcp: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._pending: set[asyncio.Task[None]] = set()
        """Replies over UDP that wait for an upstream server."""

    @property
    def connections(self) -> int:
        """The number of TCP connections."""
        return sum(len(self._clients.of(listener)) for listener in self._tcp)

    def warnings(self) -> list[str]:
        """Return a sentence for each address that is not served."""
        return [f"DNS on {address}: {reason}" for address, reason in self.failing.items()]

    def open(self) -> None:
        """Serve each address, immediately or as soon as it can be bound."""
        self._bind()
        self._tasks.append(asyncio.get_running_loop().create_task(self._bind_again()))

    def close(self) -> None:
        """Stop serving, and end all connections."""
        for udp in self._udp:
            asyncio.get_running_loop().remove_reader(udp)
            udp.close()
        for task in (*self._tasks, *self._pending):
            task.cancel()
        for listener in self._tcp:
            self._clients.disconnect(listener)
            listener.close()

    async def _bind_again(self) -> None:
        while self._waiting:
            await asyncio.sleep(RETRY_SECONDS)
            self._bind()

    def _bind(self) -> None:
        for address in tuple(self._waiting):
            try:
                bound = self._serve(address)
            except OSError as error:
                reason = error.strerror or str(error)
                if self.failing.get(address) != reason:
                    logger.warning(
                        "cannot serve DNS on %s: %s; retrying every %g s", address, reason, RETRY_SECONDS
                    )
                self.failing[address] = reason
                continue
            self.failing.pop(address, None)
            self._waiting.remove(address)
            self.listening.append(bound)
            logger.info("serving DNS on %s", bound)

    def _serve(self, address: SocketAddress) -> SocketAddress:
        loop = asyncio.get_running_loop()
        listener, udp = _both(address)
        bound = SocketAddress(address.host, listener.getsockname()[1])
        listener.listen(BACKLOG)
        self._udp.append(udp)
        self._tcp.append(listener)
        accepting = self._clients.accept(listener, self._converse, logger.warning, DNS_QUERY)
        self._tasks.append(loop.create_task(accepting))
        loop.add_reader(udp, self._read, udp)
        return bound

    def _read(self, udp: socket.socket) -> None:
        """Answer the datagrams that wait, up to a batch."""
        for _ in range(DNS_BATCH):
            try:
                data, client = udp.recvfrom(DNS_QUERY)
            except OSError:  # there is none left, or the kernel reports an error of an earlier reply
                return
            reply = self.resolver.answer(data, client[0], over_tcp=False)
            if isinstance(reply, bytes):
                _send(udp, reply, client)
            elif reply is not None:
                self._later(udp, reply, client)

    def _later(self, udp: socket.socket, reply: Awaitable[bytes], client: object) -> None:
        """Send a reply as soon as it is known."""

        async def send() -> None:
            _send(udp, await reply, client)

        task = asyncio.get_running_loop().create_task(send())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _converse(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the queries of a connection, each behind its length in two bytes."""
        writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until everything was sent
        while (query := await _query(reader)) is not None:
            async with self._clients.turns:
                reply = self.resolver.answer(query, str(client.address), over_tcp=True)
            if reply is None:
                return
            reply = reply if isinstance(reply, bytes) else await reply
            writer.write(len(reply).to_bytes(2, "big") + reply)
            async with asyncio.timeout(DNS_IDLE_SECONDS):
                await writer.drain()
            client.active()


def _send(udp: socket.socket, reply: bytes, client: Any) -> None:
    with suppress(OSError):  # also if the socket was closed meanwhile
        udp.sendto(reply, client)


async def _query(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next message; None at the end, or if it is too long. Raises TimeoutError."""
    try:
        async with asyncio.timeout(DNS_IDLE_SECONDS):
            length = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(length) if length <= DNS_QUERY else None
    except asyncio.IncompleteReadError:
        return None


def _both(address: SocketAddress) -> tuple[socket.socket, socket.socket]:
    """Return the sockets for TCP and UDP. For port 0, choose a port that is free for both."""
    for left in reversed(range(PORT_TRIES)):
        listener = _bound(address, socket.SOCK_STREAM)
        try:
            return listener, _bound(SocketAddress(address.host, listener.getsockname()[1]), socket.SOCK_DGRAM)
        except OSError as error:
            listener.close()
            if address.port or error.errno != errno.EADDRINUSE or not left:
                raise
    raise AssertionError


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
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DNS_RECEIVE_BUFFER)
            with suppress(PermissionError):  # only CAP_NET_ADMIN may exceed net.core.rmem_max
                found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, DNS_RECEIVE_BUFFER)
        else:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address.host, address.port))
    except OSError:
        found.close()
        raise
    return found

"""The clients of all listeners, within one budget of connections.

Anyone who reaches a port can open connections. Each needs a file descriptor, and the kernel's sockets and
files need some, too. So the connections of all listeners together have a limit, and so have those of one.

At the limit, a new client is accepted and another one is disconnected: the one that has been idle longest of
the address with the most connections. So a kubelet or a load balancer, which has few connections and sends
its request immediately, is served while another address holds as many connections as it can.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from kproxy.intake.turns import Turns
from kproxy.limits import CONNECTIONS, CONNECTIONS_OF_LISTENER, MAX_FILES, SHARE_OF_FILES
from kproxy.problems import SHORTAGES

WAIT = 1.0
"""Seconds until the next attempt after `accept` failed."""
WARN_AGAIN = 60.0
"""The minimum number of seconds between two warnings about a listener."""


def raise_file_limit() -> int:
    """Raise the limit of open files as far as this process may. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def within_files(wanted: int, share: float) -> int:
    """Return `wanted`, or as many as are this share of the files that the process may open; at least 1."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, int(soft * share)))


class Client:
    """One connection of a listener."""

    def __init__(self, listener: object, address: object) -> None:
        self.listener, self.address = listener, address
        self.is_served = False
        self.active()

    def active(self) -> None:
        """Record that the client was served just now, so that others are idle longer."""
        self.last = asyncio.get_running_loop().time()


Serve = Callable[[Client, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Clients:
    """All clients, and their turns. Use it in the thread of the running event loop."""

    def __init__(self, files: int = MAX_FILES) -> None:
        """`files` is the limit of open files of this process."""
        self.turns = Turns()
        self.listeners = int(files * SHARE_OF_FILES)
        """The maximum number of listeners."""
        self._limit = min(CONNECTIONS, int(files * SHARE_OF_FILES))
        self._clients: dict[Client, asyncio.Task[None]] = {}

    def of(self, listener: object) -> list[Client]:
        """Return the clients of a listener."""
        return [client for client in self._clients if client.listener is listener]

    def disconnect(self, listener: object) -> None:
        """Disconnect all clients of a listener."""
        for client in self.of(listener):
            self._disconnect(client)

    async def accept(
        self, listener: socket.socket, serve: Serve, warn: Callable[[str], None], buffer: int = 1 << 16
    ) -> None:
        """Serve the clients of a listening socket until cancelled. Closes the socket.

        `serve` may be cancelled at any time, and its errors of type OSError are ignored. `buffer` is the
        number of bytes to read from a client in advance.
        """
        loop = asyncio.get_running_loop()
        quiet_until = 0.0
        with listener:
            while True:
                try:
                    connection, address = await loop.sock_accept(listener)
                except OSError as error:
                    if error.errno in SHORTAGES and loop.time() >= quiet_until:
                        quiet_until = loop.time() + WARN_AGAIN
                        warn(f"cannot accept connections: {error.strerror}; retrying every {WAIT:g} s")
                    await asyncio.sleep(WAIT if error.errno in SHORTAGES else 0)
                    continue
                async with self.turns:
                    self._admit(listener, connection, address, serve, buffer)

    def _admit(
        self, listener: socket.socket, connection: socket.socket, address: Any, serve: Serve, buffer: int
    ) -> None:
        if len(same := self.of(listener)) >= CONNECTIONS_OF_LISTENER:
            self._disconnect(_most_dispensable(same))
        elif len(self._clients) >= self._limit:
            self._disconnect(_most_dispensable(self._clients))
        client = Client(listener, address[0] if isinstance(address, tuple) else address)
        task = asyncio.get_running_loop().create_task(_serve(client, connection, serve, buffer))
        self._clients[client] = task
        task.add_done_callback(lambda _: self._left(client, connection))

    def _left(self, client: Client, connection: socket.socket) -> None:
        self._clients.pop(client, None)
        if not client.is_served:  # the task never ran
            connection.close()

    def _disconnect(self, client: Client) -> None:
        self._clients.pop(client).cancel()


def _most_dispensable(clients: Iterable[Client]) -> Client:
    """Return the client that has been idle longest of the address with the most connections."""
    count = Counter(client.address for client in clients)
    return min(clients, key=lambda client: (-count[client.address], client.last))


async def _serve(client: Client, connection: socket.socket, serve: Serve, buffer: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(buffer)
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
    except OSError:
        return
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    client.is_served = True
    try:
        await serve(client, reader, writer)
    except (OSError, asyncio.CancelledError):  # an error of the client, or it must leave
        transport.abort()
    finally:
        writer.close()

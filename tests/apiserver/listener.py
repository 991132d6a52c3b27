"""The listener: a thread with an event loop, a port that stays the same, and the connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from tests.apiserver.certificates import Authority
from tests.apiserver.http import Connection, Handle, serve
from tests.loop_thread import LoopThread
from tests.ports import number_of

Result = TypeVar("Result")
Bind = Callable[[str, int], socket.socket]
"""Returns a socket that is bound to a host and a port, as `kept` does."""
BACKLOG = 128


def server_context(authority: Authority, host: str) -> ssl.SSLContext:
    """Return a context with a new certificate for `host`. It trusts client certificates of the authority."""
    pair = authority.server(host, "localhost", "kubernetes.default.svc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


class Port:
    """Accepts connections in the running event loop. While it is closed, its number is kept."""

    def __init__(self, host: str, number: int, bind: Bind, accept: Callable[[socket.socket], None]) -> None:
        self.host, self.number = host, number
        self._bind, self._accept = bind, accept
        self._kept: socket.socket | None = None
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Accept connections. `number` is known afterwards."""
        if self._kept is None:
            self._kept = self._bind(self.host, self.number)
            self.number = number_of(self._kept)
        if self._socket is None:
            self._socket = self._bind(self.host, self.number)
            self._socket.setblocking(False)
            self._socket.listen(BACKLOG)
            self._accepting = asyncio.create_task(self._accept_all(self._socket))

    async def close(self) -> None:
        """Refuse new connections."""
        if self._socket and self._accepting:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
            self._socket.close()
            self._socket = None

    def release(self) -> None:
        """Keep the number no longer. The port is closed."""
        if self._kept:
            self._kept.close()
            self._kept = None

    async def _accept_all(self, listener: socket.socket) -> None:
        # Not asyncio.start_server: a connection that it accepts while it closes stays open without an answer.
        loop = asyncio.get_running_loop()
        while True:
            self._accept((await loop.sock_accept(listener))[0])


class Listener:
    """Passes the requests of all connections to `handle`. Its methods must be called from other threads."""

    def __init__(
        self, host: str, port: int, bind: Bind, context: ssl.SSLContext | None, handle: Handle
    ) -> None:
        self._port = Port(host, port, bind, self._accept)
        self._context, self._handle = context, handle
        self._thread = LoopThread("apiserver")
        self._accepted = 0
        self._connections: dict[asyncio.Task[None], Connection | None] = {}
        """None: before the end of the TLS handshake."""

    @property
    def port(self) -> int:
        return self._port.number

    def start(self) -> None:
        """Start to listen; `port` is known afterwards."""
        self._thread.start()
        self.resume()

    def close(self) -> None:
        """End all connections and the thread."""
        if self._thread.running:
            self.stop(reset=True)
        self._thread.end()
        self._port.release()

    def stop(self, *, reset: bool) -> None:
        """Refuse new connections, and end the existing ones."""
        self._thread.call(self._stop(reset))

    def refuse(self) -> None:
        """Refuse new connections."""
        self._thread.call(self._port.close())

    def resume(self) -> None:
        """Listen again, on the same port."""
        self._thread.call(self._port.open())

    async def _stop(self, reset: bool) -> None:
        await self._port.close()
        connections = list(self._connections.items())
        for task, connection in connections:
            if reset and connection:
                connection.reset()
            task.cancel()
        await asyncio.gather(*(task for task, _ in connections), return_exceptions=True)

    def _accept(self, raw: socket.socket) -> None:
        # As Go does; without it, a page takes 40 ms more.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted += 1
        task = self._thread.loop.create_task(self._connection(raw, self._accepted))
        self._connections[task] = None
        task.add_done_callback(self._connections.pop)

    async def _connection(self, raw: socket.socket, number: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, raw, ssl=self._context)
        except OSError:  # includes ssl.SSLError
            raw.close()
            return
        connection = Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop), number)
        task = asyncio.current_task()
        assert task
        self._connections[task] = connection
        await serve(connection, self._handle)

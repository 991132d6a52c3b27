"""A connection of a probe. What the server sends costs bytes and CPU time, and both are limited.

The server chooses what it sends, so it could occupy the event loop. Therefore a connection reads small
pieces, and each piece is decrypted and parsed in a turn (intake/turns.py). TLS is computed here, not by
asyncio, so that handshakes and records without content count, too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from kproxy.intake.names import Names
from kproxy.intake.turns import Turns
from kproxy.limits import KIB, PROBE_BYTES, PROBE_CHUNK, PROBE_CPU

Result = TypeVar("Result")


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


TLS = _unverified()


class ProbeLimitError(OSError):
    """The server exceeded a limit."""


class Allowance:
    """What one probe may receive and compute, over all its connections."""

    def __init__(self, turns: Turns) -> None:
        self.received = 0
        """Bytes."""
        self.cpu = 0.0
        """Seconds of CPU time."""
        self._turns = turns

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and count the CPU time of the block, which must not wait.

        Raises ProbeLimitError.
        """
        async with self._turns:
            with self._counted():
                yield
        if self.cpu > PROBE_CPU:
            raise ProbeLimitError(f"reading the response takes more than {PROBE_CPU * 1000:g} ms of CPU time")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        begun = time.thread_time()
        try:
            yield
        finally:
            self.cpu += time.thread_time() - begun

    def receive(self, count: int) -> None:
        """Count received bytes. Raises ProbeLimitError."""
        self.received += count
        if self.received > PROBE_BYTES:
            raise ProbeLimitError(f"the response is longer than {PROBE_BYTES // KIB} KiB")


class Wire:
    """A TCP connection."""

    def __init__(self, connected: socket.socket, allowance: Allowance) -> None:
        self._socket = connected
        self._allowance = allowance
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """Return the next bytes; b"" at the end. Raises ProbeLimitError."""
        data = await self._loop.sock_recv(self._socket, PROBE_CHUNK)
        self._allowance.receive(len(data))
        return data


class TlsWire(Wire):
    """A TLS connection, which must be opened with `handshake`."""

    def __init__(self, connected: socket.socket, allowance: Allowance, host: str) -> None:
        super().__init__(connected, allowance)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = TLS.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def handshake(self) -> None:
        """Open the connection. Raises ssl.SSLError."""
        await self._complete(self._tls.do_handshake)

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._complete(lambda: self._tls.write(data))

    async def receive(self) -> bytes:
        """Return the next bytes; b"" at the end, also if the server ends the connection without notice."""
        try:
            return await self._complete(lambda: self._tls.read(PROBE_CHUNK))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _complete(self, operation: Callable[[], Result]) -> Result:
        """Carry out an operation of TLS, and exchange what it needs with the server."""
        while True:
            done: list[Result] = []
            async with self._allowance.turn():
                try:
                    done.append(operation())
                except ssl.SSLWantReadError:
                    pass
                finally:
                    outgoing = self._outgoing.read()
            if outgoing:
                await super().send(outgoing)
            if done:
                return done[0]
            if data := await super().receive():
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


@asynccontextmanager
async def connected(names: Names, host: str, port: int) -> AsyncIterator[socket.socket]:
    """Yield a socket that is connected to a host, and close it. Raises OSError and ValueError."""
    opened = await _connect(names, host, port)
    try:
        yield opened
    finally:
        opened.close()


async def _connect(names: Names, host: str, port: int) -> socket.socket:
    refused = OSError("the name has no address")
    for family, address in await names.addresses(host, port):
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(made, address)
        except OSError as error:
            made.close()
            refused = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise refused


@asynccontextmanager
async def wire(names: Names, host: str, port: int, secure: bool, allowance: Allowance) -> AsyncIterator[Wire]:
    """Yield a connection to a host, in TLS if `secure`. Raises OSError, also of TLS, and ValueError."""
    async with connected(names, host, port) as opened:
        if not secure:
            yield Wire(opened, allowance)
            return
        encrypted = TlsWire(opened, allowance, host)
        await encrypted.handshake()
        yield encrypted

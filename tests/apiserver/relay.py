"""A TCP relay to a server, which causes network faults.

A relay does not interpret the bytes. It does to the connections what hosts, firewalls and cables do: refuse,
reset, close, hold, cut off and slow down.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from tests.apiserver.listener import Bind, Port
from tests.loop_thread import LoopThread
from tests.ports import kept

NO_LINGER = struct.pack("ii", 1, 0)
"""The linger option with a time of 0: closing the socket sends a RST."""


class Fate(NamedTuple):
    """The fault of a connection."""

    remaining: int | None = None
    """The number of bytes from the server before the connection is reset."""
    piece: int = 1 << 16
    """The size of a piece from the server, in bytes."""
    pause: float = 0.0
    """The pause after each piece, in seconds."""


class Link:
    """One connection: two sockets, and the task that copies bytes between them."""

    def __init__(self, near: socket.socket, fate: Fate) -> None:
        self.near, self.fate = near, fate
        self.ends = [near]
        self.passing = asyncio.Event()
        self.passing.set()

    def reset(self) -> None:
        """Make the end of this connection a RST."""
        for end in self.ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)

    async def carry(self, host: str, port: int) -> None:
        """Copy bytes until one side ends. Then end both."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            far = socket.socket(family, kind, protocol)
            self.ends.append(far)
            far.setblocking(False)
            await loop.sock_connect(far, address)
            for end in self.ends:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [
                asyncio.create_task(self._pump(self.near, far, Fate())),
                asyncio.create_task(self._pump(far, self.near, self.fate)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:  # no server
            self.reset()
        finally:
            for end in self.ends:
                end.close()

    async def _pump(self, source: socket.socket, sink: socket.socket, fate: Fate) -> None:
        loop = asyncio.get_running_loop()
        remaining = fate.remaining
        try:
            while data := await loop.sock_recv(source, fate.piece):
                await self.passing.wait()
                await loop.sock_sendall(sink, data[:remaining])
                if remaining is not None:
                    remaining -= len(data)
                    if remaining <= 0:
                        self.reset()
                        return
                if fate.pause:
                    await asyncio.sleep(fate.pause)
        except OSError:
            self.reset()


class Relay:
    """A relay from 127.0.0.1:`port`, which `bind` binds, to `host:port`. A context manager.

    All methods must be called from other threads than the relay's.
    """

    def __init__(self, host: str, port: int, bind: Bind = kept) -> None:
        self._to = (host, port)
        self._port = Port("127.0.0.1", 0, bind, self._accept)
        self._thread = LoopThread("relay")
        self._links: dict[asyncio.Task[None], Link] = {}
        self._fates: deque[Fate] = deque()

    def __enter__(self) -> Relay:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.end()
        self._port.release()

    @property
    def port(self) -> int:
        """The number of the port, which stays the same."""
        return self._port.number

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._links)

    def open(self) -> None:
        """Accept connections, on the same port as before."""
        self._call(self._port.open)

    def close(self) -> None:
        """Refuse new connections, and reset the existing ones."""
        self.refuse()
        self.cut()

    def refuse(self) -> None:
        """Refuse new connections. The existing ones stay."""
        self._call(self._port.close)

    def cut(self) -> None:
        """Reset all connections."""
        self._call(self._end, True)

    def hang_up(self) -> None:
        """Close all connections, as if the server had closed them."""
        self._call(self._end, False)

    def hold(self) -> None:
        """Deliver nothing more on the existing connections. They stay open."""
        self._call(self._pass, False)

    def release(self) -> None:
        """End `hold`, and deliver the held bytes."""
        self._call(self._pass, True)

    def next(self, fate: Fate, times: int = 1) -> None:
        """Set the fault of the next connections."""
        self._call(self._fates.extend, [fate] * times)

    def tear(self, after: int, times: int) -> None:
        """Reset all connections, and the next `times` ones after `after` bytes from the server."""
        self.next(Fate(remaining=after), times)
        self.cut()

    def slow(self, times: int) -> None:
        """Reset all connections, and deliver the bytes of the next `times` ones in small pieces."""
        self.next(Fate(piece=7, pause=0.001), times)
        self.cut()

    # In the relay's thread

    def _call(self, work: Callable[..., object], *arguments: object) -> None:
        async def called() -> None:
            done = work(*arguments)
            if asyncio.iscoroutine(done):
                await done

        self._thread.call(called())

    async def _end(self, reset: bool) -> None:
        tasks = list(self._links.items())
        for task, link in tasks:
            if reset:
                link.reset()
            task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)

    def _pass(self, passing: bool) -> None:
        for link in self._links.values():
            if passing:
                link.passing.set()
            else:
                link.passing.clear()

    def _accept(self, near: socket.socket) -> None:
        link = Link(near, self._fates.popleft() if self._fates else Fate())
        task = self._thread.loop.create_task(link.carry(*self._to))
        self._links[task] = link
        task.add_done_callback(self._links.pop)

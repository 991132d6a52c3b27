"""A TCP relay that counts what passes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import NamedTuple

from tests.loop_thread import LoopThread

PIECE = 1 << 18
QUIET = 2.0
"""A client that has received nothing for so many seconds has received everything."""


class Count(NamedTuple):
    """What passed."""

    sent: int
    """Bytes from clients to the server."""
    received: int
    connections: int

    def since(self, before: Count) -> Count:
        """Return what passed after another count."""
        return Count(*(now - then for now, then in zip(self, before, strict=True)))


class Relay:
    """A relay to 127.0.0.1:`port`, as a context manager, in the caller's network namespace."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._count = Count(0, 0, 0)
        self._thread = LoopThread("relay")

    def __enter__(self) -> Relay:
        self._thread.start()
        self._thread.call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.end()

    def count(self) -> Count:
        """Return what has passed so far."""
        return self._count

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count = self._count._replace(connections=self._count.connections + 1)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(
            self._pump(reader, far_writer, "sent"), self._pump(far_reader, writer, "received")
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                self._count = self._count._replace(**{way: getattr(self._count, way) + len(data)})
                writer.write(data)
                await writer.drain()
        writer.close()


def settled(relay: Relay) -> Count:
    """Wait until nothing passes any more."""
    while True:
        before = relay.count()
        time.sleep(QUIET)
        if relay.count() == before != Count(0, 0, 0):
            return before

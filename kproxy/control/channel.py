"""The control socket: a Unix socket over which a running kproxy sends snapshots to commands.

A client sends the line `all` and gets one snapshot, or `about WORD...` and gets the part that concerns these
names and addresses. A client that watches then sends the line `next`. It gets another snapshot as soon as the
state has a different revision than in the last one; and so on. So a watcher sets its
own pace and does not poll. If several changes happen between two snapshots, it sees only the result. The
server stops when the client ends its side of the connection.

The socket is in the state directory, and only its owner can use it. `client.py` is the other end.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from kproxy.control.client import ABOUT, ALL, NEXT, SOCKET
from kproxy.intake.clients import Client, Clients
from kproxy.intake.descriptors import ShortPath
from kproxy.limits import SNAPSHOT_SECONDS
from kproxy.problems import StateError
from kproxy.show.snapshot import Snapshot, encode, snapshot_about

logger = logging.getLogger(__name__)
BACKLOG = 128
CHUNK = 256 * 1024


class Revision:
    """The number of changes of the state so far. Watchers wait for the next change."""

    def __init__(self) -> None:
        self.number = 0
        self.waiting = 0
        """The number of waiting watchers."""
        self._changed = asyncio.Event()

    def set(self, number: int) -> None:
        """Set the present revision, and wake the watchers if it is a new one."""
        if number != self.number:
            self.number = number
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait_for_other(self, number: int) -> None:
        """Wait until the revision is not `number`."""
        self.waiting += 1
        try:
            while self.number == number:
                await self._changed.wait()
        finally:
            self.waiting -= 1


def _is_in_use(path: Path) -> bool:
    """Whether a process listens on the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def _listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`. It replaces one that a process left behind."""
    if _is_in_use(path):
        raise OSError(errno.EADDRINUSE, "in use by another `kproxy run`")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    os.fchmod(listener.fileno(), 0o600)  # before `bind`, which creates the file with this mode
    listener.bind(str(path))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


class _Server:
    """Sends snapshots to clients."""

    def __init__(
        self, snapshot: Callable[[], Awaitable[Snapshot]], revision: Revision, timeout: float
    ) -> None:
        self._snapshot = snapshot
        self._revision = revision
        self._timeout = timeout
        self._sending = 0
        self._encoded: tuple[Snapshot, bytes] | None = None

    async def answer(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one client. Raises OSError if it is disconnected, or too slow (TimeoutError)."""
        async with asyncio.timeout(self._timeout):
            request = await _line(reader)
        while request == ALL or request.startswith(ABOUT):
            sent = self._revision.number
            await self._send(writer, _words(request))
            client.active()
            if not await self._wait_for_next(reader, sent):
                break
        async with asyncio.timeout(self._timeout):
            writer.close()
            await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter, words: frozenset[str] | None) -> None:
        self._sending += 1
        try:
            async with asyncio.timeout(self._timeout):
                message = memoryview(await self._message(words))
                for start in range(0, len(message), CHUNK):
                    writer.write(message[start : start + CHUNK])
                    await writer.drain()
        finally:
            self._sending -= 1
            if not self._sending:
                self._encoded = None  # frees the memory, because no other client needs this snapshot now

    async def _message(self, words: frozenset[str] | None) -> bytes:
        snapshot = await self._snapshot()
        if words is not None:
            return encode(snapshot_about(snapshot, words))
        if self._encoded is None or self._encoded[0] is not snapshot:
            self._encoded = snapshot, encode(snapshot)
        return self._encoded[1]

    async def _wait_for_next(self, reader: asyncio.StreamReader, sent: int) -> bool:
        """Wait for the line `next`, then for another revision. Returns False if the client ends first."""
        if await _line(reader) != NEXT:
            return False
        changed = asyncio.create_task(self._revision.wait_for_other(sent))
        ended = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((changed, ended), return_when=asyncio.FIRST_COMPLETED)
            return not ended.done()
        finally:
            changed.cancel()
            ended.cancel()
            await asyncio.gather(changed, ended, return_exceptions=True)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return a line; b"" at the end, or if the line is too long."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


def _words(line: bytes) -> frozenset[str] | None:
    """Return the words of a request for a part of the snapshot; None for all of it."""
    if not line.startswith(ABOUT):
        return None
    return frozenset(line.decode(errors="replace").split()[1:])


class Channel:
    """The socket in a state directory, and the clients that it got."""

    def __init__(self, directory: Path, server: _Server, clients: Clients) -> None:
        self._directory = directory
        self._server = server
        self._clients = clients
        self._place: ShortPath | None = None
        self._inode = 0
        self._accepting: asyncio.Task[None] | None = None
        self._listeners: list[socket.socket] = []
        """All so far, which may have clients."""

    def open(self) -> None:
        """Create the socket, and accept clients. Raises StateError and HostError."""
        with ExitStack() as opened:
            try:
                place = ShortPath(self._directory / SOCKET)
                listener = _listen(opened.enter_context(place))
            except OSError as error:
                raise _state_error(self._directory, error) from None
            self._place, self._inode = place, place.path.stat().st_ino
            opened.pop_all()
        self._accepting = asyncio.create_task(
            self._clients.accept(listener, self._server.answer, logger.warning)
        )
        self._listeners.append(listener)

    async def renew(self) -> None:
        """Create the socket again if another program removed it. Raises StateError.

        Clients that are connected stay.
        """
        if _inode(self._directory / SOCKET) == self._inode:
            return
        if self._place:
            logger.warning("%s was removed: kproxy creates it again", self._directory / SOCKET)
            await self._stop()
        self.open()

    async def close(self) -> None:
        """Disconnect all clients, and remove the socket."""
        for listener in self._listeners:
            self._clients.disconnect(listener)
        await self._stop()

    async def _stop(self) -> None:
        """Accept no further clients."""
        place, self._place = self._place, None
        if place is None or self._accepting is None:
            return
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listeners[-1].close()  # also if the task never ran
        with place as path:
            if _inode(path) == self._inode:
                path.unlink(missing_ok=True)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@asynccontextmanager
async def serve(
    directory: Path,
    snapshot: Callable[[], Awaitable[Snapshot]],
    revision: Revision | None = None,
    timeout: float = SNAPSHOT_SECONDS,
    clients: Clients | None = None,
) -> AsyncIterator[Channel]:
    """Serve clients in `directory`, which must exist, until the block ends. Raises StateError.

    `snapshot` is awaited in the event loop, once for each client. A snapshot object that several clients get
    at the same time is encoded once. Clients that do not read are disconnected after `timeout` seconds.
    Without a `revision`, watchers see no change. `clients` are those of all listeners of the process.
    """
    server = _Server(snapshot, revision or Revision(), timeout)
    channel = Channel(directory, server, clients or Clients())
    channel.open()
    try:
        yield channel
    finally:
        await channel.close()


def _state_error(directory: Path, error: OSError) -> StateError:
    return StateError(f"{directory / SOCKET}: {error.strerror}.", "--state-dir selects another directory.")

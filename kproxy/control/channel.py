"""The control socket: a Unix socket over which a running kproxy sends snapshots to commands.

A client sends the line `all` and gets one snapshot, or `about WORD...` and gets the part that concerns these
names and addresses. A client that watches then sends the line `next`. It gets another snapshot as soon as the
state has a different revision than in the last one; and so on. So a watcher sets its
own pace and does not poll. If several changes happen between two snapshots, it sees only the result. The
server stops when the client ends its side of the connection.

The socket is in the state directory, and only its owner can use it. Linux limits the path of a socket to 107
bytes. So that the directory may have a longer path, a descriptor stands for it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from select import select
from typing import BinaryIO

from kproxy.intake.clients import Client, Clients
from kproxy.intake.reading import read_up_to
from kproxy.limits import SNAPSHOT_SECONDS
from kproxy.problems import ForbiddenError, KproxyError, StateError
from kproxy.show.snapshot import Snapshot, decode, encode, snapshot_about

SOCKET = "kproxy.sock"
logger = logging.getLogger(__name__)
BACKLOG = 128
CHUNK = 256 * 1024
ALL, ABOUT, NEXT = b"all\n", b"about ", b"next\n"
MIN_PAUSE = 1.0
"""The minimum number of seconds between two snapshots of a watcher."""
PAUSE_FACTOR = 5
"""A watcher pauses at least this many times as long as a snapshot took, so large ones are sent less often."""


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


class _SocketPath:
    """A short path of the socket, which is valid while this object is open."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.path = Path(f"/proc/self/fd/{self._descriptor}/{SOCKET}")

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


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
        self._place: _SocketPath | None = None
        self._inode = 0
        self._accepting: asyncio.Task[None] | None = None
        self._listeners: list[socket.socket] = []
        """All so far, which may have clients."""

    def open(self) -> None:
        """Create the socket, and accept clients. Raises StateError."""
        with ExitStack() as opened:
            try:
                place = _SocketPath(self._directory)
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


def fetch(
    directory: Path, timeout: float = SNAPSHOT_SECONDS, about: Collection[str] | None = None
) -> Snapshot:
    """Return the snapshot of the kproxy that runs with this state directory. Raises KproxyError.

    With `about`, return only what concerns these names of objects, and addresses.
    """
    request = ALL if about is None else ABOUT + " ".join(sorted(about)).encode() + b"\n"
    with _connected(directory, timeout) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            message = file.read()
    return decode(message)


def watch(directory: Path, timeout: float = SNAPSHOT_SECONDS, pause: float = MIN_PAUSE) -> Iterator[Snapshot]:
    """Return a snapshot, and then another one after each change, at least `pause` seconds after the last one.

    Raises KproxyError as `fetch` does, and when kproxy ends.
    """
    with _connected(directory, timeout) as connection, connection.makefile("rb") as file:
        begun = time.monotonic()
        connection.sendall(ALL)
        message = _message(file)
        while True:
            yield decode(message)
            time.sleep(max(pause, PAUSE_FACTOR * (time.monotonic() - begun)))
            _request_next(connection)
            begun = time.monotonic()
            if not (message := _message(file)):
                raise KproxyError("kproxy run has ended.")


def _request_next(connection: socket.socket) -> None:
    """Request the next snapshot, and wait until it arrives or the server ends."""
    with suppress(BrokenPipeError):
        connection.sendall(NEXT)
    select([connection], [], [])


def _message(file: BinaryIO) -> bytes:
    """Read a message, whose first line contains the number of bytes that follow. b"" at the end."""
    line = file.readline()
    words = line.split()
    length = int(words[-1]) if words and words[-1].isdigit() and len(words[-1]) < 20 else 0
    return line + read_up_to(file, length)


@contextmanager
def _connected(directory: Path, timeout: float) -> Iterator[socket.socket]:
    """Return a connection to the socket. Errors of the connection are raised as KproxyError."""
    path = directory / SOCKET
    try:
        with _SocketPath(directory) as short, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(short))
            yield connection
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise KproxyError(
            f"cannot connect to a running kproxy at {path}.",
            "Give manifests with -f, or the --state-dir of the running kproxy.",
        ) from None
    except PermissionError:
        raise ForbiddenError(f"{path}: Permission denied.", "Run the command with sudo.") from None
    except OSError as error:
        raise KproxyError(f"{path}: {error.strerror or error}.", "See the log of kproxy run.") from None

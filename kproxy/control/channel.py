"""The way from a running kproxy to the commands that show what it knows: a Unix socket.

A client that connects is sent one snapshot. A client that watches then sends the line `next`, and is sent
another snapshot as soon as the state has another revision than the last one that it was sent; and so on. So a
watcher sets its own pace and does not poll. Of several changes between two snapshots it sees the result. A
client that ends its side of the connection is sent nothing more.

The socket is in the state directory, for its owner only. Linux lets a socket's path have 107 bytes; the
directory is therefore named by a descriptor, whatever its path.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from select import select
from typing import BinaryIO

from kproxy.problems import KproxyError, StateError
from kproxy.show.snapshot import Snapshot, decode, encode

SOCKET = "kproxy.sock"
PATIENCE = 30.0
"""Seconds in which a client has to take a snapshot, and for which it waits for a part of one."""
CHUNK = 256 * 1024
NEXT = b"next\n"
PAUSE = 1.0
"""Seconds between two snapshots of a watcher, at least."""
SHARE = 5
"""A watcher waits so many times as long as a snapshot took: a large state is asked for less often."""


class Revision:
    """The number of changes of the state so far; watchers wait for the next one."""

    def __init__(self) -> None:
        self.number = 0
        self.waiting = 0
        """How many wait."""
        self._changed = asyncio.Event()

    def set(self, number: int) -> None:
        """The state has this revision now."""
        if number != self.number:
            self.number = number
            self._changed.set()
            self._changed = asyncio.Event()

    async def leaves(self, number: int) -> None:
        """Wait until it is another one."""
        self.waiting += 1
        try:
            while self.number == number:
                await self._changed.wait()
        finally:
            self.waiting -= 1


class _Place:
    """The socket's file, by a short path while this is open."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.path = Path(f"/proc/self/fd/{self._descriptor}/{SOCKET}")

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def _listen(path: Path) -> socket.socket:
    """A socket there, in place of one that nobody listens at any more."""
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "another kproxy run answers there")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    os.fchmod(listener.fileno(), 0o600)  # bind gives the file this mode: nobody gets in before
    listener.bind(str(path))
    return listener


class _Server:
    """Sends what `snapshot` returns to each client."""

    def __init__(
        self, snapshot: Callable[[], Awaitable[Snapshot]], revision: Revision, patience: float
    ) -> None:
        self._snapshot = snapshot
        self._revision = revision
        self._patience = patience
        self._clients: set[asyncio.Task[None] | None] = set()
        self._sending = 0
        self._made: tuple[Snapshot, bytes] | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client; nothing that it does or fails to do affects the others."""
        self._clients.add(task := asyncio.current_task())
        try:
            while True:
                sent = self._revision.number
                await self._send(writer)
                if not await self._wants_another(reader, sent):
                    break
            async with asyncio.timeout(self._patience):
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.CancelledError):  # gone, too slow (TimeoutError is one), or the end
            pass
        finally:
            writer.transport.abort()
            self._clients.discard(task)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        self._sending += 1
        try:
            async with asyncio.timeout(self._patience):
                message = memoryview(await self._message())
                for start in range(0, len(message), CHUNK):
                    writer.write(message[start : start + CHUNK])
                    await writer.drain()
        finally:
            self._sending -= 1
            if not self._sending:
                self._made = None  # no other client is sent it: let go of the memory

    async def _message(self) -> bytes:
        now = await self._snapshot()
        if self._made is None or self._made[0] is not now:
            self._made = now, encode(now)
        return self._made[1]

    async def _wants_another(self, reader: asyncio.StreamReader, sent: int) -> bool:
        """Wait for the client to ask, and for another revision; False if the client ends first."""
        try:
            if await reader.readline() != NEXT:
                return False
        except ValueError:  # a line without end
            return False
        changed = asyncio.create_task(self._revision.leaves(sent))
        ended = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((changed, ended), return_when=asyncio.FIRST_COMPLETED)
            return not ended.done()
        finally:
            changed.cancel()
            ended.cancel()
            await asyncio.gather(changed, ended, return_exceptions=True)

    def drop_all(self) -> None:
        """Let no client wait any longer, nor one that comes yet."""
        self._patience = 0.0
        for task in filter(None, self._clients):
            task.cancel()


@asynccontextmanager
async def serve(
    directory: Path,
    snapshot: Callable[[], Awaitable[Snapshot]],
    revision: Revision | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[None]:
    """Answer in `directory`, which exists, until the block ends; StateError if that cannot be.

    `snapshot` is awaited in the event loop, once for each client; while clients wait for the same
    object, it is encoded once. Those that do not read are dropped after `patience` seconds. Without a
    `revision`, watchers see no change.
    """
    try:
        place = _Place(directory)
    except OSError as error:
        raise _no_server(directory, error) from None
    with place as path:
        try:
            listener = _listen(path)
        except OSError as error:
            raise _no_server(directory, error) from None
        own = path.stat().st_ino
        clients = _Server(snapshot, revision or Revision(), patience)
        server = await asyncio.start_unix_server(clients.answer, sock=listener)
        try:
            yield
        finally:
            server.close()
            clients.drop_all()
            await server.wait_closed()
            if path.exists() and path.stat().st_ino == own:
                path.unlink(missing_ok=True)


def _no_server(directory: Path, error: OSError) -> StateError:
    return StateError(f"{directory / SOCKET}: {error.strerror}", "See --state-dir.")


def fetch(directory: Path, patience: float = PATIENCE) -> Snapshot:
    """The snapshot of the kproxy that runs with this state directory; a KproxyError that says why not."""
    with _connected(directory, patience) as connection:
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            message = file.read()
    return decode(message)


def watch(directory: Path, patience: float = PATIENCE, pause: float = PAUSE) -> Iterator[Snapshot]:
    """The snapshot, and then another one after each change. KproxyError as `fetch`, or when kproxy ends.

    `pause`: seconds from one to the next, at least.
    """
    with _connected(directory, patience) as connection, connection.makefile("rb") as file:
        begun = time.monotonic()
        message = _message(file)
        while True:
            yield decode(message)
            time.sleep(max(pause, SHARE * (time.monotonic() - begun)))
            _ask_again(connection)
            begun = time.monotonic()
            if not (message := _message(file)):
                raise KproxyError("kproxy run has ended.")


def _ask_again(connection: socket.socket) -> None:
    """Return when there is an answer, or the other side has ended."""
    with suppress(BrokenPipeError):
        connection.sendall(NEXT)
    select([connection], [], [])


def _message(file: BinaryIO) -> bytes:
    """One message: its first line says how many bytes follow. b"" at the end."""
    line = file.readline()
    words = line.split()
    length = int(words[-1]) if words and words[-1].isdigit() else 0
    return line + file.read(length)


@contextmanager
def _connected(directory: Path, patience: float) -> Iterator[socket.socket]:
    """A connection to the socket; whatever fails on it is a KproxyError."""
    path = directory / SOCKET
    try:
        with _Place(directory) as short, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(short))
            yield connection
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise KproxyError(
            f"no -f given, and no kproxy run answers at {path}.",
            "Name manifests with -f, or the --state-dir of the kproxy that runs.",
        ) from None
    except PermissionError:
        raise KproxyError(f"{path} is not for this user.", "Run it with sudo.") from None
    except OSError as error:
        raise KproxyError(f"{path}: {error.strerror or error}.", "See what kproxy run logs.") from None

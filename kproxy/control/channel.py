"""The way from a running kproxy to the commands that show what it knows: a Unix socket.

Who connects is sent one snapshot, and the connection is closed. The socket is in the state
directory, for its owner only. Linux lets a socket's path have 107 bytes; the directory is
therefore named by a descriptor, whatever its path.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from kproxy.problems import KproxyError, StateError
from kproxy.show.snapshot import Snapshot, decode, encode

SOCKET = "kproxy.sock"
PATIENCE = 30.0
"""Seconds in which a client has to take everything, and for which it waits for something."""
CHUNK = 256 * 1024


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

    def __init__(self, snapshot: Callable[[], Awaitable[Snapshot]], patience: float) -> None:
        self._snapshot = snapshot
        self._patience = patience
        self._clients: set[asyncio.Task[None] | None] = set()
        self._made: tuple[Snapshot, bytes] | None = None

    async def _message(self) -> bytes:
        now = await self._snapshot()
        if self._made is None or self._made[0] is not now:
            self._made = now, encode(now)
        return self._made[1]

    async def answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client; nothing that it does or does not do harms anybody else."""
        self._clients.add(task := asyncio.current_task())
        try:
            async with asyncio.timeout(self._patience):
                message = memoryview(await self._message())
                for start in range(0, len(message), CHUNK):
                    writer.write(message[start : start + CHUNK])
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.CancelledError):  # gone, too slow (TimeoutError is one), or the end
            pass
        finally:
            writer.transport.abort()
            self._clients.discard(task)
            if not self._clients:
                self._made = None  # nobody shares it: let go of the memory

    def drop_all(self) -> None:
        """Let no client wait any longer, nor one that comes yet."""
        self._patience = 0.0
        for task in filter(None, self._clients):
            task.cancel()


@asynccontextmanager
async def serve(
    directory: Path, snapshot: Callable[[], Awaitable[Snapshot]], patience: float = PATIENCE
) -> AsyncIterator[None]:
    """Answer in `directory`, which exists, until the block ends; StateError if that cannot be.

    `snapshot` is awaited in the event loop, once for each client; while clients wait for the same
    object, it is encoded once. Those that do not read are dropped after `patience` seconds.
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
        clients = _Server(snapshot, patience)
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
    path = directory / SOCKET
    try:
        with _Place(directory) as short, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(short))
            with connection.makefile("rb") as file:
                message = file.read()
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise KproxyError(
            f"no -f given, and no kproxy run answers at {path}.",
            "Name manifests with -f, or the --state-dir of the kproxy that runs.",
        ) from None
    except PermissionError:
        raise KproxyError(f"{path} is not for this user.", "Run it with sudo.") from None
    except OSError as error:
        raise KproxyError(f"{path}: {error.strerror or error}.", "See what kproxy run logs.") from None
    return decode(message)

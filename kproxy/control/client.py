"""Asks a running kproxy for its snapshot, over the control socket (`channel.py`).

It does not import asyncio, which would take a fifth of the time of such a command.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import BinaryIO

from kproxy.intake.descriptors import ShortPath
from kproxy.intake.reading import read_up_to
from kproxy.limits import SNAPSHOT_SECONDS
from kproxy.problems import ForbiddenError, KproxyError
from kproxy.show.snapshot import Snapshot, decode

SOCKET = "kproxy.sock"
ALL, ABOUT, NEXT = b"all\n", b"about ", b"next\n"
MIN_PAUSE = 1.0
"""The minimum number of seconds between two snapshots of a watcher."""
PAUSE_FACTOR = 5
"""A watcher pauses at least this many times as long as a snapshot took, so large ones are sent less often."""


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
        with ShortPath(directory / SOCKET) as short, socket.socket(socket.AF_UNIX) as connection:
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

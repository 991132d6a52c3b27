"""The lock of a state directory, which only one process at a time may use.

It is a lock of the kernel (flock), so it ends with its process. The content of the file only
names the holder: verb and process id. A process that finds the lock held waits for a verb that
ends by itself, but not for `kproxy run`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kproxy.problems import StateError

FILE = "lock"
DAEMON = "run"
"""The verb that holds the lock until it is stopped."""
RETRY_INTERVAL = 0.05
"""Seconds between two attempts to get a lock that another process holds."""
WRITABLE = "kproxy needs read and write access to it. --state-dir selects another directory."


def state_error(path: Path, message: str, remedy: str = WRITABLE) -> StateError:
    """Return an error that names the file, the error and the remedy."""
    return StateError(f"{path}: {message}.", f"{remedy} The rules in the kernel are unchanged.")


@contextmanager
def hold(directory: Path, verb: str) -> Iterator[None]:
    """Hold the lock of a state directory, which is created if it does not exist.

    Raises StateError immediately if `kproxy run` holds the lock, or if the file cannot be locked.
    """
    path = directory / FILE
    file = _acquire(path)
    try:
        _sign(file, f"{verb} {os.getpid()}\n")
        yield
        _sign(file, "")
    finally:
        os.close(file)


def _acquire(path: Path) -> int:
    """Return a descriptor that holds the lock of the file that exists at `path` now."""
    seen = ""
    while True:
        file = _open(path)
        if _try_lock(file) and path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            return file
        holder = os.pread(file, 64, 0).decode("ascii", "replace").strip()
        os.close(file)
        verb, _, process = holder.partition(" ")
        # Two attempts must find the same holder: until the next holder signs, the file may still contain
        # the name of a daemon that was killed.
        if verb == DAEMON and holder == seen:
            message = f"in use by `kproxy {DAEMON}` (process {process})"
            raise state_error(path, message, "Stop that process first.")
        seen = holder
        time.sleep(RETRY_INTERVAL)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise state_error(path, error.strerror or str(error)) from None


def _sign(file: int, holder: str) -> None:
    """Write the holder's name. Errors are ignored: on a full disk, a verb may have nothing else to write."""
    with suppress(OSError):
        os.pwrite(file, holder.encode(), 0)
        os.ftruncate(file, len(holder))

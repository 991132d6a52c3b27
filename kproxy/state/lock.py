"""One process at a time works on a state directory; the lock file says which.

The lock is the kernel's (flock), so it ends with its process. What is written in the
file only names the holder, for people and for who finds it held: a verb that ends by
itself is waited for, `kproxy run` is not.
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
"""The verb that holds it for as long as it lives."""
LOOK_EVERY = 0.05
"""Seconds between two looks at a lock that another process holds."""
WRITABLE = "kproxy has to be able to read and write there, or --state-dir has to name another place."


def state_error(path: Path, message: str, remedy: str = WRITABLE) -> StateError:
    """What is wrong with which file, and what to do about it."""
    return StateError(f"{path}: {message}.", f"{remedy} The running dataplane was left as it is.")


@contextmanager
def hold(directory: Path, verb: str) -> Iterator[None]:
    """Hold the lock of a state directory, which is made if there is none.

    StateError at once where a daemon holds it, or where there can be no lock.
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
    """The descriptor that holds the lock of the file that is at `path` now."""
    seen = ""
    while True:
        file = _open(path)
        if _take(file) and path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            return file
        holder = os.pread(file, 64, 0).decode("ascii", "replace").strip()
        os.close(file)
        verb, _, process = holder.partition(" ")
        # Two looks have to agree: a daemon that was killed left its name to the next holder.
        if verb == DAEMON and holder == seen:
            message = f"`kproxy {DAEMON}`, process {process}, works on this state"
            raise state_error(path, message, "Stop that one first.")
        seen = holder
        time.sleep(LOOK_EVERY)


def _take(file: int) -> bool:
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
    """Name the holder, in place. No error if it cannot: a full disk need not stop who writes nothing else."""
    with suppress(OSError):
        os.pwrite(file, holder.encode(), 0)
        os.ftruncate(file, len(holder))

"""The kernel's calls that Python does not have, and the thread that makes those which move their caller.

Entering a namespace is for threads that end there: ``in_a_thread`` runs a call
in a fresh one, so the caller's own thread stays where it is and nothing has to
lead it back, whatever is raised.

Python has ``os.setns`` and ``os.unshare`` from 3.12 only, hence ctypes.
"""

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x200, 0x20000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{function}: {os.strerror(errno)}")


def unshare(kind: int) -> None:
    """Give the calling thread something of its own."""
    _call("unshare", kind)


def setns(path: Path, kind: int) -> None:
    """Move the calling thread into the namespace that is mounted at ``path``, for good."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", fd, kind)
    finally:
        os.close(fd)


def mount(source: str, target: Path, flags: int, kind: str = "none", options: str = "") -> None:
    """As mount(2)."""
    _call("mount", source.encode(), bytes(target), kind.encode(), ctypes.c_ulong(flags), options.encode())


def unmount(target: Path) -> None:
    """Take a mount away, with all that is mounted on it; if there is none, nothing happens."""
    with suppress(OSError):
        _call("umount2", bytes(target), MNT_DETACH)


def make_mount_point(directory: Path, propagation: int) -> None:
    """Make a directory, and a mount point of it; what is mounted in it spreads as ``propagation`` says."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(directory):
        try:
            mount("", directory, propagation)
        except OSError:  # no mount point yet
            mount(str(directory), directory, MS_BIND | MS_REC)
            mount("", directory, propagation)


def in_a_thread(call: Callable[[], Result]) -> Result:
    """What ``call`` returns or raises, run by a thread of its own."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        return future.result()
    finally:
        thread.join(1)  # an interrupt lets short work finish, and leaves a long call behind


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's advisory lock."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

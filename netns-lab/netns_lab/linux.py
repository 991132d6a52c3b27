"""Calls of the kernel that Python lacks, and a thread for calls that change their thread's namespace.

A thread that enters a namespace must end there. ``in_a_thread`` runs a call in a
new thread, so the caller's thread does not change, even after an exception.

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
    """Give the calling thread a new namespace (or file system context) of this kind."""
    _call("unshare", kind)


def setns(path: Path, kind: int) -> None:
    """Move the calling thread permanently into the namespace that is mounted at ``path``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", fd, kind)
    finally:
        os.close(fd)


def mount(source: str, target: Path, flags: int, kind: str = "none", options: str = "") -> None:
    """Call mount(2)."""
    _call("mount", source.encode(), bytes(target), kind.encode(), ctypes.c_ulong(flags), options.encode())


def unmount(target: Path) -> None:
    """Unmount a mount point and all mounts below it. Does nothing if there is none."""
    with suppress(OSError):
        _call("umount2", bytes(target), MNT_DETACH)


def make_mount_point(directory: Path, propagation: int) -> None:
    """Create a directory and make it a mount point. ``propagation`` applies to mounts in it."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(directory):
        try:
            mount("", directory, propagation)
        except OSError:  # not a mount point yet
            mount(str(directory), directory, MS_BIND | MS_REC)
            mount("", directory, propagation)


def in_a_thread(call: Callable[[], Result]) -> Result:
    """Run ``call`` in a new thread. Returns or raises what ``call`` does."""
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
        thread.join(1)  # after an interrupt, wait for short calls but not for long ones


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's advisory lock."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

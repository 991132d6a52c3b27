"""One network namespace: make it, enter it, find its processes, remove it.

A namespace is a name in /run/netns, as ``ip netns`` has it. Entering is for
threads that end there: ``inside`` runs a call in a fresh thread, so the
caller's own thread never leaves its namespace and nothing has to lead it
back, whatever is raised. Sockets, subprocesses and writes to /proc/sys/net
made by that thread belong to the namespace.

Python has ``os.setns`` from 3.12 only, hence ctypes.
"""

import ctypes
import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

RUN = Path("/run/netns")

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 0x100000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{function}: {os.strerror(errno)}")


def _mount(source: bytes, target: bytes, flags: int) -> None:
    _call("mount", source, target, b"none", ctypes.c_ulong(flags), None)


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good."""
    fd = os.open(RUN / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", fd, CLONE_NEWNET)
    finally:
        os.close(fd)


def inside(name: str, call: Callable[[], Result]) -> Result:
    """What ``call`` returns or raises, run by a thread of its own in the namespace."""

    def there() -> Result:
        enter(name)
        return call()

    return _in_a_thread(there)


def _in_a_thread(call: Callable[[], Result]) -> Result:
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


def create(name: str) -> None:
    """Make a namespace with its loopback down; FileExistsError if there is one of that name."""
    _share_run_directory()
    path = RUN / name
    path.touch(mode=0o444, exist_ok=False)

    def unshare() -> None:
        _call("unshare", CLONE_NEWNET)
        _mount(b"/proc/thread-self/ns/net", bytes(path), MS_BIND)

    try:
        _in_a_thread(unshare)
    except BaseException:
        remove(name)
        raise


def _share_run_directory() -> None:
    """Make /run/netns a shared mount point, as ``ip netns add`` does, so that mounts reach all namespaces."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    with locked(RUN):
        try:
            _mount(b"", bytes(RUN), MS_SHARED | MS_REC)
        except OSError:  # no mount point yet
            _mount(bytes(RUN), bytes(RUN), MS_BIND | MS_REC)
            _mount(b"", bytes(RUN), MS_SHARED | MS_REC)


def remove(name: str) -> None:
    """Take the name away, if it is there; the kernel frees the namespace when nothing is in it any more."""
    with suppress(OSError):  # not mounted: made halfway, or removed by another
        _call("umount2", bytes(RUN / name), MNT_DETACH)
    (RUN / name).unlink(missing_ok=True)


def kill_processes(names: list[str]) -> None:
    """End every process that is in one of the namespaces, except this one, and wait until it has."""
    inodes = set()
    for name in names:
        with suppress(FileNotFoundError):
            inodes.add(_identity(RUN / name))
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _identity(directory / "ns/net") in inodes and int(directory.name) != os.getpid():
                kill(int(directory.name))


def kill(pid: int) -> None:
    """SIGKILL a process and wait for its end, at most a second."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            poll = select.poll()
            poll.register(process, select.POLLIN)
            poll.poll(1000)
        finally:
            os.close(process)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's advisory lock."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

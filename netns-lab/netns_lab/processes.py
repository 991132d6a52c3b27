"""Kills processes: one, or all in some namespaces."""

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def kill_inside(namespaces: Iterable[Path]) -> None:
    """Kill all processes in these namespaces, except this one, and wait for their end."""
    wanted = set()
    for path in namespaces:
        with suppress(FileNotFoundError):
            wanted.add(_identity(path))
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = {_identity(directory / "ns/net"), _identity(directory / "ns/mnt")}
            if mine & wanted and int(directory.name) != os.getpid():
                kill(int(directory.name))


def kill(pid: int) -> None:
    """Send SIGKILL to a process and wait for its end, for at most ten seconds."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            poll = select.poll()
            poll.register(process, select.POLLIN)
            poll.poll(10_000)
        finally:
            os.close(process)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino

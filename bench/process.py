"""Processes and the namespaces that they run in."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

CLONE_NEWNET = 0x40000000
LAUNCH = Path(__file__).with_name("launch.py")

_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


class Failed(Exception):
    """A command that is measured did not succeed."""


class Run(NamedTuple):
    """What a process took."""

    seconds: float
    peak: int
    """Bytes of memory that were resident at most."""


def in_fresh_namespace(call: Callable[[], Result]) -> Result:
    """What `call` returns, run in a network namespace that ends with it.

    A thread of its own enters it, so the caller's stays where it is. Processes that `call` starts
    are in it, too.
    """

    def there() -> Result:
        if _libc.unshare(CLONE_NEWNET):
            errno = ctypes.get_errno()
            raise OSError(errno, f"unshare: {os.strerror(errno)}")
        return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(there).result()


def run(*command: str) -> Run:
    """Run a command to its end; Failed if its exit status is not 0."""
    seconds, peak, status = output(sys.executable, "-I", "-S", str(LAUNCH), *command).split()
    if status != "0":
        raise Failed(f"{' '.join(command)}: exit status {status}")
    return Run(float(seconds), 1024 * int(peak))


def output(*command: str) -> str:
    """What a command prints; Failed, with what it says on standard error, if its exit status is not 0."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done.stdout

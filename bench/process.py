"""Processes that benchmarks measure, their CPU time and memory, and how a benchmark waits and ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LAUNCH = Path(__file__).with_name("launch.py")
CPU_CLOCK = 2  # CPUCLOCK_SCHED of linux/posix-timers.h: the clock of a process is ~pid << 3 | 2
UTIME = 11
"""The position of utime in /proc/PID/stat, after the name of the command (proc(5))."""
STIME, CHILDREN = 1, slice(2, 4)
"""The positions in `ticks_of`."""


class Failed(Exception):
    """A measured command failed."""


class Run(NamedTuple):
    """The duration, CPU time and memory of a process, in seconds and bytes."""

    seconds: float
    cpu: float
    """With that of the child processes for which it waited."""
    kernel: float
    """The part of `cpu` that the kernel used for it."""
    peak: int
    """Peak resident memory."""


@contextmanager
def exits_with_status() -> Iterator[None]:
    """Turn Failed into an exit with its message, and Ctrl-C into exit status 130."""
    try:
        yield
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(*command: str, cwd: Path | None = None) -> Run:
    """Run a command until it ends. Raises Failed if its exit status is not 0."""
    launched = output(sys.executable, "-I", "-S", str(LAUNCH), *command, cwd=cwd)
    seconds, cpu, kernel, peak, status = launched.split()
    if status != "0":
        raise Failed(f"{' '.join(command)}: exit status {status}")
    return Run(float(seconds), float(cpu), float(kernel), 1024 * int(peak))


def output(*command: str, cwd: Path | None = None) -> str:
    """Return the output of a command. Raises Failed with its standard error if its exit status is not 0."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=cwd
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def until(
    holds: Callable[[], bool],
    explain: Callable[[], str],
    patience: float,
    pause: float = 0.002,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Wait until a condition is true. Returns the time (time.monotonic).

    Raises Failed with what `explain` returns if the condition is false after `patience` seconds. `check`
    raises Failed if there is nothing to wait for.
    """
    end = time.monotonic() + patience
    while not holds():
        check()
        if time.monotonic() > end:
            raise Failed(explain())
        time.sleep(pause)
    return time.monotonic()


def cpu_of(process: int) -> float:
    """Return the CPU time of all threads of another process in seconds."""
    return time.clock_gettime((~process << 3) | CPU_CLOCK)


def ticks_of(process: int) -> list[float]:
    """Return the times in /proc/PID/stat of another process in seconds: utime, stime, cutime, cstime."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[UTIME : UTIME + 4]]


def memory_of(process: int | str = "self") -> int:
    """Return the resident memory of a process in bytes."""
    return _memory(process, "VmRSS")


def peak_of(process: int | str = "self") -> int:
    """Return the peak resident memory of a process in bytes."""
    return _memory(process, "VmHWM")


def _memory(process: int | str, field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return 1024 * int(found[1]) if found else 0

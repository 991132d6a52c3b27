"""Processes that benchmarks measure, and how a benchmark ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LAUNCH = Path(__file__).with_name("launch.py")


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

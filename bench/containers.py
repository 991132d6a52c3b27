"""`python -m bench.containers`: `kproxy run` with the containers of a double of docker.

It measures the time from the start of the process until the kernel leads to each container, the time from the
engine's event of a new container until the kernel leads to it, what such a change costs, and the peak memory.
Everything is in a new network namespace. The double answers in this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import NamedTuple

from netns_lab.netns import in_fresh_namespace
from rich.console import Console
from rich.table import Table

from bench.arguments import Arguments
from bench.probes.whole import SERVICES, endpoints, services
from bench.process import cpu_of, exits_with_status, peak_of, until
from kproxy.kernel.netlink.socket import Netlink
from tests.engine import Engine

COUNTS = (0, 200, 2000)
CHANGES = 20
FIRST = IPv4Address("10.88.0.10")
PATIENCE = 120.0


class Figures(NamedTuple):
    """Durations are in seconds."""

    containers: int
    start: float
    delay: float
    """The median from the event until the kernel has the change, which is read with a resolution of 10 ms."""
    processor: float
    """CPU time of kproxy for each change."""
    peak: int
    """In bytes."""


def put(engine: Engine, index: int) -> None:
    """Create a container of one of the Services."""
    engine.put(f"web-{index}", str(FIRST + index), app=f"app-{index % SERVICES}")


def measure(count: int) -> Figures:
    """Measure once, in the present network namespace."""
    with Engine() as engine, tempfile.TemporaryDirectory() as text, Netlink() as netlink:
        folder = Path(text)
        (folder / "all.json").write_text(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": services(8080)})
        )
        for index in range(count):
            put(engine, index)
        command = [sys.executable, "-m", "kproxy", "run", "-f", str(folder / "all.json"), "--no-dns"]
        command += ["--state-dir", str(folder / "state"), "--node-ip", "192.0.2.1"]
        command += ["--pods-from", f"docker={engine.socket}"]
        begin = time.monotonic()
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            wait(lambda: "kproxy is ready" in (folder / "log").read_text())
            start = wait(lambda: len(endpoints(netlink)) == count) - begin
            before = cpu_of(process.pid)
            delays = [change(engine, netlink, count + index) for index in range(CHANGES)]
            used = cpu_of(process.pid) - before
            return Figures(count, start, median(delays), used / CHANGES, peak_of(process.pid))
        finally:
            process.terminate()
            process.wait()


def change(engine: Engine, netlink: Netlink, index: int) -> float:
    """Start one more container. Returns the time from the event until the kernel leads to it."""
    put(engine, index)
    address = (FIRST + index).packed
    begin = time.monotonic()
    engine.tell("start", f"web-{index}")
    return wait(lambda: address in endpoints(netlink)) - begin


def wait(condition: Callable[[], bool]) -> float:
    """Wait until a condition is true, and return the time."""
    return until(condition, lambda: "the containers are not endpoints in time", PATIENCE)


def report(results: list[Figures]) -> Table:
    """Return a readable table."""
    table = Table(title="kproxy run --pods-from docker")
    for column in ("containers", "start", "a new one", "CPU of it", "peak memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in results:
        table.add_row(
            f"{each.containers:,}",
            f"{each.start:.2f} s",
            f"{1000 * each.delay:.0f} ms",
            f"{1000 * each.processor:.0f} ms",
            f"{each.peak / 1e6:.0f} MB",
        )
    return table


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.containers", __doc__)
    parser.numbers("--containers", COUNTS)
    arguments = parser.parsed_by_root()
    with exits_with_status():
        results = [in_fresh_namespace(partial(measure, count)) for count in arguments.containers]
    Console(width=100).print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

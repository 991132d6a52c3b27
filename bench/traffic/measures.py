"""The measurements of a route. Each removes what it leaves in the kernel."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

from bench.process import Failed
from bench.samples import TARGET_PORT
from bench.traffic.packets import syns
from bench.traffic.setups import Route, Setup
from kproxy.kernel import conntrack
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family

FIRST_PACKETS, BATCH = 10_000, 100
"""The packets of a measurement, and of a timed batch, which is shorter than the scheduler's time slices."""
SECONDS = 0.5
"""The duration of a measurement of connections and of a stream."""
CHUNK = 1 << 20
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, so that ports are not used up."""


def seconds_to_send(prepared: Sequence[tuple[bytes, tuple[str, int]]]) -> float:
    """Send (packet, destination) each, in the present namespace. Returns the median seconds for a packet."""
    taken = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for start in range(0, len(prepared), BATCH):
            begin = time.perf_counter()
            for packet, destination in prepared[start : start + BATCH]:
                sender.sendto(packet, destination)
            taken.append(time.perf_counter() - begin)
    return median(taken) / BATCH


def first_packets(route: Route, places: Sequence[tuple[str, int]]) -> float:
    """Return the seconds from a SYN to a closed port until the reset arrives.

    On a veth, the sender's CPU carries a packet through all namespaces and hooks, and the answer back, before
    the system call returns. So this is the work of the kernel, and one or two microseconds of Python.
    """
    setup = route.setup
    prepared = [
        (packet, (address, 0)) for packet, address in syns(setup.client.address(4), places, FIRST_PACKETS)
    ]
    before = sum(_resets(route))

    try:
        seconds = setup.client.inside(partial(seconds_to_send, prepared))
        answered = sum(_resets(route)) - before
        if answered != FIRST_PACKETS:
            raise Failed(f"{route.name}: of {FIRST_PACKETS} first packets {answered} were answered")
        return seconds
    finally:
        _forget(route)


def connections(route: Route) -> float:
    """Return sequential connections of one client per second, computed from the median duration."""

    def connect() -> float:
        taken, end, places = [], time.perf_counter() + SECONDS, cycle(route.one)
        begin = 0.0
        while begin < end:
            begin = time.perf_counter()
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect(next(places))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            taken.append(time.perf_counter() - begin)
        return 1 / median(taken)

    try:
        return route.setup.client.inside(connect)
    finally:
        _forget(route)


def stream(route: Route) -> float:
    """Return the bytes per second of one connection. The kernel sends a file in memory and discards it."""

    def send() -> float:
        file = os.memfd_create("bench")
        try:
            os.truncate(file, CHUNK)
            sent, begin = 0, time.perf_counter()
            with socket.create_connection(route.one[0]) as client:
                while time.perf_counter() < begin + SECONDS:
                    sent += os.sendfile(client.fileno(), file, 0, CHUNK)
                return sent / (time.perf_counter() - begin)
        finally:
            os.close(file)

    try:
        return route.setup.client.inside(send)
    finally:
        _forget(route)


@contextmanager
def sinks(setups: Iterable[Setup]) -> Iterator[None]:
    """Run a server in each pod during the `with` block."""
    command = [sys.executable, "-m", "bench.traffic.sink", str(TARGET_PORT)]
    root = str(Path(__file__).parents[2])
    started = [pod.popen(command, stdout=subprocess.PIPE, cwd=root) for setup in setups for pod in setup.pods]
    try:
        for sink in started:
            assert sink.stdout
            if sink.stdout.readline().strip() != "ready":
                raise Failed(f"{' '.join(command)} has ended")
        yield
    finally:
        for sink in started:
            sink.kill()
            sink.communicate()


def _resets(route: Route) -> Iterator[int]:
    """Yield the number of resets that each pod has sent."""
    for pod in route.setup.pods:
        lines = pod.inside(Path("/proc/thread-self/net/snmp").read_text).splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        yield int(dict(zip(names, values, strict=True))["OutRsts"])


def _forget(route: Route) -> None:
    """Empty the connection table of the node."""

    def flush() -> None:
        with Netlink() as netlink:
            netlink.each(conntrack.DELETE, Family.IPV4, [b""])

    route.setup.node.inside(flush)

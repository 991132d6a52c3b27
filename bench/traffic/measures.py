"""What is measured on a lane, each time anew; everything that a measure leaves behind is removed."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median

from bench.process import Failed
from bench.samples import TARGET_PORT
from bench.traffic.packets import syns
from bench.traffic.roads import Lane, Road
from kproxy.kernel import conntrack
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family

FIRST_PACKETS, BATCH = 10_000, 100
"""Sent in one measure, and timed together: shorter than the slices of time that others get."""
SECONDS = 0.5
"""How long connections are made, and a stream flows."""
CHUNK = 1 << 20
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, and leaves nothing behind that would use up ports."""


def first_packets(lane: Lane, places: Sequence[tuple[str, int]]) -> float:
    """Seconds for a SYN to a port where nobody listens, and the reset that comes back.

    On a veth the sender's own CPU carries a packet through all namespaces and hooks, and the answer back,
    before the system call returns. So this is the kernel's work, and a microsecond or two of Python.
    """
    road = lane.road
    prepared = [
        (packet, (address, 0)) for packet, address in syns(road.client.address(4), places, FIRST_PACKETS)
    ]
    before = sum(_resets(lane))

    def send() -> float:
        taken = []
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            for start in range(0, len(prepared), BATCH):
                begin = time.perf_counter()
                for packet, destination in prepared[start : start + BATCH]:
                    sender.sendto(packet, destination)
                taken.append(time.perf_counter() - begin)
        return median(taken) / BATCH

    try:
        seconds = road.client.inside(send)
        answered = sum(_resets(lane)) - before
        if answered != FIRST_PACKETS:
            raise Failed(f"{lane.name}: of {FIRST_PACKETS} first packets {answered} were answered")
        return seconds
    finally:
        _forget(lane)


def connections(lane: Lane) -> float:
    """Connections per second that one client makes and closes one after the other, by the median of them."""

    def connect() -> float:
        taken, end, places = [], time.perf_counter() + SECONDS, cycle(lane.one)
        begin = 0.0
        while begin < end:
            begin = time.perf_counter()
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect(next(places))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            taken.append(time.perf_counter() - begin)
        return 1 / median(taken)

    try:
        return lane.road.client.inside(connect)
    finally:
        _forget(lane)


def stream(lane: Lane) -> float:
    """Bytes per second of one connection: a file in memory, sent by the kernel, and thrown away there."""

    def send() -> float:
        file = os.memfd_create("bench")
        try:
            os.truncate(file, CHUNK)
            sent, begin = 0, time.perf_counter()
            with socket.create_connection(lane.one[0]) as client:
                while time.perf_counter() < begin + SECONDS:
                    sent += os.sendfile(client.fileno(), file, 0, CHUNK)
                return sent / (time.perf_counter() - begin)
        finally:
            os.close(file)

    try:
        return lane.road.client.inside(send)
    finally:
        _forget(lane)


@contextmanager
def sinks(roads: Iterable[Road]) -> Iterator[None]:
    """A server in each pod, for as long as it takes."""
    command = [sys.executable, "-m", "bench.traffic.sink", str(TARGET_PORT)]
    root = str(Path(__file__).parents[2])
    started = [pod.popen(command, stdout=subprocess.PIPE, cwd=root) for road in roads for pod in road.pods]
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


def _resets(lane: Lane) -> Iterator[int]:
    """How many resets each pod has sent."""
    for pod in lane.road.pods:
        lines = pod.inside(Path("/proc/thread-self/net/snmp").read_text).splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        yield int(dict(zip(names, values, strict=True))["OutRsts"])


def _forget(lane: Lane) -> None:
    """Empty the node's table of connections."""

    def flush() -> None:
        with Netlink() as netlink:
            netlink.each(conntrack.DELETE, Family.IPV4, [b""])

    lane.road.node.inside(flush)

"""The pods, and the prober alone: its CPU time, and the time until it detects failures."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from bench.process import Failed
from kproxy.model import (
    Container,
    ExecAction,
    HTTPGetAction,
    NamespacedName,
    Origin,
    Pod,
    Probe,
    ProbePort,
    TCPSocketAction,
)
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.exec import ExecRunner
from kproxy.probes.prober import Prober

PERIOD = 10
FAILING = 100
"""The number of pods that fail, or that hang."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
Fail = Callable[[], None]


class Figures(NamedTuple):
    """The results of one run."""

    name: str
    own: float
    """The CPU time of the prober, as a share of one CPU."""
    children: float
    """The same for the commands that it started."""
    delays: list[float]
    """Seconds from the failure to `changed`, sorted."""


def address(index: int, network: int = 127) -> bytes:
    """Return the address of a pod: from 127.1.0.0, or in another network."""
    return bytes((network, 1, index >> 8, index & 255))


def pods(count: int, port: int, directory: Path, kind: str) -> list[Pod]:
    """Return pods with one probe each, which fails at the first failure."""
    made = []
    for index in range(count):
        action: ExecAction | HTTPGetAction | TCPSocketAction
        if kind == "exec":
            action = ExecAction(("test", "-e", str(directory / str(index))))
        elif kind == "tcpSocket":
            action = TCPSocketAction(ProbePort(port, port))
        else:
            action = HTTPGetAction(ProbePort(port, port), "/ready")
        container = Container("web", probe=Probe(action, period=PERIOD, failure_threshold=1))
        name = NamespacedName("default", f"web-{index}")
        made.append(
            Pod(
                name=name,
                origin=Origin("", ""),
                labels={},
                addresses=(address(index),),
                ports=(),
                ready=True,
                deleted="",
                node="",
                containers=(container,),
            )
        )
    return made


def serve(count: int, hanging: int, network: int, control: Connection) -> None:
    """Serve the pods. The first `hanging` accept and never answer. On request, close the last `FAILING`."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(ANSWER)
            self.transport.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        port, servers = 0, []
        for index in range(count):
            protocol = asyncio.Protocol if index < hanging else Answering
            host = ".".join(map(str, address(index, network)))
            servers.append(await loop.create_server(protocol, host, port, backlog=16))
            port = servers[0].sockets[0].getsockname()[1]
        control.send(port)
        await asyncio.to_thread(control.recv)
        for server in servers[-FAILING:]:
            server.close()
        control.send(None)
        await asyncio.to_thread(control.recv)

    many_files()
    asyncio.run(main())


def many_files() -> None:
    """Allow as many open files as possible."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def world(
    kind: str, count: int, hanging: int, directory: Path, network: int = 127
) -> Iterator[tuple[int, Fail]]:
    """Return the pods' port, and a function that lets some of them fail."""
    if kind == "exec":
        for index in range(count):
            (directory / str(index)).touch()

        def remove() -> None:
            for index in range(count - FAILING, count):
                (directory / str(index)).unlink()

        yield 0, remove
        return
    here, there = get_context("fork").Pipe()
    server = get_context("fork").Process(target=serve, args=(count, hanging, network, there), daemon=True)
    server.start()

    def close() -> None:
        here.send(None)
        here.recv()

    try:
        yield here.recv(), close
    finally:
        here.send(None)
        server.join(5)
        server.kill()


def processor(who: int) -> float:
    """Return the CPU time so far, in seconds."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run(name: str, kind: str, count: int, hanging: int, seconds: float) -> Figures:
    """Measure once."""

    async def probe(watched: list[Pod], fail: Fail) -> Figures:
        failed: list[float] = []
        prober = Prober(ExecRunner(CommandTemplate("env")), lambda: failed.append(time.monotonic()))
        prober.watch(watched)
        await asyncio.sleep(2.5 * PERIOD)
        ready = sum(status.ready for status in prober.statuses().values())
        if ready != count - hanging:
            raise Failed(f"{name}: {ready} of {count} pods are ready")
        before = [processor(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        await asyncio.sleep(seconds)
        after = [processor(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        failed.clear()
        fail()
        begin = time.monotonic()
        await wait(lambda: len(failed) == FAILING, 3 * PERIOD)
        await prober.close()
        own, children = ((b - a) / seconds for a, b in zip(before, after, strict=True))
        return Figures(name, own, children, sorted(at - begin for at in failed))

    with tempfile.TemporaryDirectory() as folder, world(kind, count, hanging, Path(folder)) as (port, fail):
        return asyncio.run(probe(pods(count, port, Path(folder), kind), fail))


async def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition is true, for at most `seconds`."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.1)

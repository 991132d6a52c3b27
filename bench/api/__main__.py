"""`python -m bench.api`: measure, and print the table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from netns_lab.netns import in_fresh_namespace
from rich.console import Console, Group
from rich.table import Table

from bench.api.load import Crowd, Load, Loads
from bench.api.relay import Relay, settled
from bench.arguments import Arguments
from bench.daemon import kubeproxy
from bench.daemon.measures import NUMBERS, Say
from bench.daemon.real import started
from bench.daemon.server import Server, replaced, serving
from bench.daemon.subject import Subject, running
from bench.process import exits_with_status, output
from bench.samples import Sample, samples
from bench.suite import machine, publish
from kproxy.sources.cluster.core.formats import JSON, PROTOBUF
from tests.apiserver.kubeconfig import write_kubeconfig

CHANGES = 1000
WATCHED = 500
"""Changes during which the CPU time is measured."""

Run = Callable[[Path], AbstractContextManager[Subject]]
"""Starts a program; the folder has the kubeconfig."""


class Cost(Struct, frozen=True):
    """What a client's start and its changes cost, in bytes that it receives."""

    client: str
    requests: int | None
    """None if the server does not count them."""
    connections: int
    start: int
    changes: int


class Measured(NamedTuple):
    """An API server with the Services, behind a relay."""

    server: Server
    relay: Relay
    folder: Path
    every: list[Sample]
    requests: Callable[[], int] | None = None
    """Returns the number of requests so far."""

    def cost(self, name: str, run: Run) -> Cost:
        """Measure one client. `folder` has its kubeconfig, for the relay."""
        output("nft", "flush", "ruleset")
        before, requests = self.relay.count(), self.requests() if self.requests else 0
        with run(self.folder) as subject:
            subject.ready()
            begun = settled(self.relay).since(before)
            requested = self.requests() - requests if self.requests else None
            middle = self.relay.count()
            for number in islice(NUMBERS, CHANGES):
                self.server.apply([replaced(self.every[number % len(self.every)], number).manifest])
            changes = settled(self.relay).since(middle)
        return Cost(name, requested, begun.connections, begun.received, changes.received)


def measure_all(services: int, kube_proxy: Path | None, say: Say) -> list[Cost]:
    """Measure all clients of the double one after the other, in the present network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    every = list(samples(services))
    with (
        TemporaryDirectory(prefix="kproxy-bench-") as name,
        serving(Path(name), services) as server,
        Relay(server.port) as relay,
    ):
        write_kubeconfig(Path(name) / "kubeconfig", f"http://127.0.0.1:{relay.port}", {})
        measured = Measured(server, relay, Path(name), every, server.requests)
        found = _kproxy(measured, say)
        server.set_streams(False)
        found += [replace(cost, client=f"{cost.client}, in pages") for cost in _kproxy(measured, say)]
        server.set_streams(True)
        return [*found, *_kube_proxy(measured, kube_proxy, say)]


def measure_real(
    assets: Path, services: int, kube_proxy: Path | None, crowd: Crowd, say: Say
) -> tuple[list[Cost], list[Load]]:
    """Measure clients of a real server, and its CPU time, in the present network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    every = list(samples(services))
    say("create the objects of the API server")
    with TemporaryDirectory(prefix="kproxy-bench-") as name, started(assets, Path(name), services) as server:
        with Relay(server.control_plane.port) as relay:
            server.control_plane.write_kubeconfig(Path(name) / "kubeconfig", relay.port)
            measured = Measured(server, relay, Path(name), every)
            found = [*_kproxy(measured, say), *_kube_proxy(measured, kube_proxy, say)]
        return found, Loads(server, every, crowd).measure(say)


def _kproxy(measured: Measured, say: Say) -> list[Cost]:
    found = []
    for name, content_type in (("kproxy", PROTOBUF), ("kproxy, JSON", JSON)):
        say(name)
        flags = [f"--kube-api-content-type={content_type}"]
        found.append(measured.cost(name, partial(running, flags=flags)))
    return found


def _kube_proxy(measured: Measured, program: Path | None, say: Say) -> Iterator[Cost]:
    if program:
        say(f"{program}")
        yield measured.cost("kube-proxy", partial(kubeproxy.running, program))


def report(found: list[Cost], services: int) -> Table:
    """Return the table."""
    table = Table(
        "client",
        "requests",
        "connections",
        "start",
        f"{CHANGES:,} changes",
        title=f"What an API server with {services:,} Services sends",
        caption=machine(),
    )
    for cost in found:
        table.add_row(
            cost.client,
            "" if cost.requests is None else str(cost.requests),
            str(cost.connections),
            f"{cost.start / 1e6:.1f} MB",
            f"{cost.changes / 1e6:.2f} MB",
        )
    return table


def load_report(found: list[Load], services: int) -> Table:
    """Return the table of the CPU times."""
    first = found[0]
    table = Table(
        f"{first.clients} clients, {first.watches} watch changes",
        "connections of each",
        "start of all",
        "each receives",
        f"{first.changed:,} changes",
        title=f"CPU time of kube-apiserver with {services:,} Services",
        caption=f"{machine()}. The changes alone take {first.alone:.2f} s.",
    )
    for load in found:
        table.add_row(
            load.client,
            f"{load.connections:.0f}",
            f"{load.start:.2f} s",
            f"{load.received / 1e6:.1f} MB",
            "" if load.changes is None else f"{load.changes:+.2f} s",
        )
    return table


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.api", __doc__)
    parser.number("--services", 10_000)
    parser.path("--kube-proxy", "FILE", "also measure this kube-proxy")
    parser.path(
        "--assets", "DIR", "measure the CPU time of the kube-apiserver in this folder, which also has etcd"
    )
    parser.number("--clients", 20, "clients that start at once")
    parser.number("--watches", 200, "clients that watch changes")
    parser.json()
    arguments = parser.parsed_by_root()
    say = partial(Console(stderr=True).print, f"{arguments.services:,} Services:")
    services, kube_proxy = arguments.services, arguments.kube_proxy
    tables: list[Table] = []
    figures: dict[str, Any] = {}
    with exits_with_status():
        if arguments.assets:
            crowd = Crowd(arguments.clients, arguments.watches, WATCHED)
            real = partial(measure_real, arguments.assets, services, kube_proxy, crowd, say)
            found, loaded = in_fresh_namespace(real)
            tables, figures = [load_report(loaded, services)], {"loads": loaded}
        else:
            found = in_fresh_namespace(partial(measure_all, services, kube_proxy, say))
    publish(Group(report(found, services), *tables), 110, arguments.json, results=found, **figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())

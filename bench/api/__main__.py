"""`python -m bench.api`: measure, and print the table."""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.api import subjects
from bench.api.relay import Count, Relay
from bench.api.sizes import event, protobuf
from bench.daemon.server import Double, replaced, serving
from bench.manifests import manifests
from bench.process import exits_with_status, in_fresh_namespace, output, parsed_by_root
from bench.samples import Sample, samples
from bench.suite import machine, publish
from tests.apiserver.kubeconfig import write_kubeconfig
from tests.apiserver.objects import node

CHANGES = 1000
QUIET = 2.0
"""A client that has received nothing for so many seconds has received everything."""

NUMBERS = count()
"""An address that one client has seen is no change for the next one."""

Start = Callable[[Path, Sample], AbstractContextManager[None]]


class Cost(Struct, frozen=True):
    """What a client's start and its changes cost, in bytes that it receives."""

    client: str
    requests: int
    """0: computed, not measured."""
    connections: int
    start: int
    changes: int


def measure(server: Double, relay: Relay, folder: Path, every: list[Sample], name: str, start: Start) -> Cost:
    """Measure one client. It connects through the relay."""
    output("nft", "flush", "ruleset")
    write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{relay.port}", {})
    before, requests = relay.count(), server.requests()
    with start(folder, every[-1]):
        begun = settled(relay).since(before)
        requests, middle = server.requests() - requests, relay.count()
        for number in islice(NUMBERS, CHANGES):
            server.apply([replaced(every[number % len(every)], number).manifest])
        changes = settled(relay).since(middle)
    return Cost(name, requests, begun.connections, begun.received, changes.received)


def settled(relay: Relay) -> Count:
    """Wait until nothing passes any more."""
    while True:
        before = relay.count()
        time.sleep(QUIET)
        if relay.count() == before:
            return before


def computed(every: list[Sample]) -> list[Cost]:
    """Return what kube-proxy receives, from the sizes of the objects in protobuf."""
    items = manifests(every)["items"]
    changes = sum(len(event(replaced(each, n).manifest)) for n, each in enumerate(every[:CHANGES]))
    changes = changes * CHANGES // min(CHANGES, len(every))
    pieces = [items[start : start + 500] for start in range(0, len(items), 500)]
    zipped = sum(len(gzip.compress(b"".join(map(protobuf, piece)), 1)) for piece in pieces)
    streamed = sum(len(event(item, "ADDED")) for item in items)
    return [
        Cost("protobuf, streamed (computed)", 0, 1, streamed, changes),
        Cost("protobuf, gzip, in pages (computed)", 0, 1, zipped, changes),
    ]


def measure_all(services: int, kube_proxy: Path | None, say: Callable[[str], None]) -> list[Cost]:
    """Measure all clients one after the other, in the present network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    every = list(samples(services))
    with TemporaryDirectory(prefix="kproxy-bench-") as name, serving(Path(name), services) as server:
        server.apply([node(subjects.NODE)])
        with Relay(server.port) as relay:
            work = partial(measure, server, relay, Path(name), every)
            say("kproxy, with streamed lists")
            found = [work("kproxy, streamed", subjects.kproxy)]
            server.set_streams(False)
            say("kproxy, with lists in pages")
            found.append(work("kproxy, in pages", subjects.kproxy))
            server.set_streams(True)
            if kube_proxy:
                say(f"{kube_proxy}")
                found.append(work("kube-proxy", partial(subjects.kube_proxy, kube_proxy)))
    return found + computed(every)


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
            str(cost.requests or ""),
            str(cost.connections),
            f"{cost.start / 1e6:.1f} MB",
            f"{cost.changes / 1e6:.2f} MB",
        )
    return table


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--services", metavar="N", type=int, default=10_000)
    parser.add_argument("--kube-proxy", metavar="FILE", type=Path, help="also measure this kube-proxy")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to a file")
    arguments = parsed_by_root(parser)
    say = partial(Console(stderr=True).print, f"{arguments.services:,} Services:")
    with exits_with_status():
        job = partial(measure_all, arguments.services, arguments.kube_proxy, say)
        found = in_fresh_namespace(job)
    publish(report(found, arguments.services), 100, arguments.json, results=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

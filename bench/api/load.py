"""The CPU time of kube-apiserver for many clients that start, and for changes that many of them watch.

The kinds of clients take turns. The CPU time for changes is that beyond the same changes without clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from bench.api.clients import KINDS, Kind, following
from bench.api.relay import Relay, settled
from bench.daemon.measures import NUMBERS
from bench.daemon.real import RealServer
from bench.daemon.server import replaced
from bench.process import cpu_of
from bench.samples import Sample

WATCHING = [kind for kind in KINDS if kind.watches]
ROUNDS = 3
RATE = 50
"""Changes per second."""
CONNECTING = 3.0
"""Seconds until all clients watch."""


class Crowd(NamedTuple):
    """The numbers of clients."""

    clients: int
    """Start at once."""
    watches: int
    """Watch changes."""
    changes: int


class Load(Struct, frozen=True):
    """What clients of one kind cost. Seconds are CPU time of kube-apiserver; medians of the rounds."""

    client: str
    clients: int
    start: float
    """Until all clients have all objects."""
    received: int
    """Bytes that each client receives."""
    connections: float
    """Of each client."""
    watches: int
    """The number of clients that watch the changes."""
    changes: float | None
    """Of `changed` changes, beyond the time that the same number takes without clients."""
    changed: int
    alone: float
    """That time without clients."""


class Started(NamedTuple):
    """One start of all clients of a kind."""

    cpu: float
    received: int
    connections: int


class Loads:
    """Measures a server."""

    def __init__(self, server: RealServer, every: list[Sample], crowd: Crowd) -> None:
        self._server, self._every, self._crowd = server, every, crowd
        self._control_plane = server.control_plane

    def measure(self, say: Callable[[str], None]) -> list[Load]:
        """Return the cost of each kind of clients."""
        starts: dict[str, list[Started]] = {kind.name: [] for kind in KINDS}
        changes: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
        alone = []
        for _ in range(ROUNDS):
            for kind in KINDS:
                say(f"{self._crowd.clients} clients start ({kind.name})")
                starts[kind.name].append(self._start(kind))
            say(f"{self._crowd.changes} changes without clients")
            alone.append(self._change(None))
            for kind in WATCHING:
                say(f"{self._crowd.changes} changes for {self._crowd.watches} clients ({kind.name})")
                changes[kind.name].append(self._change(kind))
        return [self._load(kind.name, starts[kind.name], changes[kind.name], median(alone)) for kind in KINDS]

    def _load(self, name: str, starts: list[Started], changes: list[float], alone: float) -> Load:
        cpu, received, connections = map(median, zip(*starts, strict=True))
        return Load(
            name,
            self._crowd.clients,
            cpu,
            int(received / self._crowd.clients),
            connections / self._crowd.clients,
            self._crowd.watches,
            median(changes) - alone if changes else None,
            self._crowd.changes,
            alone,
        )

    def _cpu(self) -> float:
        return cpu_of(self._control_plane.pid)

    def _start(self, kind: Kind) -> Started:
        with Relay(self._control_plane.port) as relay:
            before = self._cpu()
            with following(kind, self._crowd.clients, relay.port, self._control_plane.certificate):
                count = settled(relay)
                return Started(self._cpu() - before, count.received, count.connections)

    def _change(self, kind: Kind | None) -> float:
        changes = (replaced(self._every[n % len(self._every)], n).manifest for n in NUMBERS)
        version = str(self._server.apply([next(changes)]))
        plane, watches = self._control_plane, self._crowd.watches
        with following(kind, watches, plane.port, plane.certificate, version) if kind else nullcontext():
            time.sleep(CONNECTING)
            before, begun = self._cpu(), time.monotonic()
            for number, manifest in enumerate(islice(changes, self._crowd.changes)):
                time.sleep(max(0, begun + number / RATE - time.monotonic()))
                self._server.apply([manifest])
            time.sleep(max(0, begun + self._crowd.changes / RATE + 1 - time.monotonic()))
            return self._cpu() - before

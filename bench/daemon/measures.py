"""What is measured at one number of services, and in which order."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from msgspec import Struct

from bench.daemon.kernel import Listener, Probe, frontend_bytes, listeners
from bench.daemon.server import Change, Server, objects, replaced, resized
from bench.daemon.subject import Subject, running
from bench.process import Failed, output
from bench.samples import PORT, Sample, samples

ROUNDS = 3
CHANGES = 200
CHECKS = 10
RATE = 20
UDP_SERVICES = 100
SETTLING = 1.0
"""Seconds from one kind of measurement to the next."""
PEACE = 6.0
"""Seconds from one repair to the next: who makes it necessary again at once is answered later and later."""
PAUSE = 0.02
"""Seconds from a change that is done to the next."""

Say = Callable[[str], None]
Serving = Callable[[Path, int], AbstractContextManager[Server]]
"""An API server with so many services; the folder gets the kubeconfig."""


class Start(Struct, frozen=True):
    """From the start of the process, seconds."""

    seconds: float
    """Until the last service is in the kernel; where it was before, until kproxy says that all is right."""
    cpu: float
    """Of kproxy, until it says so."""
    peak: int
    """Bytes, until then."""


class Spread(Struct, frozen=True):
    """From the event to the element in the kernel, seconds."""

    median: float
    p99: float
    cpu: float
    """Share of a CPU that kproxy took meanwhile."""


class Figures(Struct, frozen=True):
    """All about one number of services."""

    services: int
    others: float
    """CPUs that the machine spent on other things just before."""
    listeners: int
    """Sockets of others that are told of every commit to nftables: to describe each element takes time."""
    cold: Start
    restart: Start
    replaced: Spread
    resized: Spread
    churn: Spread
    churn_of_udp: Spread
    during_checks: Spread
    repair: float
    """Seconds from an emptied ruleset to the last service's return, the longest."""
    peak: int
    """Bytes, of all this."""
    skeleton_probe: int
    """Bytes, of its child."""


def spread(taken: Sequence[float], cpu: float) -> Spread:
    """The median, and what a hundredth is beyond."""
    return Spread(median(taken), quantiles(taken, n=100, method="inclusive")[98], cpu)


def measure(serving: Serving, services: int, seconds: float, say: Say) -> Figures:
    """Everything, in the network namespace that the thread is in."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    say("the API server gets its objects")
    with TemporaryDirectory(prefix="kproxy-bench-") as name, serving(Path(name), services) as server:
        folder, others, last_seen = Path(name), _busy(1.0), listeners()
        every = list(samples(services))
        last = Probe(frontend_bytes(every[-1].address, "TCP", PORT))
        cold: list[Start] = []
        restart: list[Start] = []
        for _ in range(ROUNDS):
            say("cold start")
            output("nft", "flush", "ruleset")
            with running(folder) as kproxy:
                cold.append(_start(kproxy, last))
            say("restart")
            with running(folder) as kproxy:
                restart.append(_start(kproxy))
        with running(folder) as kproxy:
            kproxy.ready()
            tail = _Changes(server, kproxy, every, seconds, say).all(last)
            peak, skeleton_probe = kproxy.peaks()
            peak = max(peak, *(start.peak for start in cold + restart))
        last.close()
        return Figures(
            services, others, last_seen, _middle(cold), _middle(restart), *tail, peak, skeleton_probe
        )


def _start(kproxy: Subject, last: Probe | None = None) -> Start:
    """`last` asks for an element that was not there."""
    seen = last.when(True) if last else None
    ready = kproxy.ready()
    return Start((seen or ready) - kproxy.began, kproxy.cpu(), max(kproxy.peaks()))


def _middle(found: list[Start]) -> Start:
    return Start(*(median(getattr(each, name) for each in found) for name in Start.__struct_fields__))


def _busy(seconds: float) -> float:
    """CPUs that are in use."""

    def used() -> float:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


class _Changes:
    """Of a kproxy that runs."""

    def __init__(
        self, server: Server, kproxy: Subject, every: list[Sample], seconds: float, say: Say
    ) -> None:
        self._server, self._kproxy, self._seconds, self._say = server, kproxy, seconds, say
        self._every = every
        self._numbers = count()

    def all(self, last: Probe) -> tuple[Spread, Spread, Spread, Spread, Spread, float]:
        """In the order of Figures."""
        tcp, udp = self._every[UDP_SERVICES:-1], self._every[:UDP_SERVICES]
        with Listener() as listener:
            self._listener = listener
            self._server.apply(item for each in udp for item in objects(each, "UDP"))
            listener.when(frontend_bytes(udp[-1].address, "UDP", PORT))
            time.sleep(SETTLING)
            self._say("endpoints replaced, one after another")
            replacements = self._one_by_one(self._replacements(tcp, CHANGES))
            self._say("endpoints added and removed, one after another")
            sizes = (c for s in _strided(tcp, CHANGES // 2) for c in resized(s, next(self._numbers)))
            sizes_taken = self._one_by_one(sizes)
            churns = []
            for protocol, of in (("TCP", tcp), ("UDP", udp)):
                self._say(f"{RATE} changes a second, of {protocol} services, for {self._seconds:.0f} s")
                churns.append(self._at_a_rate(self._replacements(of, int(RATE * self._seconds), protocol)))
            self._say("changes while everything is compared")
            checks = self._one_by_one(self._replacements(tcp, CHECKS), self._kproxy.check)
        self._say("nft flush ruleset, while changes come")
        with self._load(tcp):
            repairs = [self._repair(last) for _ in range(ROUNDS)]
        return replacements, sizes_taken, churns[0], churns[1], checks, max(repairs)

    def _replacements(self, of: Sequence[Sample], number: int, protocol: str = "TCP") -> Iterator[Change]:
        return (replaced(sample, next(self._numbers), protocol) for sample in _strided(of, number))

    def _one_by_one(self, changes: Iterable[Change], before: Callable[[], None] = lambda: None) -> Spread:
        taken = []
        cpu, begun = self._kproxy.cpu(), time.monotonic()
        for change in changes:
            time.sleep(PAUSE)
            self._listener.forget()
            before()
            revision = self._server.apply([change.manifest])
            shown = self._listener.when(change.shows)
            taken.append(shown - self._server.sent_at(revision - 1)[revision])
        return spread(taken, (self._kproxy.cpu() - cpu) / (time.monotonic() - begun))

    def _at_a_rate(self, changes: Iterable[Change]) -> Spread:
        self._listener.forget()
        revisions: dict[int, bytes] = {}
        cpu, begun = self._kproxy.cpu(), time.monotonic()
        for number, change in enumerate(changes):
            time.sleep(max(0, begun + number / RATE - time.monotonic()))
            revisions[self._server.apply([change.manifest])] = change.shows
        used = (self._kproxy.cpu() - cpu) / (time.monotonic() - begun)
        sent = self._server.sent_at(min(revisions) - 1)
        return spread([self._listener.when(shows) - sent[r] for r, shows in revisions.items()], used)

    @contextmanager
    def _load(self, of: Sequence[Sample]) -> Iterator[None]:
        over = threading.Event()

        def change() -> None:
            for each in self._replacements(of, 1_000_000):
                self._server.apply([each.manifest])
                if over.wait(1 / RATE):
                    return

        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _repair(self, last: Probe) -> float:
        with subprocess.Popen(["nft", "flush", "ruleset"]) as flush:
            gone = last.when(False)
            back = last.when(True)
        if flush.returncode:
            raise Failed("nft flush ruleset")
        time.sleep(PEACE)
        return back - gone


def _strided(of: Sequence[Sample], number: int) -> Iterator[Sample]:
    """Some of them, far from one another."""
    return (of[index * 7919 % len(of)] for index in range(number))

"""The measurements with one number of Services, in order."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
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
from tests.repeating import repeating

ROUNDS = 3
CHANGES = 200
CHECKS = 10
SCRAPES = 10
RATE = 20
UDP_SERVICES = 100
SETTLING = 1.0
"""Seconds between two kinds of measurements."""
REPAIR_PAUSE = 6.0
"""Seconds between two repairs: kproxy delays repairs that follow each other closely."""
PAUSE = 0.02
"""Seconds between two changes."""

Say = Callable[[str], None]
Serving = Callable[[Path, int], AbstractContextManager[Server]]
"""Starts an API server with so many Services; writes the kubeconfig to the folder."""


class Start(Struct, frozen=True):
    """Times from the start of the process, in seconds."""

    seconds: float
    """Until the last Service is in the kernel; if it was there before, until kproxy reports to be ready."""
    cpu: float
    """CPU time of kproxy until it reports that it is ready."""
    peak: int
    """Peak memory until then, in bytes."""


class Spread(Struct, frozen=True):
    """Times from the event to the element in the kernel, in seconds."""

    median: float
    p99: float
    cpu: float
    """kproxy's share of one CPU."""
    each: float
    """kproxy's CPU time for each, in seconds."""
    kernel: float
    """The part of it that the kernel used."""


class Figures(Struct, frozen=True):
    """The results with one number of Services."""

    services: int
    others: float
    """CPUs that other processes used just before."""
    listeners: int
    """Sockets of other programs that receive every commit to nftables: each element takes time for them."""
    cold: Start
    restart: Start
    replaced: Spread
    resized: Spread
    churn: Spread
    churn_of_udp: Spread
    during_checks: Spread
    scrapes: Spread
    """Of /metrics, from the request until all has arrived."""
    repair: float
    """The longest time from an empty ruleset until the last Service is back, in seconds."""
    peak: int
    """Peak memory in all measurements, in bytes."""
    tree: str = ""
    """The source folder of kproxy, if it is not this one."""


class Cpu:
    """The CPU time of kproxy from the beginning until `stop`."""

    def __init__(self, kproxy: Subject) -> None:
        self._kproxy, self._begin = kproxy, self._now(kproxy)
        self._end = self._begin

    @staticmethod
    def _now(kproxy: Subject) -> tuple[float, float, float]:
        return time.monotonic(), kproxy.cpu(), kproxy.kernel()

    def stop(self) -> None:
        """End the measurement."""
        self._end = self._now(self._kproxy)

    def spread(self, taken: Sequence[float]) -> Spread:
        """Return the median and the 99th percentile of what was done meanwhile, and the CPU time."""
        seconds, cpu, kernel = (end - begin for begin, end in zip(self._begin, self._end, strict=True))
        p99 = quantiles(taken, n=100, method="inclusive")[98]
        return Spread(median(taken), p99, cpu / seconds, cpu / len(taken), kernel / len(taken))


def measure(serving: Serving, services: int, seconds: float, say: Say, tree: Path | None = None) -> Figures:
    """Measure everything, in the present network namespace. `tree` is another source folder of kproxy."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    say("create the objects of the API server")
    with TemporaryDirectory(prefix="kproxy-bench-") as name, serving(Path(name), services) as server:
        folder, others, last_seen = Path(name), _busy(1.0), listeners()
        every = list(samples(services))
        last = Probe(frontend_bytes(every[-1].address, "TCP", PORT))
        cold: list[Start] = []
        restart: list[Start] = []
        for _ in range(ROUNDS):
            say("cold start")
            output("nft", "flush", "ruleset")
            with running(folder, tree) as kproxy:
                cold.append(_start(kproxy, last))
            say("restart")
            with running(folder, tree) as kproxy:
                restart.append(_start(kproxy))
        with running(folder, tree) as kproxy:
            kproxy.ready()
            spreads = _Changes(server, kproxy, every, seconds, say).all()
            peak = max(kproxy.peak(), *(start.peak for start in cold + restart))
        with running(folder, tree, owner=False) as kproxy:
            kproxy.ready()
            repair = _Changes(server, kproxy, every, seconds, say).repair(last)
            peak = max(kproxy.peak(), peak)
        last.close()
        starts = _middle(cold), _middle(restart)
        return Figures(services, others, last_seen, *starts, *spreads, repair, peak, str(tree or ""))


def _start(kproxy: Subject, last: Probe | None = None) -> Start:
    """Measure a start. `last` asks for an element that does not exist before."""
    seen = last.when(True) if last else None
    ready = kproxy.ready()
    return Start((seen or ready) - kproxy.began, kproxy.cpu(), kproxy.peak())


def _middle(found: list[Start]) -> Start:
    return Start(*(median(getattr(each, name) for each in found) for name in Start.__struct_fields__))


def _busy(seconds: float) -> float:
    """Return the number of CPUs in use."""

    def used() -> float:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


class _Changes:
    """Changes while kproxy runs."""

    def __init__(
        self, server: Server, kproxy: Subject, every: list[Sample], seconds: float, say: Say
    ) -> None:
        self._server, self._kproxy, self._seconds, self._say = server, kproxy, seconds, say
        self._every = every
        self._numbers = count()

    def all(self) -> tuple[Spread, Spread, Spread, Spread, Spread, Spread]:
        """Measure all changes of objects, in the order of Figures."""
        tcp, udp = self._every[UDP_SERVICES:-1], self._every[:UDP_SERVICES]
        with Listener() as listener:
            self._listener = listener
            self._server.apply(item for each in udp for item in objects(each, "UDP"))
            listener.when(frontend_bytes(udp[-1].address, "UDP", PORT))
            time.sleep(SETTLING)
            self._say("endpoints replaced, one after the other")
            replacements = self._one_by_one(self._replacements(tcp, CHANGES))
            self._say("endpoints added and removed, one after the other")
            sizes = (c for s in _strided(tcp, CHANGES // 2) for c in resized(s, next(self._numbers)))
            sizes_taken = self._one_by_one(sizes)
            churns = []
            for protocol, of in (("TCP", tcp), ("UDP", udp)):
                self._say(f"{RATE} changes per second of {protocol} Services, for {self._seconds:.0f} s")
                churns.append(self._at_a_rate(self._replacements(of, int(RATE * self._seconds), protocol)))
            self._say("changes during a full comparison")
            checks = self._one_by_one(self._replacements(tcp, CHECKS), self._kproxy.check)
            self._say("scrapes of the metrics")
            scrapes = self._scrapes()
        return replacements, sizes_taken, churns[0], churns[1], checks, scrapes

    def repair(self, last: Probe) -> float:
        """Measure the repair of a deleted table, which does not belong to kproxy."""
        self._say("nft flush ruleset, with changes at the same time")
        with self._load(self._every[UDP_SERVICES:-1]):
            return max(self._repair(last) for _ in range(ROUNDS))

    def _scrapes(self) -> Spread:
        self._kproxy.scrape()  # the first one takes longer
        cpu = Cpu(self._kproxy)
        taken = [self._kproxy.scrape() for _ in range(SCRAPES)]
        cpu.stop()
        return cpu.spread(taken)

    def _replacements(self, of: Sequence[Sample], number: int, protocol: str = "TCP") -> Iterator[Change]:
        return (replaced(sample, next(self._numbers), protocol) for sample in _strided(of, number))

    def _one_by_one(self, changes: Iterable[Change], before: Callable[[], None] = lambda: None) -> Spread:
        taken, cpu = [], Cpu(self._kproxy)
        for change in changes:
            time.sleep(PAUSE)
            self._listener.forget()
            before()
            revision = self._server.apply([change.manifest])
            shown = self._listener.when(*change.shows)
            taken.append(shown - self._server.sent_at(revision - 1)[revision])
        cpu.stop()
        return cpu.spread(taken)

    def _at_a_rate(self, changes: Iterable[Change]) -> Spread:
        self._listener.forget()
        revisions: dict[int, tuple[bytes, ...]] = {}
        cpu, begun = Cpu(self._kproxy), time.monotonic()
        for number, change in enumerate(changes):
            time.sleep(max(0, begun + number / RATE - time.monotonic()))
            revisions[self._server.apply([change.manifest])] = change.shows
        cpu.stop()
        sent = self._server.sent_at(min(revisions) - 1)
        return cpu.spread([self._listener.when(*shows) - sent[r] for r, shows in revisions.items()])

    def _load(self, of: Sequence[Sample]) -> AbstractContextManager[None]:
        changes = self._replacements(of, 1_000_000)
        return repeating(lambda: self._server.apply([next(changes).manifest]), pause=1 / RATE)

    def _repair(self, last: Probe) -> float:
        with subprocess.Popen(["nft", "flush", "ruleset"]) as flush:
            removed = last.when(False)
            back = last.when(True)
        if flush.returncode:
            raise Failed("nft flush ruleset failed")
        time.sleep(REPAIR_PAUSE)
        return back - removed


def _strided(of: Sequence[Sample], number: int) -> Iterator[Sample]:
    """Yield some of the samples, far from each other."""
    return (of[index * 7919 % len(of)] for index in range(number))

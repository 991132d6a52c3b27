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

from bench.daemon import kubeproxy
from bench.daemon.kernel import Listener, Probe, frontend_bytes, listeners
from bench.daemon.server import Change, Server, objects, replaced, resized
from bench.daemon.subject import Kproxy, Subject, running
from bench.process import Failed, output
from bench.samples import PORT, Sample, samples
from tests.repeating import repeating

ROUNDS = PEER_ROUNDS = 3
CHANGES = 200
CHECKS = 10
SCRAPES = 10
RATE = 20
UDP_SERVICES = 100
PEER_CHANGES = 10
SETTLING = 1.0
"""Seconds between two kinds of measurements."""
REPAIR_PAUSE = 6.0
"""Seconds between two repairs: kproxy delays repairs that follow each other closely."""
PAUSE, PEER_PAUSE = 0.02, 2.5
"""Seconds between two changes. kube-proxy waits for a second before it makes another change."""

NUMBERS = count()
"""Of unused addresses."""

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


class Peer(Struct, frozen=True):
    """The results of kube-proxy with the same API server. CPU time and memory include the nft processes."""

    cold: Start
    restart: Start
    replaced: Spread
    churn: Spread
    peak: int


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
    peer: Peer | None = None


class Cpu:
    """The CPU time of a program from the beginning until `stop`."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._begin = subject, self._now(subject)
        self._end = self._begin

    @staticmethod
    def _now(subject: Subject) -> tuple[float, float, float]:
        return time.monotonic(), subject.cpu(), subject.kernel()

    def stop(self) -> None:
        """End the measurement."""
        self._end = self._now(self._subject)

    def spread(self, taken: Sequence[float]) -> Spread:
        """Return the median and the 99th percentile of what was done meanwhile, and the CPU time."""
        seconds, cpu, kernel = (end - begin for begin, end in zip(self._begin, self._end, strict=True))
        p99 = quantiles(taken, n=100, method="inclusive")[98]
        return Spread(median(taken), p99, cpu / seconds, cpu / len(taken), kernel / len(taken))


def measure(
    serving: Serving,
    services: int,
    seconds: float,
    say: Say,
    tree: Path | None = None,
    kube_proxy: Path | None = None,
) -> Figures:
    """Measure everything, in the present network namespace.

    `tree` is another source folder of kproxy. `kube_proxy` is the program to measure after kproxy.
    """
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    say("create the objects of the API server")
    with TemporaryDirectory(prefix="kproxy-bench-") as name, serving(Path(name), services) as server:
        folder, others, last_seen = Path(name), _busy(1.0), listeners()
        every = list(samples(services))
        frontend = frontend_bytes(every[-1].address, "TCP", PORT)
        last = Probe(frontend)
        cold, restart = _starts(lambda: running(folder, tree), last, ROUNDS, say)
        with running(folder, tree) as kproxy:
            kproxy.ready()
            with Listener() as listener:
                changes = _Changes(server, kproxy, every, seconds, listener)
                spreads = _of_kproxy(changes, kproxy, say)
            peak = max(kproxy.peak(), cold.peak, restart.peak)
        with running(folder, tree, owner=False) as kproxy:
            kproxy.ready()
            repair = _repairs(server, every, last, say)
            peak = max(kproxy.peak(), peak)
        last.close()
        peer = None
        if kube_proxy:
            peer = _peer(lambda: kubeproxy.running(kube_proxy, folder), server, every, seconds, say)
        return Figures(
            services, others, last_seen, cold, restart, *spreads, repair, peak, str(tree or ""), peer
        )


def _peer(
    run: Callable[[], AbstractContextManager[kubeproxy.KubeProxy]],
    server: Server,
    every: list[Sample],
    seconds: float,
    say: Say,
) -> Peer:
    last = kubeproxy.probe(frontend_bytes(every[-1].address, "TCP", PORT))
    cold, restart = _starts(run, last, PEER_ROUNDS, lambda what: say(f"kube-proxy: {what}"))
    last.close()
    with run() as subject, Listener(kubeproxy.has_endpoints) as listener:
        subject.ready()
        changes = _Changes(server, subject, every, seconds, listener, PEER_PAUSE)
        time.sleep(PEER_PAUSE)
        say("kube-proxy: endpoints replaced, one after the other")
        replacements = changes.one_by_one(changes.replacements(PEER_CHANGES))
        time.sleep(PEER_PAUSE)
        say(f"kube-proxy: {RATE} changes per second for {seconds:.0f} s")
        churn = changes.at_a_rate()
        peak = max(subject.peak(), cold.peak, restart.peak)
    return Peer(cold, restart, replacements, churn, peak)


def _starts(
    run: Callable[[], AbstractContextManager[Subject]], last: Probe, rounds: int, say: Say
) -> tuple[Start, Start]:
    """Measure cold starts and restarts. Returns the medians."""
    cold: list[Start] = []
    restart: list[Start] = []
    for _ in range(rounds):
        say("cold start")
        output("nft", "flush", "ruleset")
        with run() as subject:
            cold.append(_start(subject, last))
        say("restart")
        with run() as subject:
            restart.append(_start(subject))
    return _middle(cold), _middle(restart)


def _start(subject: Subject, last: Probe | None = None) -> Start:
    """Measure a start. `last` asks for an element that does not exist before."""
    seen = last.when(True, subject.check_alive) if last else None
    ready = subject.ready()
    return Start((seen or ready) - subject.began, subject.cpu(), subject.peak())


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
    """Changes of endpoints while a program runs."""

    def __init__(
        self,
        server: Server,
        subject: Subject,
        every: list[Sample],
        seconds: float,
        listener: Listener,
        pause: float = PAUSE,
    ) -> None:
        self.server, self.subject, self.seconds, self.listener = server, subject, seconds, listener
        self.tcp, self.udp = every[UDP_SERVICES:-1], every[:UDP_SERVICES]
        self._pause = pause

    def replacements(self, number: int) -> Iterator[Change]:
        """Yield as many replaced endpoints of TCP Services."""
        return _replacements(self.tcp, number)

    def one_by_one(self, changes: Iterable[Change], before: Callable[[], None] = lambda: None) -> Spread:
        """Make changes, each when the previous one is in the kernel."""
        taken, cpu = [], Cpu(self.subject)
        for change in changes:
            time.sleep(self._pause)
            self.listener.forget()
            before()
            revision = self.server.apply([change.manifest])
            shown = self.listener.when(*change.shows)
            taken.append(shown - self.server.sent_at(revision - 1)[revision])
        cpu.stop()
        return cpu.spread(taken)

    def at_a_rate(self, protocol: str = "TCP") -> Spread:
        """Make changes at the fixed rate."""
        of = self.udp if protocol == "UDP" else self.tcp
        self.listener.forget()
        revisions: dict[int, tuple[bytes, ...]] = {}
        cpu, begun = Cpu(self.subject), time.monotonic()
        for number, change in enumerate(_replacements(of, int(RATE * self.seconds), protocol)):
            time.sleep(max(0, begun + number / RATE - time.monotonic()))
            revisions[self.server.apply([change.manifest])] = change.shows
        cpu.stop()
        sent = self.server.sent_at(min(revisions) - 1)
        return cpu.spread([self.listener.when(*shows) - sent[r] for r, shows in revisions.items()])


Spreads = tuple[Spread, Spread, Spread, Spread, Spread, Spread]


def _of_kproxy(changes: _Changes, kproxy: Kproxy, say: Say) -> Spreads:
    """Measure all changes of objects, in the order of Figures."""
    changes.server.apply(item for each in changes.udp for item in objects(each, "UDP"))
    changes.listener.when(frontend_bytes(changes.udp[-1].address, "UDP", PORT))
    time.sleep(SETTLING)
    say("endpoints replaced, one after the other")
    replacements = changes.one_by_one(changes.replacements(CHANGES))
    say("endpoints added and removed, one after the other")
    sizes = (c for s in _strided(changes.tcp, CHANGES // 2) for c in resized(s, next(NUMBERS)))
    sizes_taken = changes.one_by_one(sizes)
    say(f"{RATE} changes per second of TCP Services, for {changes.seconds:.0f} s, then of UDP Services")
    churn, churn_of_udp = changes.at_a_rate(), changes.at_a_rate("UDP")
    say("changes during a full comparison")
    checks = changes.one_by_one(changes.replacements(CHECKS), kproxy.check)
    say("scrapes of the metrics")
    return replacements, sizes_taken, churn, churn_of_udp, checks, _scrapes(kproxy)


def _scrapes(kproxy: Kproxy) -> Spread:
    kproxy.scrape()  # the first one takes longer
    cpu = Cpu(kproxy)
    taken = [kproxy.scrape() for _ in range(SCRAPES)]
    cpu.stop()
    return cpu.spread(taken)


def _repairs(server: Server, every: list[Sample], last: Probe, say: Say) -> float:
    """Measure the repair of a deleted table, which does not belong to kproxy."""
    say("nft flush ruleset, with changes at the same time")
    changes = _replacements(every[UDP_SERVICES:-1], 1_000_000)
    with repeating(lambda: server.apply([next(changes).manifest]), pause=1 / RATE):
        return max(_repair(last) for _ in range(ROUNDS))


def _repair(last: Probe) -> float:
    with subprocess.Popen(["nft", "flush", "ruleset"]) as flush:
        removed = last.when(False)
        back = last.when(True)
    if flush.returncode:
        raise Failed("nft flush ruleset failed")
    time.sleep(REPAIR_PAUSE)
    return back - removed


def _replacements(of: Sequence[Sample], number: int, protocol: str = "TCP") -> Iterator[Change]:
    return (replaced(sample, next(NUMBERS), protocol) for sample in _strided(of, number))


def _strided(of: Sequence[Sample], number: int) -> Iterator[Sample]:
    """Yield some of the samples, far from each other."""
    return (of[index * 7919 % len(of)] for index in range(number))

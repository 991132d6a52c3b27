"""Figures as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.daemon.measures import RATE, Figures, Spread
from bench.report import megabytes, seconds


class Limits(NamedTuple):
    """What kproxy promises at one number of services: seconds, and bytes."""

    cold: float | None = None
    change: float | None = None
    """The 99th percentile."""
    peak: float | None = None
    repair: float | None = None


LIMITS = {
    1_000: Limits(repair=0.2),
    10_000: Limits(cold=2.0, change=0.015, peak=150e6),
    100_000: Limits(cold=20.0, change=0.1, peak=1e9),
}


def _spread(spread: Spread) -> str:
    return f"{seconds(spread.median)} / {seconds(spread.p99)}"


ROWS: tuple[tuple[str, Callable[[Figures], str], str], ...] = (
    ("start, until all is in the kernel", lambda f: seconds(f.cold.seconds), "37 s"),
    ("  CPU", lambda f: seconds(f.cold.cpu), "37 s"),
    ("restart, until all is compared", lambda f: seconds(f.restart.seconds), "90 s"),
    ("  CPU", lambda f: seconds(f.restart.cpu), ""),
    ("endpoint replaced, p50 / p99", lambda f: _spread(f.replaced), "4.1 s / -"),
    ("endpoint added or removed", lambda f: _spread(f.resized), ""),
    (f"{RATE} changes/s", lambda f: _spread(f.churn), "8.1 s / 10.9 s"),
    ("  share of a CPU", lambda f: f"{f.churn.cpu:.1%}", "86%"),
    (f"{RATE} changes/s, UDP", lambda f: _spread(f.churn_of_udp), ""),
    ("  share of a CPU", lambda f: f"{f.churn_of_udp.cpu:.1%}", ""),
    ("a change while all is compared", lambda f: _spread(f.during_checks), ""),
    ("nft flush ruleset, until repaired", lambda f: seconds(f.repair), ""),
    ("peak memory: a start", lambda f: megabytes(f.cold.peak), "201 MB, nft 208 MB"),
    ("peak memory: all of this", lambda f: megabytes(f.peak), "525 MB with nft"),
    ("its child, which tries the rules", lambda f: megabytes(f.skeleton_probe), ""),
    ("others, just before: CPUs", lambda f: f"{f.others:.1f}", ""),
    ("  listeners", lambda f: str(f.listeners), ""),
)
NOTES = (
    "From the event as the API server's double sends it (or, of a real one, as another client gets it) to "
    "the element in the kernel, seen by a listener of its own; starts are medians of 3, a flush's repair is "
    "the longest of 3. The column of kube-proxy was measured elsewhere: with a real API server, on another "
    "machine of this kind. Listeners: others that are told of each commit to nftables, which makes large "
    "ones several times as long."
)


def report(results: Sequence[Figures], machine: str) -> Group:
    """Everything, ready to be printed."""
    table = Table("services, 3 endpoints each", title="kproxy run, following an API server")
    for figures in results:
        table.add_column(f"{figures.services:,}", justify="right")
    table.add_column("kube-proxy 1.36\n10,000, elsewhere", justify="right", style="dim")
    for name, show, elsewhere in ROWS:
        table.add_row(name, *(show(figures) for figures in results), elsewhere)
    return Group(table, Text(f"{machine}. {NOTES}", style="dim"), *_verdicts(results))


def _verdicts(results: Sequence[Figures]) -> list[Text]:
    """The promises, and whether they are kept."""
    lines = []
    for figures in results:
        limits = LIMITS.get(figures.services)
        if limits is None:
            continue
        for name, value, limit, show in (
            ("cold start", figures.cold.seconds, limits.cold, seconds),
            ("endpoint replaced, p99", figures.replaced.p99, limits.change, seconds),
            ("endpoint added or removed, p99", figures.resized.p99, limits.change, seconds),
            (f"{RATE} changes/s, p99", figures.churn.p99, limits.change, seconds),
            ("peak memory", float(figures.peak), limits.peak, megabytes),
            ("flush repaired", figures.repair, limits.repair, seconds),
        ):
            if limit is not None:
                mark, style = ("reached", "green") if value <= limit else ("NOT REACHED", "bold red")
                text = f"{name} at {figures.services:,}: {show(value)}, target {show(limit)}: "
                lines.append(Text.assemble(text, (mark, style)))
    return lines

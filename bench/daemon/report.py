"""The results as a readable table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.daemon.measures import RATE, Figures, Spread
from bench.report import megabytes, seconds


class Limits(NamedTuple):
    """The targets with one number of Services, in seconds and bytes."""

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
    ("start, until everything is in the kernel", lambda f: seconds(f.cold.seconds), "37 s"),
    ("  CPU, until ready", lambda f: seconds(f.cold.cpu), "37 s"),
    ("restart, until everything is compared", lambda f: seconds(f.restart.seconds), "90 s"),
    ("  CPU", lambda f: seconds(f.restart.cpu), ""),
    ("endpoint replaced, p50 / p99", lambda f: _spread(f.replaced), "4.1 s / -"),
    ("endpoint added or removed", lambda f: _spread(f.resized), ""),
    (f"{RATE} changes per second", lambda f: _spread(f.churn), "8.1 s / 10.9 s"),
    ("  share of a CPU", lambda f: f"{f.churn.cpu:.1%}", "86%"),
    (f"{RATE} changes per second, UDP", lambda f: _spread(f.churn_of_udp), ""),
    ("  share of a CPU", lambda f: f"{f.churn_of_udp.cpu:.1%}", ""),
    ("a change during a full comparison", lambda f: _spread(f.during_checks), ""),
    ("nft flush ruleset, until repaired", lambda f: seconds(f.repair), ""),
    ("peak memory: start", lambda f: megabytes(f.cold.peak), "201 MB, nft 208 MB"),
    ("peak memory: all measurements", lambda f: megabytes(f.peak), "525 MB with nft"),
    ("CPUs used by other processes", lambda f: f"{f.others:.1f}", ""),
    ("listeners of other programs", lambda f: str(f.listeners), ""),
)
NOTES = (
    "Times start when the double of the API server sends the event (with a real server: when another client "
    "receives it), and end when a separate listener sees the element in the kernel. Starts are medians of 3; "
    "a repair is the longest of 3. The figures of kube-proxy were measured separately, with a real API "
    "server, on another machine of this kind. Listeners receive each commit to nftables, which makes large "
    "ones take several times as long."
)


def report(results: Sequence[Figures], machine: str) -> Group:
    """Return the printable report."""
    table = Table("Services with 3 endpoints each", title="kproxy run, following an API server")
    for figures in results:
        table.add_column(f"{figures.services:,}", justify="right")
    table.add_column("kube-proxy 1.36\n10,000, elsewhere", justify="right", style="dim")
    for name, show, elsewhere in ROWS:
        table.add_row(name, *(show(figures) for figures in results), elsewhere)
    return Group(table, Text(f"{machine}. {NOTES}", style="dim"), *_verdicts(results))


def _verdicts(results: Sequence[Figures]) -> list[Text]:
    """Return the targets, and whether they are reached."""
    lines = []
    for figures in results:
        limits = LIMITS.get(figures.services)
        if limits is None:
            continue
        for name, value, limit, show in (
            ("cold start", figures.cold.seconds, limits.cold, seconds),
            ("endpoint replaced, p99", figures.replaced.p99, limits.change, seconds),
            ("endpoint added or removed, p99", figures.resized.p99, limits.change, seconds),
            (f"{RATE} changes per second, p99", figures.churn.p99, limits.change, seconds),
            ("peak memory", float(figures.peak), limits.peak, megabytes),
            ("ruleset repaired", figures.repair, limits.repair, seconds),
        ):
            if limit is not None:
                mark, style = ("reached", "green") if value <= limit else ("NOT REACHED", "bold red")
                text = f"{name} at {figures.services:,}: {show(value)}, target {show(limit)}: "
                lines.append(Text.assemble(text, (mark, style)))
    return lines

"""The results as a readable table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
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


def _share(value: float) -> str:
    return f"{value:.1%}"


def _number(value: float) -> str:
    return f"{value:.2g}"


Values = tuple[float, ...]


def _of(spread: Spread) -> Values:
    return spread.median, spread.p99


def _cpu(spread: Spread) -> Values:
    return spread.each, spread.kernel


ROWS: tuple[tuple[str, Callable[[Figures], Values], Callable[[float], str], str], ...] = (
    ("start, until everything is in the kernel", lambda f: (f.cold.seconds,), seconds, "37 s"),
    ("  CPU, until ready", lambda f: (f.cold.cpu,), seconds, "37 s"),
    ("restart, until everything is compared", lambda f: (f.restart.seconds,), seconds, "90 s"),
    ("  CPU", lambda f: (f.restart.cpu,), seconds, ""),
    ("endpoint replaced, p50 / p99", lambda f: _of(f.replaced), seconds, "4.1 s / -"),
    ("  CPU of each, the kernel's part", lambda f: _cpu(f.replaced), seconds, ""),
    ("endpoint added or removed", lambda f: _of(f.resized), seconds, ""),
    ("  CPU of each, the kernel's part", lambda f: _cpu(f.resized), seconds, ""),
    (f"{RATE} changes per second", lambda f: _of(f.churn), seconds, "8.1 s / 10.9 s"),
    ("  share of a CPU", lambda f: (f.churn.cpu,), _share, "86%"),
    (f"{RATE} changes per second, UDP", lambda f: _of(f.churn_of_udp), seconds, ""),
    ("  share of a CPU", lambda f: (f.churn_of_udp.cpu,), _share, ""),
    ("a change after SIGHUP, p50 / p99", lambda f: _of(f.during_checks), seconds, ""),
    ("a scrape of /metrics, p50 / p99", lambda f: _of(f.scrapes), seconds, ""),
    ("nft flush ruleset, until repaired", lambda f: (f.repair,), seconds, ""),
    ("peak memory: start", lambda f: (float(f.cold.peak),), megabytes, "201 MB, nft 208 MB"),
    ("peak memory: all measurements", lambda f: (float(f.peak),), megabytes, "525 MB with nft"),
    ("CPUs used by other processes", lambda f: (f.others,), _number, ""),
    ("listeners of other programs", lambda f: (float(f.listeners),), _number, ""),
)
MEASURED = len(ROWS) - 2
"""The rows before those that describe the machine."""
NOTES = (
    "Times start when the double of the API server sends the event (with a real server: when another client "
    "receives it), and end when a separate listener sees the element in the kernel. Starts are medians of 3; "
    "a repair is the longest of 3. The figures of kube-proxy were measured separately, with a real API "
    "server, on another machine of this kind. Listeners receive each commit to nftables, which makes large "
    "ones take several times as long."
)


def report(results: Sequence[Figures], machine: str) -> Group:
    """Return the printable report. Figures of another tree follow those of this one."""
    table = Table("Services with 3 endpoints each", title="kproxy run, following an API server")
    columns = [_column(figures) for figures in results]
    for one, other in pairwise(results):
        if other.tree and not one.tree:
            columns.insert(columns.index(_column(other)) + 1, _ratios(one, other))
    for head, *_ in columns:
        table.add_column(head, justify="right")
    table.add_column("kube-proxy 1.36\n10,000, elsewhere", justify="right", style="dim")
    for (name, _, _, elsewhere), *cells in zip(ROWS, *(cells for _, *cells in columns), strict=True):
        table.add_row(name, *cells, elsewhere)
    own = [figures for figures in results if not figures.tree]
    return Group(table, Text(f"{machine}. {NOTES}", style="dim"), *_verdicts(own))


def _column(figures: Figures) -> tuple[str, ...]:
    head = f"{figures.services:,}" + (f"\n{figures.tree}" if figures.tree else "")
    return head, *(" / ".join(map(show, values(figures))) for _, values, show, _ in ROWS)


def _ratios(one: Figures, other: Figures) -> tuple[str, ...]:
    """Return the column of the ratios of two measurements."""

    def ratio(values: Callable[[Figures], Values]) -> str:
        pairs = zip(values(one), values(other), strict=True)
        return " / ".join(f"{a / b:.2f}" if b else "-" for a, b in pairs)

    measured = (ratio(values) for _, values, _, _ in ROWS[:MEASURED])
    return "ratio", *measured, *[""] * (len(ROWS) - MEASURED)


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

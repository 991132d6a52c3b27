"""The results as a readable table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.daemon.measures import RATE, Figures, Peer, Spread
from bench.report import megabytes, seconds, verdict


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


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _number(value: float) -> str:
    return f"{value:.2g}"


Values = tuple[float, ...]
Column = tuple[str, ...]


def _of(spread: Spread) -> Values:
    return spread.median, spread.p99


def _itself(value: float) -> Values:
    return (float(value),)


def _cpu(spread: Spread) -> Values:
    return spread.each, spread.kernel


class Row(NamedTuple):
    """A line of the table."""

    name: str
    field: str
    """Of Figures, and perhaps of Peer."""
    values: Callable[[Any], Values]
    """Of the field."""
    show: Callable[[float], str]


ROWS = (
    Row("start, until everything is in the kernel", "cold", lambda start: (start.seconds,), seconds),
    Row("  CPU, until ready", "cold", lambda start: (start.cpu,), seconds),
    Row("restart, until everything is compared", "restart", lambda start: (start.seconds,), seconds),
    Row("  CPU", "restart", lambda start: (start.cpu,), seconds),
    Row("endpoint replaced, p50 / p99", "replaced", _of, seconds),
    Row("  CPU of each, the kernel's part", "replaced", _cpu, seconds),
    Row("endpoint added or removed", "resized", _of, seconds),
    Row("  CPU of each, the kernel's part", "resized", _cpu, seconds),
    Row(f"{RATE} changes per second", "churn", _of, seconds),
    Row("  share of a CPU", "churn", lambda spread: (spread.cpu,), _share),
    Row(f"{RATE} changes per second, UDP", "churn_of_udp", _of, seconds),
    Row("  share of a CPU", "churn_of_udp", lambda spread: (spread.cpu,), _share),
    Row("a change after SIGHUP, p50 / p99", "during_checks", _of, seconds),
    Row("a scrape of /metrics, p50 / p99", "scrapes", _of, seconds),
    Row("nft flush ruleset, until repaired", "repair", _itself, seconds),
    Row("peak memory: start", "cold", lambda start: (float(start.peak),), megabytes),
    Row("peak memory: all measurements", "peak", _itself, megabytes),
    Row("CPUs used by other processes", "others", _itself, _number),
    Row("listeners of other programs", "listeners", _itself, _number),
)
MEASURED = len(ROWS) - 2
"""The rows before those that describe the machine."""
NOTES = (
    "Times start when the double of the API server sends the event (with a real server: when another client "
    "receives it), and end when a separate listener sees the element in the kernel. Starts are medians of 3; "
    "a repair is the longest of 3. The CPU time and the memory of kube-proxy include those of nft. Listeners "
    "receive each commit to nftables, which makes large ones take several times as long."
)


def report(results: Sequence[Figures], machine: str) -> Group:
    """Return the printable report. Figures of another tree follow those of this one."""
    table = Table("Services with 3 endpoints each", title="kproxy run, following an API server")
    columns = [column for figures in results for column in _columns(figures)]
    for one, other in pairwise(results):
        if other.tree and not one.tree:
            columns.insert(columns.index(_column(_head(other), other)) + 1, _ratios("ratio", one, other))
    for head, *_ in columns:
        table.add_column(head, justify="right")
    for row, *cells in zip(ROWS, *(cells for _, *cells in columns), strict=True):
        table.add_row(row.name, *cells)
    own = [figures for figures in results if not figures.tree]
    return Group(table, Text(f"{machine}. {NOTES}", style="dim"), *_verdicts(own))


def _head(figures: Figures) -> str:
    return f"{figures.services:,}" + (f"\n{figures.tree}" if figures.tree else "")


def _columns(figures: Figures) -> Iterator[Column]:
    """Yield the column of kproxy, and those of kube-proxy and the ratios to it."""
    yield _column(_head(figures), figures)
    if figures.peer:
        yield _column(f"{figures.services:,}\nkube-proxy", figures.peer)
        yield _ratios("ratio to\nkube-proxy", figures, figures.peer)


def _column(head: str, figures: Figures | Peer) -> Column:
    def cell(row: Row) -> str:
        if not hasattr(figures, row.field):
            return ""
        return " / ".join(map(row.show, row.values(getattr(figures, row.field))))

    return head, *map(cell, ROWS)


def _ratios(head: str, one: Figures, other: Figures | Peer) -> Column:
    """Return the column of the ratios of two measurements."""

    def ratio(row: Row) -> str:
        if not hasattr(other, row.field):
            return ""
        pairs = zip(*(row.values(getattr(each, row.field)) for each in (one, other)), strict=True)
        return " / ".join(_ratio(a / b) if b else "-" for a, b in pairs)

    return head, *map(ratio, ROWS[:MEASURED]), *[""] * (len(ROWS) - MEASURED)


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
                lines.append(verdict(f"{name} at {figures.services:,}", value, limit, show))
    return lines

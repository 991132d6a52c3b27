"""The results as a readable table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.suite import Figures

AT = 10_000
"""The number of Services for which the targets apply."""

Row = tuple[str, Callable[[Figures], str]]


class Target(NamedTuple):
    """A target for `AT` Services."""

    name: str
    value: Callable[[Figures], float]
    limit: float
    show: Callable[[float], str]


def seconds(value: float) -> str:
    """Format seconds with at most three digits: `37.1 s`, `380 ms`, `0.41 ms`."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1000:.3g} ms"


def megabytes(value: float) -> str:
    """Format bytes: `81 MB`."""
    return f"{value / 1e6:,.0f} MB"


def ratio(value: float) -> str:
    """Format the peer's multiple of kproxy's figure: `52x`."""
    return f"{value:.2g}x" if value < 10 else f"{value:,.0f}x"


KPROXY: tuple[Row, ...] = (
    ("compile", lambda f: seconds(f.kproxy.compile)),
    ("first sync", lambda f: seconds(f.kproxy.first_sync)),
    ("first sync, YAML", lambda f: seconds(f.kproxy.first_sync_of_yaml)),
    ("sync, nothing changed", lambda f: seconds(f.kproxy.sync_without_change)),
    ("sync, one endpoint changed", lambda f: seconds(f.kproxy.sync_of_a_change)),
    ("in memory: endpoint replaced", lambda f: seconds(f.kproxy.endpoint_replaced.median)),
    ("  p99", lambda f: seconds(f.kproxy.endpoint_replaced.p99)),
    ("in memory: added or removed", lambda f: seconds(f.kproxy.endpoint_added_or_removed.median)),
    ("  p99", lambda f: seconds(f.kproxy.endpoint_added_or_removed.p99)),
    ("peak memory, first sync", lambda f: megabytes(f.kproxy.peak)),
    ("  YAML", lambda f: megabytes(f.kproxy.peak_of_yaml)),
    ("rules, chains", lambda f: f"{f.kproxy.held.rules:,}, {f.kproxy.held.chains:,}"),
)
PEER: tuple[Row, ...] = (
    ("load (nft -f)", lambda f: seconds(f.peer.load)),
    ("endpoint replaced (nft -f)", lambda f: seconds(f.peer.change)),
    ("  listing before it", lambda f: seconds(f.peer.listing)),
    ("peak memory of nft", lambda f: megabytes(f.peer.peak)),
    ("rules, chains", lambda f: f"{f.peer.held.rules:,}, {f.peer.held.chains:,}"),
)
RATIOS: tuple[Row, ...] = (
    ("load : first sync", lambda f: ratio(f.peer.load / f.kproxy.first_sync)),
    ("endpoint replaced : in memory", lambda f: ratio(f.peer.change / f.kproxy.endpoint_replaced.median)),
    ("peak memory", lambda f: ratio(f.peer.peak / f.kproxy.peak)),
    ("rules", lambda f: ratio(f.peer.held.rules / f.kproxy.held.rules)),
)
TARGETS = (
    Target("first sync, whole process", lambda f: f.kproxy.first_sync, 3.0, seconds),
    Target("endpoint replaced, median", lambda f: f.kproxy.endpoint_replaced.median, 0.010, seconds),
    Target("added or removed, median", lambda f: f.kproxy.endpoint_added_or_removed.median, 0.010, seconds),
    Target("peak memory, first sync", lambda f: f.kproxy.peak, 250e6, megabytes),
)
NOTES = (
    "Medians. Complete processes. Their input is a List of Services and EndpointSlices, in JSON unless "
    "marked YAML. In memory: from the new EndpointSlice as a value to the kernel's acknowledgement. The peer "
    "is only nft with a prepared script, which replaces one rule for a change; kube-proxy's own work is not "
    "included."
)


def report(results: Sequence[Figures], machine: str) -> Group:
    """Return the printable report."""
    return Group(_table(results), Text(f"{machine}. {NOTES}", style="dim"), *_verdicts(results))


def _table(results: Sequence[Figures]) -> Table:
    table = Table("Services with 3 endpoints each", title="kproxy, and kube-proxy 1.36's ruleset")
    for figures in results:
        table.add_column(f"{figures.services:,}", justify="right")
    for title, rows in (
        ("kproxy", KPROXY),
        ("kube-proxy 1.36's form", PEER),
        ("peer : kproxy", RATIOS),
    ):
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for name, show in rows:
            table.add_row(f"  {name}", *(show(figures) for figures in results))
    return table


def _verdicts(results: Sequence[Figures]) -> list[Text]:
    """Return the targets, and whether they are reached; nothing if `AT` was not measured."""
    lines = []
    for figures in results:
        for target in TARGETS if figures.services == AT else ():
            value = target.value(figures)
            lines.append(verdict(f"{target.name} at {AT:,}", value, target.limit, target.show))
    return lines


def verdict(name: str, value: float, limit: float, show: Callable[[float], str]) -> Text:
    """Return a line that says whether a value is at most its target."""
    mark, style = ("reached", "green") if value <= limit else ("NOT REACHED", "bold red")
    return Text.assemble(f"{name}: {show(value)}, target {show(limit)}: ", (mark, style))


def growth(results: Sequence[Figures]) -> str:
    """Return an error if the rules or chains depend on the number of Services, otherwise ""."""
    if len({figures.kproxy.held for figures in results}) <= 1:
        return ""
    counts = [f"{f.kproxy.held.rules}, {f.kproxy.held.chains} at {f.services:,}" for f in results]
    return "kproxy's rules and chains grow with the number of Services: " + "; ".join(counts)

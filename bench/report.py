"""Figures as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.suite import Figures

AT = 10_000
"""Services at which the targets hold."""

Row = tuple[str, Callable[[Figures], str]]


class Target(NamedTuple):
    """What kproxy promises at `AT` services."""

    name: str
    value: Callable[[Figures], float]
    limit: float
    show: Callable[[float], str]


def seconds(value: float) -> str:
    """`37.1 s`, `380 ms`, `0.41 ms`: three digits at most."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1000:.3g} ms"


def megabytes(value: float) -> str:
    """`81 MB`"""
    return f"{value / 1e6:,.0f} MB"


def ratio(value: float) -> str:
    """`52x`: how many times as much the peer takes."""
    return f"{value:.2g}x" if value < 10 else f"{value:,.0f}x"


KPROXY: tuple[Row, ...] = (
    ("compile", lambda f: seconds(f.kproxy.compile)),
    ("first sync", lambda f: seconds(f.kproxy.first_sync)),
    ("first sync, of YAML", lambda f: seconds(f.kproxy.first_sync_of_yaml)),
    ("sync, nothing changed", lambda f: seconds(f.kproxy.sync_without_change)),
    ("sync, one endpoint changed", lambda f: seconds(f.kproxy.sync_of_a_change)),
    ("in memory: endpoint replaced", lambda f: seconds(f.kproxy.endpoint_replaced.median)),
    ("  p99", lambda f: seconds(f.kproxy.endpoint_replaced.p99)),
    ("in memory: added or removed", lambda f: seconds(f.kproxy.endpoint_added_or_removed.median)),
    ("  p99", lambda f: seconds(f.kproxy.endpoint_added_or_removed.p99)),
    ("peak memory, first sync", lambda f: megabytes(f.kproxy.peak)),
    ("  of YAML", lambda f: megabytes(f.kproxy.peak_of_yaml)),
    ("rules, chains", lambda f: f"{f.kproxy.held.rules:,}, {f.kproxy.held.chains:,}"),
)
PEER: tuple[Row, ...] = (
    ("load (nft -f)", lambda f: seconds(f.peer.load)),
    ("endpoint replaced (nft -f)", lambda f: seconds(f.peer.change)),
    ("  listing that precedes it", lambda f: seconds(f.peer.listing)),
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
    "Medians. Whole processes; their input is one List of Services and EndpointSlices, JSON unless it says "
    "YAML. In memory: from the new EndpointSlice as a value to the kernel's acknowledgement. The peer is nft "
    "alone, given a finished script, which for a change replaces one rule; kube-proxy's own work is on top."
)


def report(results: Sequence[Figures], machine: str) -> Group:
    """Everything, ready to be printed."""
    return Group(_table(results), Text(f"{machine}. {NOTES}", style="dim"), *_verdicts(results))


def _table(results: Sequence[Figures]) -> Table:
    table = Table("services, 3 endpoints each", title="kproxy, and kube-proxy 1.36's ruleset")
    for figures in results:
        table.add_column(f"{figures.services:,}", justify="right")
    for title, rows in (
        ("kproxy", KPROXY),
        ("kube-proxy 1.36's shape", PEER),
        ("peer : kproxy", RATIOS),
    ):
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for name, show in rows:
            table.add_row(f"  {name}", *(show(figures) for figures in results))
    return table


def _verdicts(results: Sequence[Figures]) -> list[Text]:
    """The targets, and whether they are reached; none if nothing was measured at `AT`."""
    lines = []
    for figures in results:
        for target in TARGETS if figures.services == AT else ():
            value = target.value(figures)
            mark, style = ("reached", "green") if value <= target.limit else ("NOT REACHED", "bold red")
            text = f"{target.name} at {AT:,}: {target.show(value)}, target {target.show(target.limit)}: "
            lines.append(Text.assemble(text, (mark, style)))
    return lines


def growth(results: Sequence[Figures]) -> str:
    """What is wrong if rules or chains depend on the number of services, "" if they do not."""
    if len({figures.kproxy.held for figures in results}) <= 1:
        return ""
    counts = [f"{f.kproxy.held.rules}, {f.kproxy.held.chains} at {f.services:,}" for f in results]
    return "kproxy's rules and chains grow with the number of services: " + "; ".join(counts)

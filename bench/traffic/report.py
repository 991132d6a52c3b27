"""The results of routes as a readable table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles

from msgspec import Struct
from rich.console import Group
from rich.table import Table
from rich.text import Text


class Figures(Struct, frozen=True):
    """The values of a route, one for each round."""

    first_packet: list[float]
    """Seconds, to the same Service."""
    first_packets_in_turn: list[float]
    """Seconds, to all Services in turn."""
    connections: list[float]
    """Per second."""
    stream: list[float]
    """Bytes per second."""


COLUMNS: tuple[tuple[str, Callable[[Figures], list[float]], Callable[[float], str]], ...] = (
    ("first packet, one Service, µs", lambda f: f.first_packet, lambda v: f"{v * 1e6:.1f}"),
    ("all Services in turn, µs", lambda f: f.first_packets_in_turn, lambda v: f"{v * 1e6:.1f}"),
    ("connections/s", lambda f: f.connections, lambda v: f"{v:,.0f}"),
    ("one stream, Gbit/s", lambda f: f.stream, lambda v: f"{v * 8e-9:.1f}"),
)
NOTES = (
    "Medians of the rounds; below, their quartiles; after x, the median of the ratios to the first line in "
    "the same round. A first packet is a SYN to a closed port and the reset that answers it, there and back. "
    "Connections are those of one client, one after the other, in Python."
)


def report(figures: Mapping[str, Figures], machine: str) -> Group:
    """Return the printable report."""
    table = Table("", title="The cost for packets")
    for name, _, _ in COLUMNS:
        table.add_column(name, justify="right")
    base = next(iter(figures.values()))
    for name, route in figures.items():
        table.add_row(name, *(_cell(values(route), values(base), show) for _, values, show in COLUMNS))
    return Group(table, Text(f"{machine}. {NOTES}", style="dim"))


def _cell(values: Sequence[float], base: Sequence[float], show: Callable[[float], str]) -> str:
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    times = median(value / first for value, first in zip(values, base, strict=True))
    return f"{show(median(values))}, x {times:.2f}\n{show(low)} - {show(high)}"

"""Connections as plain tables and as JSON, for pipes and scripts. docs/connections.md has the fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kproxy.model import NamespacedName
from kproxy.show.tables import NONE, table
from kproxy.traffic.core.screen import COLUMNS, number
from kproxy.traffic.core.tally import Row, Tally

UNCOUNTED = "New connections are not counted by endpoint (--max-endpoint-counters)."


def services_text(tally: Tally, names: Iterable[NamespacedName]) -> str:
    """Return a table of these Services."""
    return table([("SERVICE", *_titles()), *(_cells(tally.row(name)) for name in names)])


def services_json(tally: Tally, names: Iterable[NamespacedName]) -> dict[str, Any]:
    """Return these Services, and the totals of all, as JSON."""
    return {
        "seconds": round(tally.seconds, 3),
        "liveComplete": bool(tally.live and tally.live.complete),
        "totals": _numbers(tally.total()),
        "services": [service_json(tally, name) for name in names],
    }


def service_json(tally: Tally, name: NamespacedName) -> dict[str, Any]:
    """Return one Service as JSON."""
    reasons = {str(reason): count for reason, count in tally.reasons(name).items()}
    identity = {"namespace": name.namespace, "name": name.name}
    return {**identity, **_numbers(tally.row(name)), "refusedByReason": reasons}


def connections_text(tally: Tally, name: NamespacedName) -> str:
    """Return the connections of one Service: a row for each endpoint, their sum, and what was refused."""
    titles = ("ENDPOINT", *_titles()[:4])
    endpoints = tally.endpoints(name)
    rows = [_cells(row)[:5] for row in endpoints]
    uncounted = f"\n{UNCOUNTED}\n" if any(row.new is None for row in endpoints) else ""
    total = ("all", *_cells(tally.row(name))[1:5])
    refused = [(f"  {reason}", number(count)) for reason, count in tally.reasons(name).items()]
    per_second = number(tally.refused_rates.get(name, 0.0), is_rate=True)
    refusals = f"Refused: {tally.refused[name]:,}, {per_second}/s\n{table(refused)}"
    return f"Service: {name}\n\n{table([titles, *rows, total])}{uncounted}\n{refusals}"


def connections_json(tally: Tally, name: NamespacedName) -> dict[str, Any]:
    """Return the connections of one Service with its endpoints as JSON."""
    endpoints = [
        {"endpoint": row.name, **{key: value for key, value in _numbers(row).items() if "efused" not in key}}
        for row in tally.endpoints(name)
    ]
    complete = bool(tally.live and tally.live.complete)
    seconds = {"seconds": round(tally.seconds, 3), "liveComplete": complete}
    return {**seconds, **service_json(tally, name), "endpoints": endpoints}


def _titles() -> tuple[str, ...]:
    return tuple(column.title for column in COLUMNS)


def _cells(row: Row) -> tuple[str, ...]:
    return (row.name or NONE, *(number(column.value(row), column.is_rate) for column in COLUMNS))


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "newPerSecond": None if row.new_rate is None else round(row.new_rate, 3),
        "new": row.new,
        "live": row.live.connections if row.live else None,
        "unanswered": row.live.unanswered if row.live else None,
        "refusedPerSecond": round(row.refused_rate, 3),
        "refused": row.refused,
    }

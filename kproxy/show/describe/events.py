"""Shows events as `kubectl describe` does. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kproxy.model import Event
from kproxy.show.describe.context import section
from kproxy.show.tables import NONE, duration, table

TITLES = ("Type", "Reason", "Age", "From", "Message")
FROM = "kproxy"


def event_table(events: Iterable[Event], now: float) -> str:
    """Return a table of the events, the last one at the end; "" if there are none."""
    rows = [
        ("Warning" if event.is_warning else "Normal", event.reason, _age(event, now), FROM, event.message)
        for event in sorted(events, key=lambda event: event.last)
    ]
    return table([TITLES, tuple("-" * len(title) for title in TITLES), *rows], gap=2) if rows else ""


def events_section(content: str) -> str:
    """Return the section of a description that contains `content`."""
    return section("Events", content) if content else f"Events:  {NONE}\n"


def _age(event: Event, now: float) -> str:
    """Return for example `98s (x61 over 11m)`: time since the last event, and count since the first."""
    last = duration(max(0, int(now - event.last)))
    return last if event.count == 1 else f"{last} (x{event.count} over {duration(int(now - event.first))})"

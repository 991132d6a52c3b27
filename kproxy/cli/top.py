"""`kproxy top`: show the connections of all Services while they change. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from kproxy.cli.output import write_json, write_text
from kproxy.settings.settings import Origin, Settings
from kproxy.traffic.core.screen import View, ordered
from kproxy.traffic.core.views import services_json, services_text
from kproxy.traffic.reader import Reader


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    one_namespace = settings.origin("namespace") is not Origin.DEFAULT
    reader, view = Reader(), View(namespace=settings.namespace if one_namespace else "")
    if not settings.once and not settings.output:
        from kproxy.traffic.terminal import is_interactive, show  # rich is needed for nothing else

        if is_interactive():
            with suppress(KeyboardInterrupt):  # Ctrl-C is a usual way to end it
                show(reader, settings.interval, view)
            return 0
    read_twice(reader, settings.interval)
    reader.live()
    tally = reader.tally
    names = ordered(tally, view, len(tally.names))
    if settings.output == "json":
        write_json(services_json(tally, names))
    else:
        write_text(services_text(tally, names))
    return 0


def read_twice(reader: Reader, interval: float) -> None:
    """Read the counters twice, because a rate needs two readings."""
    reader.counters()
    time.sleep(interval)
    reader.counters()

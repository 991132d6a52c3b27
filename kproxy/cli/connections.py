"""`kproxy connections`: show the connections of one Service by endpoint. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import write_json, write_text
from kproxy.cli.top import read_twice
from kproxy.explain.question import service_name
from kproxy.problems import KproxyError
from kproxy.settings.settings import Settings
from kproxy.traffic.core.views import connections_json, connections_text
from kproxy.traffic.reader import Reader


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    name = service_name("".join(operands), settings.namespace)
    reader = Reader()
    reader.counters()
    if name not in reader.tally.names:
        raise KproxyError(
            f"Service {name} has no frontends in the tables of this node.",
            "kproxy describe svc says why. -n sets the namespace.",
        )
    reader.endpoints(name)
    read_twice(reader, settings.interval)
    reader.endpoints(name)
    reader.live(name)
    if settings.output == "json":
        write_json(connections_json(reader.tally, name))
    else:
        write_text(connections_text(reader.tally, name))
    return 0

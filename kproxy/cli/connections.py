"""`kproxy connections`: show the connections of one Service by endpoint. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kproxy.cli.output import write, write_text
from kproxy.cli.top import read_twice
from kproxy.model import NamespacedName
from kproxy.problems import CommandLineError, KproxyError
from kproxy.settings.settings import Settings
from kproxy.traffic.core.views import connections_json, connections_text
from kproxy.traffic.reader import Reader


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    if settings.output not in ("", "json"):
        raise CommandLineError(f"--output: connections prints text or json, not {settings.output}.")
    namespace, _, own = "".join(operands).rpartition("/")
    name = NamespacedName(namespace or settings.namespace, own)
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
        write(json.dumps(connections_json(reader.tally, name), indent=4) + "\n")
    else:
        write_text(connections_text(reader.tally, name))
    return 0

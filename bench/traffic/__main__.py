"""`python -m bench.traffic`: measure, and print the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench.arguments import Arguments
from bench.process import exits_with_status
from bench.suite import machine, publish
from bench.traffic.measures import connections, first_packets, sinks, stream
from bench.traffic.report import Figures, report
from bench.traffic.setups import KPROXY, NOTHING, PEER, Route, make_setup, routes

SERVICES = (10, 10_000)
ROUNDS = 15
WIDTH = 120


def measure_all(counts: tuple[int, ...], rounds: int, console: Console) -> dict[str, Figures]:
    """Measure everything on all routes, `rounds` times."""
    with TemporaryDirectory(prefix="kproxy-bench-") as folder, ExitStack() as up:
        setups = []
        for rules, count in [(NOTHING, 0), *((rules, count) for rules in (KPROXY, PEER) for count in counts)]:
            console.print(f"{rules}, {count:,} Services: load")
            setups.append(up.enter_context(make_setup(rules, count, Path(folder))))
        every = [route for made in setups for route in routes(made)]

        def in_turn(what: str, measure: Callable[[Route], float]) -> list[list[float]]:
            """Return the values of each route, one per round. A round before the first warms up caches."""
            console.print(f"{what}: {rounds} rounds")
            values = [[measure(route) for route in every] for _ in range(rounds + 1)]
            return [list(own) for own in zip(*values[1:], strict=True)]

        found = [
            in_turn("first packets, one Service", lambda route: first_packets(route, route.one)),
            in_turn("first packets, all Services in turn", lambda route: first_packets(route, route.all)),
        ]
        with sinks(setups):
            found += [in_turn("connections", connections), in_turn("one stream", stream)]
        return {route.name: Figures(*values) for route, *values in zip(every, *found, strict=True)}


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.traffic", __doc__)
    parser.number("--rounds", ROUNDS)
    parser.numbers("--services", SERVICES)
    parser.json()
    arguments = parser.parsed_by_root()
    with exits_with_status():
        figures = measure_all(arguments.services, arguments.rounds, Console(stderr=True))
    publish(report(figures, machine()), WIDTH, arguments.json, routes=figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())

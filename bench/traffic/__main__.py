"""`python -m bench.traffic`: measure, print the table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from rich.console import Console

from bench.process import Failed
from bench.suite import machine
from bench.traffic.measures import connections, first_packets, sinks, stream
from bench.traffic.report import Figures, report
from bench.traffic.roads import KPROXY, NOTHING, PEER, Lane, lanes, road

SERVICES = (10, 10_000)
ROUNDS = 15
WIDTH = 120


def measure_all(counts: tuple[int, ...], rounds: int, console: Console) -> dict[str, Figures]:
    """Everything on every lane, so many times."""
    with TemporaryDirectory(prefix="kproxy-bench-") as folder, ExitStack() as up:
        roads = []
        for rules, count in [(NOTHING, 0), *((rules, count) for rules in (KPROXY, PEER) for count in counts)]:
            console.print(f"{rules}, {count:,} services: loading")
            roads.append(up.enter_context(road(rules, count, Path(folder))))
        every = [lane for made in roads for lane in lanes(made)]

        def in_turn(what: str, measure: Callable[[Lane], float]) -> list[list[float]]:
            """The values of each lane, one per round; the round before the first only makes all warm."""
            console.print(f"{what}: {rounds} rounds")
            values = [[measure(lane) for lane in every] for _ in range(rounds + 1)]
            return [list(own) for own in zip(*values[1:], strict=True)]

        found = [
            in_turn("first packets, same service", lambda lane: first_packets(lane, lane.one)),
            in_turn("first packets, all services in turn", lambda lane: first_packets(lane, lane.all)),
        ]
        with sinks(roads):
            found += [in_turn("connections", connections), in_turn("one stream", stream)]
        return {lane.name: Figures(*values) for lane, *values in zip(every, *found, strict=True)}


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.traffic", description=__doc__)
    parser.add_argument("--rounds", metavar="N", type=int, default=ROUNDS)
    parser.add_argument(
        "--services", metavar="N[,N...]", type=lambda text: tuple(map(int, text.split(","))), default=SERVICES
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every single value there, too")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("network namespaces and nftables need root")
    try:
        figures = measure_all(arguments.services, arguments.rounds, Console(stderr=True))
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        return 130
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(report(figures, machine()))
    if arguments.json:
        content = msgspec.json.encode({"machine": machine(), "lanes": figures})
        arguments.json.write_bytes(msgspec.json.format(content) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

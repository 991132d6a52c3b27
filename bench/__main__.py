"""`python -m bench`: measure, print the table; exit 1 if kproxy's rules grow with the services."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.process import Failed
from bench.profiling import profile_first_sync
from bench.report import growth, report
from bench.suite import STEPS, Figures, machine, measure

SERVICES = (100, 1_000, 10_000)


def numbers(text: str) -> tuple[int, ...]:
    """`100,1000`"""
    return tuple(sorted({int(part) for part in text.split(",")}))


def measure_all(counts: tuple[int, ...]) -> list[Figures]:
    """Measure at each number of services, and show on standard error what is being done."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(24), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=STEPS * len(counts))

        def say(count: int, what: str) -> None:
            text = f"{count:,} services: {what}"
            progress.update(task, advance=1, description=text)
            if not console.is_terminal:
                console.print(text)

        results: list[Figures] = []
        for count in counts:
            results.append(measure(count, partial(say, count)))
            progress.update(task, completed=STEPS * len(results))
        return results


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--services", metavar="N[,N...]", type=numbers, default=SERVICES)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument(
        "--profile", metavar="N", type=int, help="instead: cProfile of a first sync of N services"
    )
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("network namespaces and nftables need root")
    if arguments.profile:
        profile_first_sync(arguments.profile)
        return 0
    try:
        results = measure_all(arguments.services)
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        return 130
    Console().print(report(results, machine()))
    if arguments.json:
        content = msgspec.json.encode({"machine": machine(), "results": results})
        arguments.json.write_bytes(msgspec.json.format(content) + b"\n")
    if wrong := growth(results):
        sys.exit(f"bench: {wrong}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

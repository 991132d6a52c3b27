"""`python -m bench`: measure, and print the table. Exit status 1 if the rules grow with the Services."""

from __future__ import annotations

import sys
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.arguments import Arguments
from bench.process import exits_with_status
from bench.profiling import profile_first_sync
from bench.report import growth, report
from bench.suite import STEPS, Figures, machine, measure, publish

SERVICES = (100, 1_000, 10_000)


def measure_all(counts: tuple[int, ...]) -> list[Figures]:
    """Measure with each number of Services. Shows the progress on standard error."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(24), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=STEPS * len(counts))

        def say(count: int, what: str) -> None:
            text = f"{count:,} Services: {what}"
            progress.update(task, advance=1, description=text)
            if not console.is_terminal:
                console.print(text)

        results: list[Figures] = []
        for count in counts:
            results.append(measure(count, partial(say, count)))
            progress.update(task, completed=STEPS * len(results))
        return results


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench", __doc__)
    parser.numbers("--services", SERVICES)
    parser.json()
    parser.number("--profile", 0, "only print a cProfile of the first sync of N Services")
    arguments = parser.parsed_by_root()
    if arguments.profile:
        profile_first_sync(arguments.profile)
        return 0
    with exits_with_status():
        results = measure_all(arguments.services)
    publish(report(results, machine()), 0, arguments.json, results=results)
    if wrong := growth(results):
        sys.exit(f"bench: {wrong}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

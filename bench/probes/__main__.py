"""`python -m bench.probes`: measure, and print the table."""

from __future__ import annotations

from functools import partial

from netns_lab.netns import in_fresh_namespace
from rich.console import Console
from rich.table import Table

import bench.probes
from bench.arguments import Arguments
from bench.probes import whole
from bench.probes.measures import FAILING, PERIOD, Figures, many_files, run
from bench.process import exits_with_status


def report(results: list[Figures], count: int) -> Table:
    """Return a readable table."""
    rate = count / PERIOD
    table = Table(title=f"{count:,} pods, a probe of each every {PERIOD} s: {rate:g} probes per second")
    columns = ("", "CPU", "per probe", "commands", "detected", "maximum", "never")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for figures in results:
        delays = figures.delays or [float("nan")]
        table.add_row(
            figures.name,
            f"{figures.own:.1%}",
            f"{figures.own / rate * 1000:.2f} ms",
            f"{figures.children:.1%}" if figures.children > 0.001 else "",
            *(f"{delays[min(int(len(delays) * share), len(delays) - 1)]:.1f} s" for share in (0.5, 1)),
            str(FAILING - len(figures.delays)),
        )
    return table


def main() -> None:
    """Measure, and print the table."""
    parser = Arguments("bench.probes", bench.probes.__doc__)
    parser.number("--pods", 1000)
    parser.seconds("--seconds", 30, "duration of each run")
    arguments = parser.parsed_by_root()
    if not 2 * FAILING <= arguments.pods <= 20_000:
        parser.error(f"--pods must be from {2 * FAILING} to 20000")
    many_files()
    runs = [
        ("httpGet", "httpGet", 0),
        (f"httpGet, {FAILING} hang", "httpGet", FAILING),
        ("tcpSocket", "tcpSocket", 0),
        ("exec", "exec", 0),
    ]
    console = Console(stderr=True)
    results = []
    with exits_with_status():
        for name, kind, hanging in runs:
            console.print(f"{name} ...")
            results.append(run(name, kind, arguments.pods, hanging, arguments.seconds))
        console.print("httpGet, kproxy run ...")
        complete = partial(whole.run, "kproxy run", arguments.pods, arguments.seconds)
        results.append(in_fresh_namespace(complete))
    Console().print(report(results, arguments.pods))


if __name__ == "__main__":
    main()

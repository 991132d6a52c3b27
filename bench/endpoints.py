"""`python -m bench.endpoints`: the cost of `kproxy sync` for Services with many endpoints.

The input is a folder of ten files, which are written before the measurement. It is measured twice: with all
endpoints on other nodes, as on a node of a cluster, and without names of nodes, as in files written by hand.
Each sync is a process in a new network namespace. With `--against`, the kproxy of another source folder
syncs the same files in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from msgspec import Struct
from netns_lab.netns import in_fresh_namespace
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.arguments import Arguments
from bench.manifests import as_json, manifests
from bench.process import Run, exits_with_status, run
from bench.report import megabytes, seconds
from bench.samples import CLUSTER_CIDR, SERVICE_CIDR, Endpoint, Sample, samples
from bench.suite import machine, publish

SERVICES, ENDPOINTS, ROUNDS, FILES = 5_000, 50, 3, 10
FORMS = {"on other nodes": True, "nodes unknown": False}


class Figures(Struct, frozen=True):
    """The medians of a number of syncs into an empty namespace."""

    form: str
    """A key of `FORMS`."""
    tree: str
    """The source folder of kproxy; "" for this one."""
    seconds: float
    cpu: float
    kernel: float
    """The part of `cpu` that the kernel used."""
    peak: int
    """Bytes."""


def write(folder: Path, services: Sequence[Sample], with_nodes: bool) -> None:
    """Write the manifests of the Services to files of about equal size."""
    folder.mkdir()
    for number in range(FILES):
        part = services[number::FILES]
        content = manifests(part if with_nodes else map(_without_nodes, part))
        (folder / f"{number}.json").write_text(as_json(content))


def _without_nodes(sample: Sample) -> Sample:
    return sample._replace(endpoints=tuple(Endpoint(each.address, "") for each in sample.endpoints))


def sync(folder: Path, tree: Path | None) -> Run:
    """Sync a folder of manifests into a new network namespace, with no state from before."""
    python = str(tree / ".venv/bin/python") if tree else sys.executable
    with TemporaryDirectory(prefix="kproxy-bench-") as state:
        command = [python, "-m", "kproxy", "sync", "--filename", str(folder), "--state-dir", state]
        command += [
            "--node-name",
            "this-node",
            "--cluster-cidr",
            CLUSTER_CIDR,
            "--service-cidr",
            SERVICE_CIDR,
        ]
        return in_fresh_namespace(partial(run, *command, cwd=tree))


def measure(services: int, endpoints: int, rounds: int, trees: Sequence[Path | None]) -> Iterator[Figures]:
    """Yield the figures of each form and tree. The trees take turns."""
    every = list(samples(services, endpoints))
    for form, with_nodes in FORMS.items():
        with TemporaryDirectory(prefix="kproxy-bench-") as name:
            folder = Path(name) / "manifests"
            write(folder, every, with_nodes)
            runs: dict[Path | None, list[Run]] = {tree: [] for tree in trees}
            for tree in rounds * list(trees):
                runs[tree].append(sync(folder, tree))
        for tree, found in runs.items():
            middle = Run(*map(median, zip(*found, strict=True)))
            yield Figures(form, str(tree or ""), middle.seconds, middle.cpu, middle.kernel, int(middle.peak))


def report(results: Sequence[Figures], title: str, machine: str) -> Group:
    """Return the printable report."""
    table = Table("kproxy sync", "kproxy of", "time", "CPU", "in the kernel", "peak memory", title=title)
    for each in results:
        times = map(seconds, (each.seconds, each.cpu, each.kernel))
        table.add_row(each.form, each.tree or "this folder", *times, megabytes(each.peak))
    return Group(table, Text(f"{machine}. Medians.", style="dim"))


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.endpoints", __doc__)
    parser.number("--services", SERVICES)
    parser.number("--endpoints", ENDPOINTS, "of each Service")
    parser.number("--rounds", ROUNDS)
    parser.against()
    parser.json()
    asked = parser.parsed_by_root()
    trees = (None, asked.against) if asked.against else (None,)
    with exits_with_status():
        results = list(measure(asked.services, asked.endpoints, asked.rounds, trees))
    title = f"{asked.services:,} Services with {asked.endpoints} endpoints each"
    publish(report(results, title, machine()), 0, asked.json, title=title, results=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

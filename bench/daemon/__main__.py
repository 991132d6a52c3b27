"""`python -m bench.daemon`: measure, and print the table."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from netns_lab.netns import in_fresh_namespace
from rich.console import Console

from bench.__main__ import numbers
from bench.daemon.measures import Figures, measure
from bench.daemon.real import serving_real
from bench.daemon.report import report
from bench.daemon.server import serving
from bench.process import exits_with_status, parsed_by_root
from bench.suite import machine, publish

SERVICES = (1_000, 10_000)
SECONDS = 60.0
WIDTH = 120


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon", description=__doc__)
    parser.add_argument("--services", metavar="N[,N...]", type=numbers, default=SERVICES)
    parser.add_argument(
        "--seconds", metavar="S", type=float, default=SECONDS, help="duration of 20 changes per second"
    )
    parser.add_argument(
        "--assets", metavar="DIR", type=Path, help="use the kube-apiserver and etcd in this folder"
    )
    parser.add_argument(
        "--against", metavar="DIR", type=Path, help="also measure the kproxy of another source folder"
    )
    parser.add_argument(
        "--kube-proxy", metavar="FILE", type=Path, help="also measure this kube-proxy, in the same run"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to a file")
    arguments = parsed_by_root(parser)
    errors = Console(stderr=True)
    sys.setswitchinterval(0.0005)  # threads record the times
    server = partial(serving_real, arguments.assets) if arguments.assets else serving
    results: list[Figures] = []
    with exits_with_status():
        for count in arguments.services:
            for tree in (None, arguments.against) if arguments.against else (None,):
                say = partial(errors.print, f"{count:,} Services{f' ({tree})' if tree else ''}:")
                peer = None if tree else arguments.kube_proxy
                job = partial(measure, server, count, arguments.seconds, say, tree, peer)
                results.append(in_fresh_namespace(job))
    publish(report(results, machine()), WIDTH, arguments.json, results=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.daemon`: measure, print the table."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from bench.__main__ import numbers
from bench.daemon.measures import Figures, measure
from bench.daemon.real import serving_really
from bench.daemon.report import report
from bench.daemon.server import serving
from bench.process import Failed, in_fresh_namespace
from bench.suite import machine

SERVICES = (1_000, 10_000)
SECONDS = 60.0
WIDTH = 120


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon", description=__doc__)
    parser.add_argument("--services", metavar="N[,N...]", type=numbers, default=SERVICES)
    parser.add_argument(
        "--seconds", metavar="S", type=float, default=SECONDS, help="how long 20 changes a second come"
    )
    parser.add_argument(
        "--assets", metavar="DIR", type=Path, help="with the kube-apiserver and etcd that are there"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("network namespaces and nftables need root")
    errors = Console(stderr=True)
    sys.setswitchinterval(0.0005)  # those who note the time are threads
    server = partial(serving_really, arguments.assets) if arguments.assets else serving
    results: list[Figures] = []
    try:
        for count in arguments.services:
            say = partial(errors.print, f"{count:,} services:")
            results.append(in_fresh_namespace(partial(measure, server, count, arguments.seconds, say)))
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        return 130
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(report(results, machine()))
    if arguments.json:
        content = msgspec.json.encode({"machine": machine(), "results": results})
        arguments.json.write_bytes(msgspec.json.format(content) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.daemon`: measure, and print the table."""

from __future__ import annotations

import sys
from functools import partial

from netns_lab.netns import in_fresh_namespace
from rich.console import Console

from bench.arguments import Arguments
from bench.daemon.measures import UDP_SERVICES, Figures, measure
from bench.daemon.real import serving_real
from bench.daemon.report import report
from bench.daemon.server import serving
from bench.process import exits_with_status
from bench.suite import machine, publish

SERVICES = (1_000, 10_000)
SECONDS = 60.0
WIDTH = 120


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.daemon", __doc__)
    parser.numbers("--services", SERVICES)
    parser.seconds("--seconds", SECONDS, "duration of 20 changes per second")
    parser.path("--assets", "DIR", "use the kube-apiserver and etcd in this folder")
    parser.against()
    parser.path("--kube-proxy", "FILE", "also measure this kube-proxy, in the same run")
    parser.json()
    arguments = parser.parsed_by_root()
    if min(arguments.services) < UDP_SERVICES + 2:
        parser.error(f"--services must be at least {UDP_SERVICES + 2}: {UDP_SERVICES} are UDP Services")
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

"""`kproxy sync`: make the kernel's tables say what the manifests say, and print what changed."""

from __future__ import annotations

import argparse
import sys

from kproxy.cli import options
from kproxy.compile.elements import compile_frontends
from kproxy.kernel.dataplane import Dataplane
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink import Netlink
from kproxy.kernel.report import LINES, Report, lines, plural, summary
from kproxy.model import Family
from kproxy.problems import KproxyError
from kproxy.standalone.control_plane import resolve
from kproxy.standalone.store import Store


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "sync",
        help="program the services into the kernel, and print what changed",
        description="Make the kernel's nftables hold exactly the services of the manifests. What is "
        "right already is not touched; an object that is wrong is reported and left out, and what was "
        "programmed for it before stays.",
    )
    options.add_input(parser)
    options.add_dataplane(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every change, however many")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    require_root()
    store = Store(arguments.state_dir)
    with store.lock("sync"):  # around reading, too: of two syncs, the one that read last is to win
        decoded = options.read_input(arguments)
        chosen = options.dataplane_options(arguments, decoded.state)
        held = store.load()
        outcome = resolve(decoded, held, options.ranges(arguments), options.node(arguments, decoded.state))
        options.print_problems(outcome.problems)
        store.save(held, outcome.allocations)
        failures: list[KproxyError] = []
        reports: list[Report] = []
        with Netlink() as netlink:
            for family in Family:
                dataplane = Dataplane(netlink, family, chosen)
                desired = compile_frontends(outcome.frontends, family)
                try:
                    reports.append(dataplane.reconcile(desired, outcome.kept))
                except KproxyError as error:  # one family failing does not stop the other
                    failures.append(error)
    for line in lines(reports, None if arguments.verbose else LINES):
        print(line)
    for warning in (warning for report in reports for warning in report.warnings):
        print(f"kproxy: {warning}", file=sys.stderr)
    served = len({frontend.owner.service for frontend in outcome.frontends})
    print(f"{plural(served, 'service')}, {plural(len(outcome.frontends), 'frontend')}: {summary(reports)}")
    if decoded.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(decoded.ignored.items()))
        print(f"of no use to kproxy: {kinds}")
    if failures:
        raise failures[0]
    return 1 if outcome.problems else 0

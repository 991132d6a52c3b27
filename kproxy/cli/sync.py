"""`kproxy sync`: make the kernel's tables say what the manifests say, and print what changed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kproxy.cli import options
from kproxy.control.lookup import read_input
from kproxy.controlplane.settle import announced_by, resolve
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import Family, family_of
from kproxy.problems import KproxyError
from kproxy.reconcile.core.report import LINES, Report, lines, plural, summary
from kproxy.reconcile.dataplane import Dataplane
from kproxy.settings.derived import dataplane_options, pool_nodes, ranges
from kproxy.settings.settings import Settings
from kproxy.sources.node import find_node
from kproxy.state.store import Store
from kproxy.table.compile import compile_frontends


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "sync",
        help="program the services into the kernel, and print what changed",
        description="Make the kernel's nftables hold exactly the services of the manifests. What is "
        "right already is not touched; an object that is wrong is reported and left out, and what was "
        "programmed for it before stays. It needs root, nf_tables and libnftables; what is missing of "
        "these is named, and docs/hosts.md lists it.",
    )
    options.add_input(parser)
    options.add_dataplane(parser)
    options.add_uplink(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="print every change, however many")
    parser.set_defaults(run=run)


def run(chosen: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    require_root()
    nodes, uplink = pool_nodes(chosen), Uplink(chosen.load_balancer_interface or None)
    store = Store(Path(chosen.state_dir))
    with store.lock("sync"):  # around reading, too: of two syncs, the one that read last is to win
        decoded = read_input(chosen)
        rules = dataplane_options(chosen, decoded.state.nodes)
        held = store.load()
        node = find_node(chosen, decoded.state.nodes)
        outcome = resolve(decoded, held, ranges(chosen), node)
        options.print_problems((*outcome.problems, *outcome.warnings))
        store.save(held, outcome.allocations)
        here = announced_by(node.name, nodes, outcome)
        failures: list[KproxyError] = []
        reports: list[Report] = []
        # An address leaves before its service does, and comes after it: without the service, packets
        # to it would be for this node itself.
        left = uplink.withdraw(here.protected)
        with Netlink() as netlink:
            for family in Family:
                dataplane = Dataplane(netlink, family, rules)
                desired = compile_frontends(outcome.frontends, family)
                try:
                    reports.append(dataplane.reconcile(desired, outcome.protected))
                except KproxyError as error:  # one family failing does not stop the other
                    failures.append(error)
        served = {report.family for report in reports}
        came = AddressReport()
        try:
            came = uplink.show([address for address in here.own if family_of(address) in served])
        except KproxyError as error:
            failures.append(error)
    moved = left.changes + came.changes
    for line in (*lines(reports, None if chosen.verbose else LINES), *map(str, moved)):
        print(line)
    unreachable = left.warnings + came.warnings
    for warning in (*(warning for report in reports for warning in report.warnings), *unreachable):
        print(f"kproxy: {warning}", file=sys.stderr)
    count = len({frontend.owner.service for frontend in outcome.frontends})
    done = summary(reports, moved)
    print(f"{plural(count, 'service')}, {plural(len(outcome.frontends), 'frontend')}: {done}")
    if decoded.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(decoded.ignored.items()))
        print(f"of no use to kproxy: {kinds}")
    for failure in failures[1:]:
        print(f"kproxy: {failure.full}", file=sys.stderr)
    if failures:
        raise failures[0]
    return 1 if outcome.problems or unreachable else 0

"""`kproxy sync`: make the kernel's tables say what the manifests say, and print what changed."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable

from kproxy.cli import options
from kproxy.compile.elements import compile_frontends
from kproxy.kernel.dataplane import Dataplane, Report
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink import Netlink
from kproxy.model import Family, format_socket
from kproxy.nft.elements import frontend_address, frontend_protocol
from kproxy.nft.layout import Side
from kproxy.nft.plan import FrontendChange
from kproxy.problems import KproxyError
from kproxy.standalone.control_plane import resolve
from kproxy.standalone.store import Store

LINES = 40
"""Changes that are printed one by one without --verbose."""


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
    with store.lock():  # around reading, too: of two syncs, the one that read last is to win
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
    print_reports(reports, arguments.verbose)
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


def print_reports(reports: Iterable[Report], verbose: bool) -> None:
    """A line per change: `+` a new frontend, `-` one that went, `~` one whose endpoints are others.

    `!` is a chain or set that was not as it ought to be: options changed, or someone changed it.
    """
    lines = [f"! rewritten: {report.family} kproxy {name}" for report in reports for name in report.rewritten]
    changes = sorted(
        (change for report in reports for change in report.changes),
        key=lambda change: (change.comment, change.place.side.base, change.place.key),
    )
    shown = changes if verbose else changes[:LINES]
    for line in (*lines, *map(describe, shown)):
        print(line)
    if len(shown) < len(changes):
        print(f"... and {len(changes) - len(shown)} more (-v shows them)")


def plural(count: int, noun: str) -> str:
    """`1 service`, `2 services`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(reports: Iterable[Report]) -> str:
    """How much was changed, in the kernel's terms."""
    parts = [_part(report) for report in reports if report]
    return "; ".join(parts) if parts else "nothing to change"


def _part(report: Report) -> str:
    ended = f", {plural(report.ended, 'UDP flow')} ended" if report.ended else ""
    return f"{report.family}: {plural(report.added, 'element')} in, {report.removed} out{ended}"


def describe(change: FrontendChange) -> str:
    """One line for one frontend."""
    side = " (from outside)" if change.place.side is Side.OUTSIDE else ""
    name = f"{change.comment or 'unknown'} {_frontend(change.place.key)}{side}"
    if change.after is None:
        return f"- {name}"
    if change.before is None:
        return f"+ {name} -> {_endpoints(change.after)}"
    gone = sorted(set(change.before) - set(change.after))
    new = sorted(set(change.after) - set(change.before))
    moves = [f"-{_endpoint(value)}" for value in gone] + [f"+{_endpoint(value)}" for value in new]
    if not moves and Counter(change.before) != Counter(change.after):
        moves = ["other weights"]
    detail = f" ({' '.join(moves)})" if moves else ""
    return f"~ {name} -> {_endpoints(change.after)}{detail}"


def _frontend(key: bytes) -> str:
    port = int.from_bytes(key[-4:-2], "big")
    return f"{format_socket(frontend_address(key), port)}/{frontend_protocol(key)}"


def _endpoint(value: bytes) -> str:
    return format_socket(value[:-4], int.from_bytes(value[-4:-2], "big"))


def _endpoints(values: tuple[bytes, ...]) -> str:
    if not values:
        return "no endpoints"
    return plural(len(set(values)), "endpoint")

"""`kproxy sync`: make the kernel's tables say what the manifests say, and print what changed."""

from __future__ import annotations

import argparse
import logging
import sys

from kproxy.cli import options
from kproxy.reconcile.core.report import LINES
from kproxy.reconcile.sync import sync
from kproxy.settings.settings import Settings


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
    logging.basicConfig(format="kproxy: %(message)s")
    done = sync(chosen, options.print_problems)
    for line in done.lines(None if chosen.verbose else LINES):
        print(line)
    for complaint in done.complaints:
        print(f"kproxy: {complaint}", file=sys.stderr)
    return 0 if done.complete else 1

"""`kproxy run`: keep the kernel's tables true while manifests and pods change, until told to stop."""

from __future__ import annotations

import argparse

from kproxy.cli import options
from kproxy.kernel.host import require_root


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="keep the services programmed while manifests and pods change, until SIGTERM",
        description="Do what sync does, again whenever a manifest changes or a pod becomes ready or stops "
        "being so; probe the pods' readiness; put right what somebody else did to the tables. Ends with "
        "SIGTERM or Ctrl-C, and leaves the tables as they are. SIGHUP has everything looked at anew.",
    )
    group = parser.add_argument_group("input")
    group.add_argument(
        "--manifests",
        metavar="PATH",
        action="append",
        required=True,
        help="file or folder of YAML or JSON manifests to follow; may be given several times",
    )
    options.add_control_plane(group)
    options.add_probes(parser)
    options.add_dataplane(parser)
    group = parser.add_argument_group("daemon")
    group.add_argument(
        "--sync-period",
        metavar="SECONDS",
        type=options.seconds,
        default=300.0,
        help="compare the tables as a whole so often (default: 300); what others do to them is seen at once",
    )
    group.add_argument(
        "--min-sync-period",
        metavar="SECONDS",
        type=options.seconds,
        default=0.0,
        help="from one round of changes to the next (default: 0); those between are one round",
    )
    group.add_argument("-v", "--verbose", action="store_true", help="log every change, however many")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    from kproxy.cli.run_manifests import run_manifests  # what a daemon needs takes long to import

    require_root()
    return run_manifests(arguments)

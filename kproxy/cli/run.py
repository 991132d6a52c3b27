"""`kproxy run`: keep the kernel's tables true while services and pods change, until told to stop."""

from __future__ import annotations

import argparse
import sys

from kproxy.cli import daemon_options, options, uplink_options
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
    uplink_options.add_uplink(parser)
    daemon_options.add_daemon(parser)

    def defaults(arguments: argparse.Namespace) -> None:
        """Take over what a configuration file says; flags that are given win when they are parsed again."""
        if arguments.config:
            values, warnings = daemon_options.read_configuration(arguments.config)
            for warning in warnings:
                print(f"kproxy: {warning}", file=sys.stderr)
            parser.set_defaults(**values)

    parser.set_defaults(run=run, defaults=defaults)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    from kproxy.cli.run_manifests import run_manifests  # what a daemon needs takes long to import

    require_root()
    uplink_options.nodes(arguments)
    return run_manifests(arguments)

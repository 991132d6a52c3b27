"""`kproxy run`: keep the kernel's tables true while services and pods change, until told to stop."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kproxy.cli import daemon_options, options, uplink_options
from kproxy.kernel.host import require_root
from kproxy.problems import UsageError


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="keep the services programmed while manifests and pods change, until SIGTERM",
        description="Program the services and keep them programmed: those of a folder of manifests, with "
        "readiness probes and all else that sync does, or without --manifests those of a cluster, in "
        "kube-proxy's place; there, what is allocated, probed and announced is the cluster's concern. What "
        "somebody else does to the tables is put right. Ends with SIGTERM or Ctrl-C, and leaves the tables "
        "as they are. SIGHUP has everything compared anew.",
    )
    group = parser.add_argument_group("input")
    group.add_argument(
        "--manifests",
        metavar="PATH",
        action="append",
        help="file or folder of YAML or JSON manifests to follow; may be given several times",
    )
    group.add_argument(
        "--kubeconfig",
        metavar="FILE",
        type=Path,
        help="how to reach the API server (default: as a pod of the cluster does)",
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
    from kproxy.cli.run_daemon import run_daemon  # what a daemon needs takes long to import

    require_root()
    _check(arguments)
    return run_daemon(arguments)


def _check(arguments: argparse.Namespace) -> None:
    """UsageError for what is wrong whatever comes: it is not waited for."""
    uplink_options.nodes(arguments)
    if arguments.manifests and arguments.kubeconfig:
        raise UsageError("Services come from --manifests or from a cluster (--kubeconfig), not from both.")
    if not (arguments.manifests or arguments.kubeconfig or "KUBERNETES_SERVICE_HOST" in os.environ):
        raise UsageError("This is no pod: --manifests or --kubeconfig has to say what to follow.")
    if "-" in (arguments.manifests or ()):
        raise UsageError("--manifests cannot follow standard input: name files or folders.")
    if arguments.sync_period < 1:
        raise UsageError("--sync-period has to be a second at least.")
    options.ranges(arguments)
    if arguments.detect_local_mode != "NodeCIDR":  # which waits for its Node
        options.dataplane_options(arguments, {})

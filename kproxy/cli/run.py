"""`kproxy run`: keep the kernel's tables true while services and pods change, until told to stop."""

from __future__ import annotations

import argparse
import os

from kproxy.cli import options
from kproxy.kernel.host import require_root
from kproxy.problems import UsageError
from kproxy.settings.derived import dataplane_options, pool_nodes, ranges
from kproxy.settings.settings import LocalMode, Settings


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
        help="how to reach the API server (default: as a pod of the cluster does)",
    )
    options.add_control_plane(group)
    options.add_probes(parser)
    options.add_dataplane(parser)
    options.add_uplink(parser)
    options.add_daemon(parser)

    parser.set_defaults(run=run)


def run(chosen: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    from kproxy.daemon.start import run_daemon  # what a daemon needs takes long to import

    require_root()
    _check(chosen)
    return run_daemon(chosen)


def _check(chosen: Settings) -> None:
    """UsageError for settings that are wrong whatever the source says."""
    pool_nodes(chosen)
    if chosen.manifests and chosen.kubeconfig:
        raise UsageError("Services come from --manifests or from a cluster (--kubeconfig), not from both.")
    if not (chosen.manifests or chosen.kubeconfig or "KUBERNETES_SERVICE_HOST" in os.environ):
        raise UsageError("This is no pod: --manifests or --kubeconfig has to say what to follow.")
    if "-" in chosen.manifests:
        raise UsageError("--manifests cannot follow standard input: name files or folders.")
    if chosen.sync_period < 1:
        raise UsageError("--sync-period has to be a second at least.")
    ranges(chosen)
    if chosen.detect_local_mode is not LocalMode.NODE_CIDR:  # which waits for its Node
        dataplane_options(chosen, {})

"""The daemons of `kproxy run`: of manifests, and of a cluster. Apart from run.py, as they import much."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from kproxy.cli import daemon_options, options, uplink_options
from kproxy.control import channel
from kproxy.daemon.daemon import Daemon
from kproxy.daemon.loop import Periods, RoundHooks
from kproxy.kernel.host import HostAddresses, host_name
from kproxy.kernel.netlink import Netlink
from kproxy.kernel.skeleton_probe import SkeletonProbe
from kproxy.model import ClusterNode, Node
from kproxy.observe.log import Reporter
from kproxy.problems import HostError
from kproxy.show.snapshot import Snapshot
from kproxy.sources.source import Source
from kproxy.state import lock
from kproxy.table.skeleton import Options


class _Host:
    """What both kinds have: this node, as the flags and the kernel know it, and the way to the kernel."""

    def __init__(
        self, arguments: argparse.Namespace, skeleton_probe: SkeletonProbe, netlink: Netlink
    ) -> None:
        self.arguments = arguments
        self.addresses = HostAddresses()
        self.reporter = Reporter(arguments.verbose)
        self._skeleton_probe = skeleton_probe
        self._netlink = netlink

    def node(self, nodes: Mapping[str, ClusterNode]) -> Node:
        return options.node(self.arguments, nodes, self.addresses)

    def daemon(
        self,
        source: Source,
        chosen: Callable[[], Options],
        beside: RoundHooks,
        last_seen: Callable[[], Mapping[str, float]] = dict,
    ) -> Daemon:
        return Daemon(
            source,
            self._netlink,
            self._skeleton_probe,
            chosen,
            self.reporter,
            Periods(self.arguments.sync_period, self.arguments.min_sync_period),
            daemon_options.listen(self.arguments),
            beside,
            last_seen,
        )


def run_daemon(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    _log(arguments.verbose)
    work = _follow_manifests if arguments.manifests else _follow_cluster
    with lock.hold(arguments.state_dir, lock.DAEMON), SkeletonProbe() as skeleton_probe, Netlink() as netlink:
        asyncio.run(work(_Host(arguments, skeleton_probe, netlink)))
    return 0


def _log(verbose: bool) -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


async def _follow_manifests(host: _Host) -> None:
    from kproxy.kernel.uplink import Uplink
    from kproxy.reconcile.addresses import UplinkAddresses
    from kproxy.sources.manifests import Manifests
    from kproxy.state.store import Store

    arguments = host.arguments
    source = Manifests(
        arguments.manifests,
        Store(arguments.state_dir),
        options.ranges(arguments),
        lambda state: host.node(state.nodes),
        arguments.probe_exec,
    )
    uplink, nodes = Uplink(arguments.load_balancer_interface), uplink_options.nodes(arguments)
    beside = UplinkAddresses(uplink, source, nodes, partial(host.reporter.error, ""))
    daemon = host.daemon(source, lambda: options.dataplane_options(arguments, source.state.nodes), beside)

    def addresses_changed() -> None:
        host.addresses.forget()
        beside.forget()

    async def snapshot() -> Snapshot:
        async with daemon.loop.idle:  # between two rounds
            return Snapshot(
                source.state,
                source.settled.services if source.settled else {},
                list(daemon.tables.intent.frontends()),
                source.problems() + daemon.tables.problems(),
                source.node(),
                readiness=dict(source.statuses()),
                last_errors=tuple(host.reporter.last_errors),
                warnings=tuple(source.warnings()),
            )

    await _run(daemon, arguments, snapshot, addresses_changed)


async def _follow_cluster(host: _Host) -> None:
    from kproxy.daemon.cluster import Cluster

    try:
        from kproxy.sources.cluster.credentials import Credentials
        from kproxy.sources.cluster.source import ClusterSource
    except ModuleNotFoundError as error:
        hint = "Install kproxy[cluster], or follow --manifests."
        raise HostError(f"To follow a cluster, the Python package {error.name} is needed.", hint) from None

    arguments = host.arguments
    credentials = Credentials(arguments.kubeconfig)
    source = Cluster(ClusterSource(credentials, arguments.node_name or host_name()), host.node)

    def chosen() -> Options:
        return options.dataplane_options(arguments, source.with_pods())

    daemon = host.daemon(source, chosen, RoundHooks(), source.last_seen)

    async def snapshot() -> Snapshot:
        async with daemon.loop.idle:
            state = source.state()
            return Snapshot(
                state,
                state.services,
                list(daemon.tables.intent.frontends()),
                source.problems() + daemon.tables.problems(),
                source.node(),
                last_errors=tuple(host.reporter.last_errors),
            )

    await _run(daemon, arguments, snapshot, host.addresses.forget)


async def _run(
    daemon: Daemon,
    arguments: argparse.Namespace,
    snapshot: Callable[[], Awaitable[Snapshot]],
    addresses_changed: Callable[[], None],
) -> None:
    async with channel.serve(arguments.state_dir, snapshot):
        await daemon.run(addresses_changed)

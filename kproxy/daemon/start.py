"""Starts a daemon that follows manifests, or a cluster, as the settings say."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from kproxy.control import channel
from kproxy.daemon.daemon import Daemon
from kproxy.daemon.loop import Periods
from kproxy.kernel.host import HostAddresses
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.skeleton_probe import SkeletonProbe
from kproxy.kernel.sysctl import raise_settings
from kproxy.model import ClusterNode, Node
from kproxy.observe.log import Reporter
from kproxy.observe.metrics import Requests
from kproxy.probes.exec import ExecRunner
from kproxy.problems import HostError
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.settings.derived import conntrack_sysctls, dataplane_options, listen_addresses, pool_nodes, ranges
from kproxy.settings.settings import Settings
from kproxy.sources.node import find_node
from kproxy.sources.source import FollowedSource
from kproxy.state import lock


class _Host:
    """What both kinds have: this node, as the flags and the kernel know it, and the way to the kernel."""

    def __init__(self, chosen: Settings, skeleton_probe: SkeletonProbe, netlink: Netlink) -> None:
        self.settings = chosen
        self.addresses = HostAddresses()
        self.reporter = Reporter(chosen.verbose)
        self._skeleton_probe = skeleton_probe
        self._netlink = netlink

    def node(self, nodes: Mapping[str, ClusterNode]) -> Node:
        return find_node(self.settings, nodes, self.addresses)

    def daemon(
        self,
        source: FollowedSource,
        addresses: UplinkAddresses | None = None,
        last_seen: Callable[[], Mapping[str, float]] = dict,
        requests: Callable[[], Requests] = dict,
    ) -> Daemon:
        return Daemon(
            source,
            self._netlink,
            self._skeleton_probe,
            partial(dataplane_options, self.settings),
            self.reporter,
            Periods(self.settings.sync_period, self.settings.min_sync_period),
            listen_addresses(self.settings),
            addresses,
            last_seen,
            requests,
        )


def run_daemon(chosen: Settings) -> int:
    """Returns the exit status."""
    configure_log(chosen.verbose)
    raise_settings(conntrack_sysctls(chosen, os.cpu_count() or 1))
    if chosen.init_only:
        return 0
    work = _follow_manifests if chosen.manifests else _follow_cluster
    with (
        lock.hold(Path(chosen.state_dir), lock.DAEMON),
        SkeletonProbe() as skeleton_probe,
        Netlink() as netlink,
    ):
        asyncio.run(work(_Host(chosen, skeleton_probe, netlink)))
    return 0


def configure_log(verbose: bool) -> None:
    """Log to standard error. `verbose` adds kproxy's own debug messages; libraries log only warnings."""
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("kproxy").setLevel(logging.DEBUG if verbose else logging.INFO)


async def _follow_manifests(host: _Host) -> None:
    from kproxy.kernel.uplink import Uplink
    from kproxy.sources.followed import FollowedManifests
    from kproxy.state.store import Store

    chosen = host.settings
    source = FollowedManifests(
        chosen.manifests,
        Store(Path(chosen.state_dir)),
        ranges(chosen),
        host.node,
        ExecRunner(chosen.probe_exec),
    )
    uplink, nodes = Uplink(chosen.load_balancer_interface or None), pool_nodes(chosen)
    addresses = UplinkAddresses(uplink, partial(source.announced, nodes))
    daemon = host.daemon(source, addresses)

    def addresses_changed() -> None:
        host.addresses.forget()
        addresses.invalidate()

    await _run(daemon, chosen, addresses_changed)


async def _follow_cluster(host: _Host) -> None:
    try:
        from kproxy.sources.cluster.credentials import Credentials
        from kproxy.sources.cluster.source import Cluster
    except ModuleNotFoundError as error:
        hint = "Install kproxy[cluster], or follow --manifests."
        raise HostError(f"To follow a cluster, the Python package {error.name} is needed.", hint) from None

    chosen = host.settings
    credentials = Credentials(Path(chosen.kubeconfig) if chosen.kubeconfig else None)
    source = Cluster(credentials, chosen.node_name, host.node)
    daemon = host.daemon(source, last_seen=source.last_seen, requests=source.requests)
    await _run(daemon, chosen, host.addresses.forget)


async def _run(daemon: Daemon, chosen: Settings, addresses_changed: Callable[[], None]) -> None:
    async with channel.serve(Path(chosen.state_dir), daemon.snapshot, daemon.revision):
        await daemon.run(addresses_changed)

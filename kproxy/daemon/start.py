"""Starts a daemon that follows manifests or a cluster, depending on the settings."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kproxy.control import channel
from kproxy.controlplane.ownership import Announced
from kproxy.daemon.daemon import Daemon, TableAccess
from kproxy.daemon.loop import Periods
from kproxy.gateway.folder import Folders
from kproxy.gateway.removal import remove
from kproxy.intake.clients import Clients, raise_file_limit
from kproxy.intake.threads import WORKERS, started_threads
from kproxy.kernel.bridges import turn_hairpin_on
from kproxy.kernel.host import MARKS_SINCE, HostAddresses, kernel_since
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.ownership import adopt, check_owner
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.kernel.sysctl import raise_settings
from kproxy.model import ClusterNode, Frontend, Network, Node
from kproxy.nft.structure import TableFlags
from kproxy.observe.log import LogFormatter, Reporter
from kproxy.probes.exec import ExecRunner
from kproxy.problems import StateError, UsageError
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.ahead import ReadAhead
from kproxy.settings.derived import (
    cluster_dns,
    conntrack_sysctls,
    dataplane_options,
    listen_addresses,
    overlaps,
    pool_nodes,
    ranges,
    warnings,
)
from kproxy.settings.settings import Settings
from kproxy.sources.node import find_node
from kproxy.sources.source import FollowedSource
from kproxy.state import lock
from kproxy.table.skeleton import Options

if TYPE_CHECKING:
    from kproxy.dns.nameserver import ClusterNameServer
    from kproxy.gateway.controller import Controller
    from kproxy.gateway.gateway import Gateway
    from kproxy.sources.followed import FollowedManifests

logger = logging.getLogger(__name__)
SWITCH_INTERVAL = 0.0005
"""Seconds for which a thread keeps Python's lock while another waits for it: a tenth of the default.

The task that programs changes needs this lock several times, and a scrape of many Services keeps it for long.
"""


KEEP_SECONDS = 2.0
"""The interval between two looks at the lock and the control socket, which another program may remove."""


class _Host:
    """The parts of a daemon that do not depend on its source."""

    def __init__(self, settings: Settings, tables: TableAccess, held: lock.Lock) -> None:
        self.settings = settings
        self.lock = held
        self.addresses = HostAddresses()
        self.reporter = Reporter(settings.verbose)
        self.clients = Clients(raise_file_limit())
        self._overlaps: list[str] = []
        self._hairpin_failures: list[str] = []
        self.name_server: ClusterNameServer | None = None
        self.gateway: Gateway | None = None
        self._tables = tables

    def node(self, nodes: Mapping[str, ClusterNode]) -> Node:
        """Find this node. It is called after each change of interfaces, too."""
        before, self._hairpin_failures = self._hairpin_failures, turn_hairpin_on(self.settings.bridge_hairpin)
        for failure in self._hairpin_failures:
            if failure not in before:
                logger.warning(failure)
        return find_node(self.settings, nodes, self.addresses)

    def options(self, node: Node, service_cidrs: tuple[Network, ...]) -> Options:
        """Return the options of the rules. Logs the ServiceCIDRs that overlap ranges of pods."""
        if not self.settings.service_cidr:
            before, self._overlaps = self._overlaps, overlaps(self.settings, "ServiceCIDR", service_cidrs)
            for warning in self._overlaps:
                if warning not in before:
                    logger.warning(warning)
        return dataplane_options(self.settings, node, service_cidrs)

    def announced(self, source: FollowedManifests) -> Announced:
        """Return the addresses that this host needs."""
        loopback = self.name_server.addresses.current() if self.name_server else ()
        return replace(source.announced(pool_nodes(self.settings)), loopback=frozenset(loopback))

    def serve_names(self, source: FollowedManifests) -> None:
        """Let the daemon answer DNS queries, if an address for that is known."""
        wanted = () if self.settings.no_dns else cluster_dns(self.settings)
        if wanted and not kernel_since(*MARKS_SINCE):
            logger.warning("no DNS is served: marking the address of the server requires Linux 5.18")
        elif wanted:
            from kproxy.dns.nameserver import ClusterNameServer  # not at the top: in a cluster it is not used

            self.name_server = ClusterNameServer(self.settings, wanted, source, self.clients)

    def serve_routes(self, source: FollowedSource) -> None:
        """Let the daemon drive HAProxy, or end one that an earlier run left. Raises HostError."""
        folders = Folders(Path(self.settings.state_dir))
        if self.settings.gateway:
            from kproxy.gateway.starting import gateway  # not at the top: it is 20 modules

            self.gateway = gateway(folders, self.settings, source)
        elif folders.path.exists() and (stopped := remove(folders)):
            logger.info(
                "HAProxy of an earlier --gateway is stopped: process %s", ", ".join(map(str, stopped))
            )

    def daemon(
        self,
        source: FollowedSource,
        addresses: UplinkAddresses | None = None,
        controller: Controller | None = None,
    ) -> Daemon:
        return Daemon(
            source,
            self._tables,
            self.options,
            self.reporter,
            Periods(self.settings.sync_period, self.settings.min_sync_period),
            listen_addresses(self.settings),
            addresses,
            self.clients,
            self.name_server,
            self.gateway,
            controller,
        )


def run_daemon(settings: Settings) -> int:
    """Run until a signal. Returns the exit status."""
    configure_log(settings.verbose)
    sys.setswitchinterval(SWITCH_INTERVAL)
    for warning in warnings(settings):
        logger.warning(warning)
    raise_settings(conntrack_sysctls(settings, os.cpu_count() or 1))
    if settings.init_only:
        return 0
    if settings.pods_from and not settings.manifests:
        raise UsageError("--pods-from needs manifests: -f PATH.")
    work = _follow_manifests if settings.manifests else _follow_cluster
    with (
        lock.hold(Path(settings.state_dir), lock.DAEMON, logger.warning) as held,
        Rehearsal() as rehearsal,
        Netlink() as netlink,
    ):
        flags = _own_tables(netlink, rehearsal, settings.no_table_owner)
        asyncio.run(work(_Host(settings, TableAccess(netlink, rehearsal, flags, ReadAhead()), held)))
    return 0


def _own_tables(netlink: Netlink, rehearsal: Rehearsal, unwanted: bool) -> TableFlags:
    """Own the tables if the kernel can do it, and log whether it can. Returns the flags of the tables.

    Raises HostError if another process owns them.
    """
    check_owner(netlink)
    if unwanted or not rehearsal.can_own_tables():
        reason = "--no-table-owner" if unwanted else "before Linux 6.9 the kernel cannot do that"
        logger.info("kproxy does not own its tables (%s): it repairs what other programs change", reason)
        return TableFlags.NONE
    adopt(netlink)
    logger.info("kproxy owns its tables: other programs cannot change them")
    return TableFlags.OWNED


def configure_log(verbose: bool) -> None:
    """Log to standard error. `verbose` adds kproxy's own debug messages; libraries log only warnings."""
    formatter = LogFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("kproxy").setLevel(logging.DEBUG if verbose else logging.INFO)


async def _follow_manifests(host: _Host) -> None:
    from kproxy.kernel.uplink import Uplink
    from kproxy.sources.configured import engines_of, runner_of
    from kproxy.sources.followed import FollowedManifests
    from kproxy.state.store import Store

    settings, engines = host.settings, engines_of(host.settings)
    source = FollowedManifests(
        settings.manifests,
        Store(Path(settings.state_dir)),
        ranges(settings),
        host.node,
        runner_of(engines, ExecRunner(settings.probe_exec)),
        settings.recursive,
        settings.allow_empty,
        engines,
    )
    host.serve_names(source)
    host.serve_routes(source)
    uplink = Uplink(settings.load_balancer_interface or None)
    addresses = UplinkAddresses(uplink, partial(host.announced, source))
    daemon = host.daemon(source, addresses)

    def addresses_changed() -> None:
        host.addresses.forget()
        addresses.invalidate()

    await _run(daemon, host, addresses_changed)


async def _follow_cluster(host: _Host) -> None:
    from kproxy.sources.cluster.credentials import Credentials
    from kproxy.sources.cluster.source import Cluster

    settings = host.settings
    credentials = Credentials(Path(settings.kubeconfig) if settings.kubeconfig else None)
    source = Cluster(
        credentials,
        settings.node_name,
        host.node,
        follow_service_cidrs=not settings.service_cidr,
        follow_gateways=settings.gateway_controller,
        start_jitter=settings.start_jitter,
        content_type=settings.kube_api_content_type,
    )

    async def frontends() -> Iterable[Frontend]:
        async with daemon.loop.idle:
            return list(daemon.reconciler.claims.all_frontends())

    controller = None
    if settings.gateway_controller:
        from kproxy.gateway.controller import controller_of

        controller = controller_of(source, settings.node_name, frontends)
    daemon = host.daemon(source, controller=controller)
    await _run(daemon, host, host.addresses.forget)


async def _run(daemon: Daemon, host: _Host, addresses_changed: Callable[[], None]) -> None:
    directory = Path(host.settings.state_dir)
    asyncio.get_running_loop().set_default_executor(started_threads(WORKERS, "worker"))
    async with channel.serve(directory, daemon.snapshot, daemon.revision, clients=host.clients) as serving:
        keeping = asyncio.create_task(_keep_files(host.lock, serving))
        try:
            await daemon.run(addresses_changed)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def _keep_files(held: lock.Lock, serving: channel.Channel) -> None:
    """Create the lock and the control socket again if another program removes them. Never returns."""
    failure = ""
    while True:
        await asyncio.sleep(KEEP_SECONDS)
        try:
            if warning := held.renew():
                logger.warning("%s", warning)
            await serving.renew()
            failure = ""
        except StateError as error:
            if str(error) != failure:
                logger.error("%s", error)
            failure = str(error)

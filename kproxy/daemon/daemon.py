"""The daemon: the loop, the monitors of the kernel, the observers, and signals.

Everything runs in one event loop, except for rounds (loop.py). SIGTERM and SIGINT end the daemon. They leave
the tables unchanged, so that traffic continues and the next start finds them. A second signal ends the
process without waiting for the current round. On SIGHUP, kproxy reads and compares everything again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kproxy.control.channel import Revision
from kproxy.control.snapshot import take_snapshot
from kproxy.daemon.auditor import Auditor
from kproxy.daemon.loop import Loop, Periods, freeze_memory
from kproxy.daemon.refusals import RefusalWatch
from kproxy.daemon.running import Job, enduring, run_until_signal
from kproxy.daemon.stale import StaleSearcher
from kproxy.intake.clients import Clients
from kproxy.intake.memory import return_memory
from kproxy.kernel.monitor import TableMonitor, address_changes, readable
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.model import Family, Network, Node
from kproxy.nft.structure import TableFlags
from kproxy.observe.events import EventRecorder
from kproxy.observe.log import Reporter
from kproxy.observe.refused import RefusedCounters
from kproxy.observe.servers import Servers
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.ahead import ReadAhead
from kproxy.reconcile.core.backoff import FIRST, Backoff
from kproxy.reconcile.core.report import RoundReport, plural
from kproxy.reconcile.dataplane import LARGE, Dataplane
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.settings.derived import ListenAddresses, StatusAccess
from kproxy.show.components import Component
from kproxy.show.snapshot import Snapshot
from kproxy.sources.source import FollowedSource
from kproxy.table.layout import TABLE
from kproxy.table.programmed import ProgrammedSide, programmed_sides
from kproxy.table.skeleton import Options

if TYPE_CHECKING:
    from kproxy.dns.nameserver import ClusterNameServer
    from kproxy.gateway.controller import Controller
    from kproxy.gateway.gateway import Gateway
    from kproxy.observe.metrics import Metrics
    from kproxy.observe.status import StatusPage

logger = logging.getLogger(__name__)
PROBLEMS_SECONDS = 2.0
"""The interval between two checks for problems of the source."""
REPAIR_SECONDS = 5.0
"""The maximum delay between repairs if another program changes the tables again and again."""


class TableAccess(NamedTuple):
    """How a daemon reaches the kernel's tables."""

    netlink: Netlink
    """The socket that sends all changes."""
    rehearsal: Rehearsal
    flags: TableFlags
    """Whether the socket owns the tables."""
    ahead: ReadAhead


class Daemon(RoundObserver):
    """Keeps one node's tables up to date. Created before threads start. `run` returns after a signal."""

    def __init__(
        self,
        source: FollowedSource,
        tables: TableAccess,
        options: Callable[[Node, tuple[Network, ...]], Options],
        reporter: Reporter,
        periods: Periods,
        listen: ListenAddresses,
        addresses: UplinkAddresses | None,
        clients: Clients | None = None,
        name_server: ClusterNameServer | None = None,
        gateway: Gateway | None = None,
        controller: Controller | None = None,
    ) -> None:
        """`clients` are those of all listeners of the process. `name_server` answers DNS queries.

        `gateway` drives HAProxy. `controller` writes the status of Gateways.
        """
        self._controller = controller
        self._tables = tables
        self._dataplanes = {
            family: Dataplane(
                tables.netlink,
                family,
                Options(),
                tables.rehearsal.expected_structure,
                tables.flags,
                tables.ahead,
            )
            for family in Family
        }
        self.source = source
        name_servers = name_server.addresses.current if name_server else tuple
        self.reconciler = Reconciler(
            source, self._dataplanes, options, logger.warning, addresses, name_servers=name_servers
        )
        self.reporter = reporter
        refused = RefusedCounters(self._dataplanes)
        page = self._status_page(listen.status, refused) if listen.status else None
        self.servers = Servers(listen, source, self.reconciler, periods.pause, clients, refused, page)
        self._name_server, self._gateway = name_server, gateway
        self.recorder = EventRecorder(source, self.reconciler)
        self._refusals = RefusalWatch(refused, self.recorder.log)
        observers: tuple[RoundObserver, ...] = (self.servers, reporter, self.recorder, self)
        if name_server:
            name_server.is_refused = self.reconciler.is_quarantined
            observers = (name_server, *observers)
        if gateway:
            observers = (gateway, *observers)
        if controller:
            observers = (*observers, controller)
        self.servers.health.other_warnings = self._warnings
        self.servers.on_metrics = self._add_metrics
        self.loop = Loop(source, self.reconciler, periods, observers)
        self._auditor = Auditor(self._dataplanes, self.loop, self._audited)
        self.loop.check = self._auditor.request
        stale = [stale for each in self._dataplanes.values() for stale in (each.flows, each.affinity)]
        self._searcher = StaleSearcher(stale, self.loop)
        self.revision = Revision()
        """The revision of `snapshot`, as of the last round."""
        self._programmed = asyncio.Event()
        self._ready = self._watching = False

    def _add_metrics(self, metrics: Metrics) -> None:
        if self._name_server:
            from kproxy.dns.metrics import DnsMetrics  # not at the top: in a cluster, kproxy serves no names

            metrics.registry.register(DnsMetrics(self._name_server.resolver))
        if self._gateway:
            metrics.joined = self._gateway.join(metrics.registry)

    def _audited(self, family: Family, seconds: float) -> None:
        self.servers.metrics.audited(family, seconds)

    def _status_page(self, access: StatusAccess, refused: RefusedCounters) -> StatusPage:
        from kproxy.observe.status import StatusPage  # not at the top: few daemons serve it

        return StatusPage(self.snapshot, access, refused.totals)

    async def run(self, addresses_changed: Callable[[], None]) -> None:
        """Run until a signal, or an error that cannot be handled. Calls `addresses_changed` on changes."""

        def look_at_addresses() -> None:
            addresses_changed()
            self.source.host_changed()
            self.loop.wake()

        def look_at_everything() -> None:
            self.source.refresh()
            look_at_addresses()
            self._auditor.request()
            if self._gateway:
                self._gateway.audit()

        self.servers.open()
        if self._name_server:
            self._name_server.open()
        try:
            await run_until_signal(self._jobs(look_at_addresses), look_at_everything)
        finally:
            self.servers.close()
            if self._name_server:
                self._name_server.close()

    def _jobs(self, on_address_change: Callable[[], None]) -> Iterator[Job]:
        """Return what runs at the same time, until a signal."""
        yield self.source.run(self.loop.wake)
        yield self.loop.run()
        yield enduring(self._watch_problems)
        if not self._tables.flags:  # no other program can change an owned table
            yield enduring(self._watch_tables)
        if self._gateway:
            yield self._gateway.run()
        if self._controller:
            yield self._controller.run()
        yield enduring(self._audit)
        yield enduring(self._searcher.run)
        yield enduring(self._watch_refusals)
        yield enduring(return_memory)
        yield enduring(partial(address_changes, on_address_change))
        yield enduring(self.servers.watchdog)

    async def snapshot(self) -> Snapshot:
        """Return a snapshot for commands, as of the end of a round."""
        await self._refusals.look_quickly()
        async with self.loop.idle:
            return take_snapshot(
                self.source,
                self.reconciler.claims.all_frontends(),
                self.reconciler.problems() + (self._gateway.problems if self._gateway else []),
                last_errors=self.reporter.last_errors,
                programmed=list(self._programmed_sides()),
                warnings=self.reconciler.claims.warnings()
                + (self._gateway.input_warnings if self._gateway else []),
                options=self.reconciler.options,
                cluster_domain=self._name_server.domain if self._name_server else "",
                unhealthy=self.servers.health.complaints(time.monotonic()),
                address_failures=self.reconciler.address_failures,
                events=self.recorder.events(),
                credentials=self.source.credentials,
                http=self._gateway is not None,
                ingresses=self._gateway.ingresses if self._gateway else (),
                components=self._components(),
            )

    def _components(self) -> Iterator[Component]:
        """Return the parts that run, and why they are unhealthy."""
        for family in Family:
            errors = self.servers.health.complaints_of(family, time.monotonic())
            yield Component(f"table-{family.value}", f"table {family.value} {TABLE}", tuple(errors))
        if self._name_server:
            server = self._name_server.server
            yield Component("dns", ",".join(map(str, server.listening)), tuple(server.warnings()))
        if self._gateway:
            yield Component("gateway", "", tuple(self._gateway.warnings()))

    def _warnings(self) -> list[str]:
        """Return the conditions of servers that do not concern the tables."""
        found = self._name_server.server.warnings() if self._name_server else []
        found += [self._controller.problem] if self._controller and self._controller.problem else []
        return found + (self._gateway.warnings() if self._gateway else [])

    def _programmed_sides(self) -> Iterator[ProgrammedSide]:
        """Return the frontend sides that the tables contain of protected services."""
        if protected := self.reconciler.protected():
            for dataplane in self._dataplanes.values():
                yield from programmed_sides(dataplane.applied, protected)

    async def _watch_tables(self) -> None:
        """Request a comparison when another program changes a table, with backoff if that happens repeatedly.

        The monitor starts after the first round. While a monitor listens, the kernel makes a message for each
        element, even if a filter drops it, and the transaction takes three times as long.
        """
        await self._programmed.wait()
        events, pace = asyncio.get_running_loop(), Backoff(REPAIR_SECONDS)
        async with self.loop.idle:
            monitor = TableMonitor(self._tables.netlink.port)
            self._auditor.request(self.reconciler.possibly_changed())  # since the round read the tables
        for dataplane in self._dataplanes.values():
            dataplane.pause_monitor = monitor.paused
        self._watching = True
        try:
            while True:
                await readable(monitor)
                await self._wait_until_due(pace)
                changes = monitor.foreign_changes()
                if changes:
                    if events.time() - pace.due > REPAIR_SECONDS:
                        pace.succeeded()
                    pace.failed(events.time())
                    self.loop.suspect(
                        frozenset(family for family, keys in changes.items() if keys is None),
                        [Edit(family, keys) for family, keys in changes.items() if keys is not None],
                    )
        finally:
            monitor.close()

    async def _audit(self) -> None:
        """Audit tables on request, from the first round on, which compares them."""
        await self._programmed.wait()
        await self._auditor.run()

    async def _watch_refusals(self) -> None:
        """Look for refused connections, from the first round on."""
        await self._programmed.wait()
        await self._refusals.run()

    async def _wait_until_due(self, pace: Backoff) -> None:
        """Wait until a repair is due, or a table was deleted, which is restored immediately."""
        while (left := pace.due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, FIRST))
            async with self.loop.idle:
                if self.reconciler.any_gone():
                    return

    async def _watch_problems(self) -> None:
        """Log problems of the source that cause no round, for example that the server does not respond."""
        while True:
            await asyncio.sleep(PROBLEMS_SECONDS)
            if not self.source.synced:
                gc.collect(1)  # garbage collection is off until the first round, which may be days later
            async with self.loop.idle:
                self._report_problems()

    def _report_problems(self) -> None:
        found = self.source.problems() + self.source.input_warnings() + self.source.warnings()
        if self._gateway:
            found += self._gateway.problems + self._gateway.input_warnings
        self.reporter.problems(found + self.reconciler.problems(), self.reconciler.claims.warnings())
        self.recorder.look()

    # --- after each round ---

    def round_done(self, done: RoundReport) -> None:
        """Log problems and readiness, and check tables that were changed while the monitor was paused."""
        self._report_problems()
        self._report_ready(done)
        self._searcher.look()
        self._check_unmonitored(done)
        self.revision.set(self.source.revision)
        freeze_memory()

    def _report_ready(self, done: RoundReport) -> None:
        if not self._programmed.is_set() and len(done.failures) < len(self._dataplanes):
            self._programmed.set()
        if not self._ready and not done.failures:
            self._ready = True
            logger.info("kproxy is ready: %s", plural(done.totals.services, "service"))

    def _check_unmonitored(self, done: RoundReport) -> None:
        """Request a comparison if a table may have changed during a round in which the monitor was paused."""
        large = self._watching and any(report.added + report.removed > LARGE for report in done.reports)
        if large and (possibly_changed := self.reconciler.possibly_changed()):
            self._auditor.request(possibly_changed)

"""Observes the loop, and updates /healthz, /livez, /metrics, health check node ports and systemd's state.

The library of the metrics is imported when the first round is done, or at a scrape before that. The import
takes a tenth of the time in which 1,000 Services are programmed, and they are programmed before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from kproxy.intake.clients import Clients
from kproxy.model import Family, NamespacedName, Node, ServicePortName, format_address
from kproxy.nft.elements import COMMENT_BYTES
from kproxy.observe.checks import HealthCheckPorts, health_handler
from kproxy.observe.core.health import Health
from kproxy.observe.http import Handler, HttpServer, Request, Response
from kproxy.observe.notify import Notifier
from kproxy.observe.refused import RefusedCounters
from kproxy.problems import KproxyError
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Reconciler
from kproxy.resolve.health_checks import HealthChecks
from kproxy.settings.derived import ListenAddresses
from kproxy.sources.source import FollowedSource
from kproxy.table.layout import frontend_key

if TYPE_CHECKING:
    from kproxy.observe.metrics import Metrics
    from kproxy.observe.status import StatusPage

LONGEST_PORT = 1 + 63
"""The length of a port's name in a comment, with the colon before it."""
logger = logging.getLogger(__name__)


class Servers(RoundObserver):
    """The servers, which run from `open` to `close`. Use them in the event loop's thread."""

    def __init__(
        self,
        listen: ListenAddresses,
        source: FollowedSource,
        reconciler: Reconciler,
        pause: float = 0.0,
        clients: Clients | None = None,
        refused: RefusedCounters | None = None,
        page: StatusPage | None = None,
    ) -> None:
        """`pause` is the time in seconds that a change may wait on purpose.

        `clients` are those of all listeners of the process. `page` is served on the address for health.
        """
        clients = clients or Clients()
        self.health = Health(max_silence=listen.max_silence, pause=pause)
        self.on_metrics: Callable[[Metrics], None] = lambda metrics: None
        """Adds the metrics of other parts of the daemon, when there are metrics."""
        self.notifier = Notifier()
        self._listen = listen
        self._refused = refused
        self._source = source
        self._reconciler = reconciler
        self._ready = False
        self._node: Node | None = None
        self._first_services = 0
        """The number of services in the first round, which the metrics count after it."""
        self._ports = HealthCheckPorts(self.health, logger.warning, reconciler.is_quarantined, clients)
        self._checks = HealthChecks()
        self._long_names: dict[NamespacedName, dict[bytes, ServicePortName]] = {}
        handlers = (
            (
                listen.healthz,
                "--healthz-bind-address",
                self._healthz(health_handler(self.health, self._answered)),
            ),
            (listen.metrics, "--metrics-bind-address", lambda request: self._metrics_handler(request)),
        )
        self._page = page
        self._servers = [
            HttpServer(at, flag, handler, logger.warning, clients) for at, flag, handler in handlers if at
        ]

    @cached_property
    def metrics(self) -> Metrics:
        """All metrics of the daemon."""
        from kproxy.observe.metrics import Metrics

        metrics = Metrics(self._silence, self._listen.by_endpoint, self._source.requests, self._refused)
        self.on_metrics(metrics)
        return metrics

    @cached_property
    def _metrics_handler(self) -> Handler:
        return self.metrics.handler(self._listen.configz)

    def _answered(self, path: str, status: int) -> None:
        self.metrics.answered(path, status)

    def open(self) -> None:
        """Start the servers."""
        for server in self._servers:
            server.open()

    def close(self) -> None:
        """Notify systemd, and stop the servers."""
        self.notifier.stopping()
        self._ports.close()
        if self._page:
            self._page.close()
        for server in self._servers:
            server.close()

    async def watchdog(self) -> None:
        """Send keep-alive notifications to systemd while the loop works. Never returns."""
        await self.notifier.watchdog(lambda: self.health.livez(time.monotonic(), str).status == 200)
        await asyncio.Event().wait()

    # --- the methods of an observer ---

    def change_noticed(self) -> None:
        """Record that a change waits."""
        for family in Family:
            self.health.queued(family, time.monotonic())

    def round_started(self, services: int) -> None:
        """Count the changes of services."""
        if self._node is None:
            self._first_services += services  # a first round that fails is repeated
        else:
            self.metrics.queued(services)

    def round_done(self, done: RoundReport) -> None:
        """Update health, metrics, health check node ports and systemd's state."""
        node = self._source.node()
        node_changed, is_first = node != self._node, self._node is None
        self._node = node
        repairing = self._ready and done.compared and not done.names
        self._update_health(done, node)
        if self._update_checks(done.names, node) or node_changed:
            hosts = [format_address(address) for address in node.node_port_addresses]
            self._ports.set(self._checks.served(), hosts)
        if not self._ready and not done.failures:
            self._ready = True
            self.notifier.ready("programmed")
        if is_first:
            self.metrics.queued(self._first_services)
        elif node_changed:
            self.metrics.node_changed()
        self._count(done, repairing)
        self._update_long_names(done.names)

    def round_failed(self, error: KproxyError) -> None:
        """Record the failure for both families."""
        for family in Family:
            self.health.failed(family, str(error), time.monotonic())

    def _update_health(self, done: RoundReport, node: Node) -> None:
        now = time.monotonic()
        self.health.node_eligible = not node.leaving
        for family in Family:
            if family in done.failures:
                self.health.failed(family, done.failures[family], now)
            else:
                self.health.applied(family, now, done.begun)

    def _count(self, done: RoundReport, repairing: bool) -> None:
        self.metrics.round(done.reports, done.failures, done.seconds, done.compared, repairing)
        self.metrics.endpoints.set(done.totals.endpoints)
        self.metrics.skipped.set(len(self._source.problems()) + len(self._reconciler.problems()))
        for trigger in done.triggers:
            with suppress(ValueError, OverflowError):  # the annotation may contain any text
                seconds = time.time() - datetime.fromisoformat(trigger).timestamp()
                self.metrics.programmed(seconds, done.failures)

    def _update_long_names(self, names: Iterable[NamespacedName]) -> None:
        """Tell the metrics which ports the kernel's comments do not name completely."""
        changed = False
        for name in names:
            if len(str(name)) + LONGEST_PORT > COMMENT_BYTES:
                frontends = self._reconciler.claims.frontends(name)
                self._long_names[name] = {
                    frontend_key(each.address, each.protocol, each.port): each.owner for each in frontends
                }
                changed = True
        if changed:
            self.metrics.set_full_names(self._long_names.values())

    # --- health check node ports ---

    def _update_checks(self, names: Iterable[NamespacedName], node: Node) -> bool:
        """Return whether the health check node ports changed."""
        changed = False
        for name in names:
            service = self._source.service(name)
            has_check = service is not None and service.wants_health_check
            slices = self._source.slices(name) if has_check else ()
            changed |= self._checks.change(name, service, slices, node.name)
        return changed

    # --- the silence of sources, computed for each request ---

    def _silence(self) -> Mapping[str, float]:
        for source, when in self._source.last_seen().items():
            self.health.received(source, when)
        return self.health.silence(time.monotonic())

    def _healthz(self, handler: Handler) -> Handler:
        def handle(request: Request) -> Response | Awaitable[Response]:
            self._silence()
            if self._page and request.path == self._page.path:
                return self._page.handle(request)
            return handler(request)

        return handle

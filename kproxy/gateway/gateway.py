"""The gateway of `kproxy run`: after each round, HAProxy gets the configuration of the same objects.

One task renders, drives and audits, so these never overlap. It works in a thread of its own, because the
check and the start of HAProxy take longer than a round. Changes that arrive meanwhile are made together.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

from prometheus_client import CollectorRegistry

from kproxy.gateway.driver import Driver
from kproxy.gateway.metrics import GatewayMetrics
from kproxy.gateway.process import ConfigurationError, Process
from kproxy.gateway.renderer import Renderer, objects_of
from kproxy.model import NamespacedName
from kproxy.problems import KproxyError, Problem
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.sources.core.routed import RoutedObjects
from kproxy.sources.source import FollowedSource

logger = logging.getLogger(__name__)
AUDIT_SECONDS = 10.0
"""The time between two audits, and at least `AUDIT_PAUSE` times the duration of one."""
AUDIT_PAUSE = 100
RETRY_SECONDS = 2.0
"""The maximum time between two attempts to bring HAProxy to its configuration, or to start it."""
ATTEMPTS = 20
"""How often a configuration is rendered again without the objects that HAProxy refuses. It names up to 50."""
SOON_SECONDS = 5.0
"""A process that ends sooner after its start is started again with backoff."""


class Gateway(RoundObserver):
    """Renders the objects of a source, and drives HAProxy. Use it in the event loop's thread."""

    def __init__(self, driver: Driver, source: FollowedSource, renderer: Renderer) -> None:
        self._driver = driver
        self._source = source
        self._renderer = renderer
        self.problems: list[Problem] = []
        self.input_warnings: list[Problem] = []
        """What the objects have wrong, as of the last rendering."""
        self.ingresses: Collection[NamespacedName] = ()
        """The Ingresses that are served."""
        self._metrics: GatewayMetrics | None = None
        self._objects: RoutedObjects | None = None
        self._revision: int | None = None
        self._noticed: float | None = None
        """When the first change was noticed that HAProxy does not have (time.monotonic)."""
        self._awake = asyncio.Event()
        self._backoff, self._deaths = Backoff(RETRY_SECONDS), Backoff(RETRY_SECONDS)
        self._audit_due = 0.0
        self._failure = ""
        self._watched: Process | None = None
        self._descriptor: int | None = None

    def join(self, registry: CollectorRegistry) -> Callable[[], bytes]:
        """Add the metrics of the gateway to others. Returns what returns the series of HAProxy."""
        self._metrics = GatewayMetrics(self._driver, registry)
        return self._metrics.exported

    def warnings(self) -> list[str]:
        """Return why HAProxy is not as it should be."""
        return [f"gateway: {self._failure}"] if self._failure else []

    def change_noticed(self) -> None:
        """Remember when, for the metrics."""
        if self._noticed is None:
            self._noticed = time.monotonic()

    def round_done(self, done: RoundReport) -> None:
        """Bring HAProxy to the objects of the round, if they changed."""
        if self._revision == self._source.revision:
            if not self._awake.is_set():
                self._noticed = None
            return
        self._revision = self._source.revision
        self._objects = self._source.routed()
        self._awake.set()

    def audit(self) -> None:
        """Read back soon what HAProxy has."""
        self._audit_due = 0.0
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled. HAProxy goes on then."""
        try:
            with ThreadPoolExecutor(1, "gateway") as thread, ExitStack() as first:
                first.callback(self._driver.end)
                while True:
                    await self._wait()
                    await self._work(thread)
        finally:
            self._watch(None)

    async def _wait(self) -> None:
        """Wait for a change, for the end of HAProxy, or until an attempt or an audit is due."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._deaths.due - loop.time())
        due = self._backoff.due if self._failure else self._audit_due
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due if self._objects else None):
                await self._awake.wait()

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        """Apply the newest objects, and audit if that is due."""
        self._awake.clear()
        if self._objects is None:
            return
        loop, noticed, self._noticed = asyncio.get_running_loop(), self._noticed, None
        try:
            await loop.run_in_executor(thread, partial(self._apply, self._objects))
            self._succeeded(noticed)
            if (begun := loop.time()) >= self._audit_due:
                await loop.run_in_executor(thread, self._driver.audit)
                self._audit_due = loop.time() + max(AUDIT_SECONDS, AUDIT_PAUSE * (loop.time() - begun))
        except Exception as error:  # of any type: no object may end the program
            self._failed(error)
        self._watch(self._driver.process)

    def _apply(self, objects: RoutedObjects) -> None:
        found = self._renderer.render(objects_of(objects), time.time())
        for left in reversed(range(ATTEMPTS)):
            self.problems, self.input_warnings = found.problems, found.warnings
            try:
                self._driver.apply(found.configuration)
                break
            except ConfigurationError as error:
                others = self._renderer.render_without(error.objects, time.time()) if left else None
                if others is None:
                    raise
                found = others
        self.ingresses = found.ingresses

    def _succeeded(self, noticed: float | None) -> None:
        self._backoff.succeeded()
        if self._failure:
            logger.info("gateway: HAProxy is as configured again")
        self._failure = ""
        if noticed is not None:
            seconds = time.monotonic() - noticed
            logger.debug("gateway: HAProxy has the change after %.1f ms", 1000 * seconds)
            if self._metrics:
                self._metrics.latency.observe(seconds)

    def _failed(self, error: Exception) -> None:
        """Log an error once, and try again later."""
        self._backoff.failed(asyncio.get_running_loop().time())
        known = isinstance(error, KproxyError | OSError | ValueError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        if self._failure != reason:
            logger.error("gateway: %s", error.full if isinstance(error, KproxyError) else reason)
        self._failure = reason

    def _watch(self, process: Process | None) -> None:
        """Watch a process by its pidfd, instead of the one before. The driver's own pidfd may be closed."""
        if process is self._watched:
            return
        loop = asyncio.get_running_loop()
        if self._descriptor is not None:
            loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        self._watched = process
        self._descriptor = os.dup(process.descriptor) if process else None
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._ended, loop.time())

    def _ended(self, since: float) -> None:
        """Start HAProxy again: immediately, unless it ended soon after its start."""
        self._watch(None)
        now = asyncio.get_running_loop().time()
        if now - since < SOON_SECONDS:
            self._deaths.failed(now)
        else:
            self._deaths.succeeded()
        self._awake.set()

"""Load-balancer addresses beside the tables: they leave before their service does, and come after it.

Without the service, packets to the address would be for this node itself. What is right already costs
nothing: the kernel is asked only when what is wanted changed, or something about interfaces did. What
failed is tried again, ever more seldom, and said once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from threading import Event

from kproxy.controlplane.ownership import Announced
from kproxy.controlplane.settle import announced_by
from kproxy.daemon.loop import RoundHooks
from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import Family, family_of
from kproxy.problems import KproxyError
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.round import Round
from kproxy.sources.manifests import Manifests

logger = logging.getLogger(__name__)


class UplinkAddresses(RoundHooks):
    """Those of the pool that this node announces."""

    def __init__(
        self, uplink: Uplink, source: Manifests, nodes: Collection[str], fail: Callable[[str], None]
    ) -> None:
        """`fail` is told what could not be done: a sentence."""
        self._uplink = uplink
        self._source = source
        self._nodes = nodes
        self._fail = fail
        self._here: Announced | None = None
        self._right = False
        self._trying = False
        self._backoff = Backoff()
        self._failed: set[Family] = set()
        self._wrong: list[str] = []
        self._told: list[str] = []
        self._stale = Event()

    def forget(self) -> None:
        """Interfaces or addresses may be others than they were. From any thread."""
        self._stale.set()

    def due(self) -> float | None:
        """When what failed is to be tried again; None: nothing did."""
        return None if self._right or self._here is None else self._backoff.due

    def before(self) -> None:
        """Take back what is not to be announced any more."""
        here = self._wanted()
        if here != self._here or self._stale.is_set():
            self._stale.clear()
            self._here, self._right, self._backoff = here, False, Backoff()
        self._trying = not self._right and self._backoff.due <= time.monotonic()
        self._wrong = []
        if self._trying:
            self._do(lambda: self._uplink.withdraw(here.protected))

    def after(self, done: Round) -> None:
        """Put on the uplink what is served now."""
        assert self._here is not None
        if self._trying or self._failed != done.failures.keys():
            served = [a for a in self._here.own if family_of(a) not in done.failures]
            self._do(lambda: self._uplink.show(served))
            self._settle(done)

    def _do(self, work: Callable[[], AddressReport]) -> None:
        try:
            shown = work()
        except KproxyError as error:
            self._wrong.append(error.full)
            return
        for change in shown.changes:
            logger.info("%s", change)
        self._wrong += shown.warnings

    def _settle(self, done: Round) -> None:
        """Say what is wrong, once, and when all of it is to be tried again."""
        for message in self._wrong:
            if message not in self._told:
                self._fail(message)
        self._told, self._failed = self._wrong, set(done.failures)
        self._right = not self._wrong and not done.failures
        if not self._right:
            self._backoff.failed(time.monotonic())

    def _wanted(self) -> Announced:
        settled = self._source.settled
        assert settled is not None
        return announced_by(self._source.node().name, self._nodes, settled)

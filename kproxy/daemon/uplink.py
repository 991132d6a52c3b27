"""Load-balancer addresses beside the tables: they leave before their service does, and come after it.

Without the service, packets to the address would be for this node itself. What is right already costs
nothing: the kernel is asked only when what is wanted changed, or something about interfaces did.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from threading import Event

from kproxy.daemon.loop import Beside
from kproxy.daemon.tables import Round
from kproxy.kernel.uplink import Shown, Uplink
from kproxy.model import family_of
from kproxy.problems import KproxyError
from kproxy.standalone.ownership import Announced, announced
from kproxy.standalone.source import Manifests

logger = logging.getLogger(__name__)


class UplinkAddresses(Beside):
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
        self._stale = Event()

    def forget(self) -> None:
        """Interfaces or addresses may be others than they were. From any thread."""
        self._stale.set()

    def before(self) -> None:
        """Take back what is not to be announced any more."""
        here = self._wanted()
        self._right &= here == self._here and not self._stale.is_set()
        self._here = here
        self._stale.clear()
        if not self._right:
            self._do(lambda: self._uplink.withdraw(here.kept))

    def after(self, done: Round) -> None:
        """Put on the uplink what is served now."""
        assert self._here is not None
        if not self._right:
            served = [a for a in self._here.own if family_of(a) not in done.failures]
            self._right = self._do(lambda: self._uplink.show(served)) and not done.failures

    def _do(self, work: Callable[[], Shown]) -> bool:
        try:
            shown = work()
        except KproxyError as error:
            self._fail(str(error))
            return False
        for change in shown.changes:
            logger.info("%s", change)
        for warning in shown.warnings:
            self._fail(warning)
        return not shown.warnings

    def _wanted(self) -> Announced:
        settled = self._source.settled
        assert settled is not None
        return announced(
            settled.allocations.pool_addresses(),
            settled.services.get,
            lambda name: settled.slices.get(name, ()),
            settled.kept,
            self._nodes,
            self._source.node().name,
        )

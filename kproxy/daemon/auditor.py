"""Audits tables that another program may have changed, while rounds continue (reconcile/audit.py).

What an audit finds is repaired by a round. If an audit fails, a round compares the whole table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from kproxy.daemon.loop import EVERYTHING, Loop
from kproxy.model import Family
from kproxy.problems import KproxyError
from kproxy.reconcile.audit import Audit
from kproxy.reconcile.dataplane import Dataplane
from kproxy.reconcile.reconciler import Edit

logger = logging.getLogger(__name__)


class Auditor:
    """Audits the families that were requested, one after the other."""

    def __init__(
        self, dataplanes: Mapping[Family, Dataplane], loop: Loop, audited: Callable[[Family, float], None]
    ) -> None:
        """`audited` is called after each audit, with its duration in seconds."""
        self._dataplanes = dataplanes
        self._audited = audited
        self._loop = loop
        self._requested: set[Family] = set()
        self._awake = asyncio.Event()

    def request(self, families: frozenset[Family] = EVERYTHING) -> frozenset[Family]:
        """Audit these families soon, even if they are being audited now. Returns nothing to compare now."""
        self._requested |= families
        self._awake.set()
        return frozenset()

    async def run(self) -> None:
        """Audit on request. Never returns."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._requested:
                await self._audit(self._requested.pop())

    async def _audit(self, family: Family) -> None:
        if not self._dataplanes[family].applied:  # it was never compared, or the kernel lacks the family
            self._loop.suspect(frozenset({family}))
            return
        begun = time.monotonic()
        try:
            async with self._loop.idle:
                audit = Audit(self._dataplanes[family])
            await asyncio.to_thread(audit.read)
            async with self._loop.idle:
                keys = await asyncio.to_thread(audit.finish)
        except (KproxyError, OSError) as error:
            logger.warning("table %s: cannot audit it: %s Comparing the whole table.", family, error)
            keys = None
        self._audited(family, time.monotonic() - begun)
        if keys is None:
            self._loop.suspect(frozenset({family}))
        elif keys:
            self._loop.suspect(frozenset(), [Edit(family, keys)])

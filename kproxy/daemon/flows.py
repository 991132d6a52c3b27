"""Searches stale UDP flows in a thread of its own (reconcile/flows.py), and limits the CPU time of that.

The flows of a first change are searched immediately. The next search begins so much later that searches take
SHARE of a CPU at most, and serves all changes until then. In its walk the kernel does not let other threads
use the CPU, so a change that is to be programmed on this CPU waits for 10 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from kproxy.daemon.loop import Loop
from kproxy.reconcile.flows import StaleFlows

SHARE = 0.01
"""The maximum share of a CPU, while a search takes less than a hundredth of LONGEST."""
LONGEST = 1.0
"""The maximum number of seconds between two searches."""


class FlowSearcher:
    """Searches the flows of each family. What it finds is ended in a round."""

    def __init__(self, flows: Iterable[StaleFlows], loop: Loop) -> None:
        self._loop = loop
        self._awake = {each: asyncio.Event() for each in flows}
        for each in self._awake:
            each.patient = True

    def look(self) -> None:
        """Search soon, if flows wait."""
        for flows, awake in self._awake.items():
            if flows.waiting:
                awake.set()

    async def run(self) -> None:
        """Search on request. Never returns."""
        await asyncio.gather(*(self._follow(flows, awake) for flows, awake in self._awake.items()))

    async def _follow(self, flows: StaleFlows, awake: asyncio.Event) -> None:
        while True:
            await awake.wait()
            awake.clear()
            async with self._loop.idle:
                search = flows.begin()
            if search:
                await asyncio.to_thread(search.run)
                if search.has_found:
                    self._loop.wake()
                await asyncio.sleep(min(search.seconds / SHARE, LONGEST))

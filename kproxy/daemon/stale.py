"""Searches stale UDP flows and affinity entries in threads of their own, and limits the CPU time of that.

reconcile/flows.py and affinity.py say what is searched, and why a round does not wait for it.

After a first change, the search begins immediately. The next one begins so much later that searches take
SHARE of a CPU at most, and serves all changes until then. While the kernel searches flows, it does not let
other threads use the CPU, so a change that is to be programmed on this CPU waits for 10 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from kproxy.daemon.loop import Loop

SHARE = 0.01
"""The maximum share of a CPU, while a search takes less than a hundredth of LONGEST."""
LONGEST = 1.0
"""The maximum number of seconds between two searches."""


class Search(Protocol):
    """A search that does not delay rounds: FlowSearch or AffinitySearch."""

    seconds: float
    """Its CPU time."""

    def run(self) -> None: ...

    @property
    def has_found(self) -> bool: ...


class Stale(Protocol):
    """What searches are for: StaleFlows or StaleAffinity."""

    patient: bool

    @property
    def waiting(self) -> bool: ...

    def begin(self) -> Search | None: ...


class StaleSearcher:
    """Searches what is stale in each family. What it finds is ended in a round."""

    def __init__(self, stale: Iterable[Stale], loop: Loop) -> None:
        self._loop = loop
        self._awake = {each: asyncio.Event() for each in stale}
        for each in self._awake:
            each.patient = True

    def look(self) -> None:
        """Search soon, if something waits."""
        for stale, awake in self._awake.items():
            if stale.waiting:
                awake.set()

    async def run(self) -> None:
        """Search on request. Never returns."""
        await asyncio.gather(*(self._follow(stale, awake) for stale, awake in self._awake.items()))

    async def _follow(self, stale: Stale, awake: asyncio.Event) -> None:
        while True:
            await awake.wait()
            awake.clear()
            async with self._loop.idle:
                search = stale.begin()
            if search:
                await asyncio.to_thread(search.run)
                if search.has_found:
                    self._loop.wake()
                await asyncio.sleep(min(search.seconds / SHARE, LONGEST))

"""The loop: one task that knows what is wanted and what the kernel holds, and makes them agree.

    source -- wake --> take what changed --> claims --> Tables.apply --> observers
                            (a thread of its own: the kernel may take a second)

Events that come while a round runs are one round together. Nothing is programmed before the source
knows everything once; the first round compares the tables as a whole, and so does one when somebody
else changed a table. Every sync period it is made sure that nobody did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from kproxy.model import Family, NamespacedName, Node
from kproxy.problems import KproxyError
from kproxy.reconcile.core.backoff import FIRST, Backoff
from kproxy.reconcile.round import Edit, Round, Tables
from kproxy.resolve.frontends import claim
from kproxy.sources.source import FollowedSource
from kproxy.table.skeleton import Options

EVERYTHING = frozenset(Family)


class RoundHooks:
    """What is to be done before and after the tables change, in the kernel's thread: here nothing."""

    def before(self) -> None:
        """The source has what is wanted now; the tables do not have it yet."""

    def after(self, done: Round) -> None:
        """The tables have it, those of families aside that failed."""

    def due(self) -> float | None:
        """When something that failed is to be tried again (time.monotonic); None: nothing did."""


class Progress(NamedTuple):
    """What a round came to, for those who look on."""

    round: Round
    seconds: float
    """How long it took, once it was known what had changed."""
    names: Collection[NamespacedName]
    """The services that were looked at."""
    triggers: Collection[str] = ()
    """When what changed their endpoints happened (RFC 3339), as far as it is known."""
    begun: float = 0.0
    """What had changed before is in (time.monotonic); what came later may wait for the next round."""


class Periods(NamedTuple):
    """How often, in seconds."""

    check: float
    """From one look at whether the tables need comparing to the next, at most."""
    pause: float
    """From one round to the next, at least."""


class Loop:
    """`run` until cancelled."""

    def __init__(
        self,
        source: FollowedSource,
        tables: Tables,
        options: Callable[[], Options],
        periods: Periods,
        beside: RoundHooks,
    ) -> None:
        """`options` is asked before each round; KproxyError: they are not known yet."""
        self.source = source
        self.tables = tables
        self.observers: list[Callable[[Progress], None]] = []
        """Called after each round, in the event loop."""
        self.woken: list[Callable[[], None]] = []
        """Called when something may have changed."""
        self.taken: list[Callable[[int], None]] = []
        """Called before a round, with the number of services that changed."""
        self.failed: list[Callable[[KproxyError], None]] = []
        """Called when what changed could not be taken in."""
        self.idle = asyncio.Lock()
        """Held while a round is under way."""
        self._options = options
        self._beside = beside
        self._periods = periods
        self._awake = asyncio.Event()
        self._suspect = EVERYTHING
        self._edits: list[Edit] = []
        self._node: Node | None = None
        self._backoff = Backoff()

    def wake(self) -> None:
        """Something changed: look soon."""
        self._awake.set()
        for observer in self.woken:
            observer()

    def suspect(self, families: frozenset[Family] = EVERYTHING, edits: Iterable[Edit] = ()) -> None:
        """Somebody may have changed these tables: compare them as a whole, soon. Of others, elements only."""
        self._suspect |= families
        self._edits += edits
        self.wake()

    async def run(self) -> None:
        """Program what the source says; never returns."""
        with ThreadPoolExecutor(1, "kernel") as thread:
            await self._rounds(thread)

    async def _rounds(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        checked = loop.time()
        while True:
            await self._wait(checked + self._periods.check)
            if not self.source.synced:
                continue
            begun = loop.time()
            suspect, self._suspect = self._suspect, frozenset()
            edits, self._edits = self._edits, []
            try:
                async with self.idle:
                    if begun - checked >= self._periods.check:
                        suspect |= self.tables.doubtful()
                        checked = begun
                    names, triggers = await self.source.take(), self.source.take_triggers()
                    for taken in self.taken:
                        taken(len(names))
                    self.tables.set_options(self._options())
                    progress = await loop.run_in_executor(thread, self._round, names, suspect, edits)
            except KproxyError as error:
                self._suspect |= suspect
                self._edits[:0] = edits
                self._node = None  # what was taken is lost: look at everything
                self._backoff.failed(loop.time())
                for observer in self.failed:
                    observer(error)
                continue
            self._backoff.succeeded()
            if progress.round.checked:
                checked = begun
            for watching in self.observers:
                watching(progress._replace(triggers=triggers, begun=begun))
            await asyncio.sleep(self._periods.pause - (loop.time() - begun))

    async def _wait(self, check: float) -> None:
        """Until somebody wakes the loop, something is to be tried again, or a check is due."""
        if not self.source.synced:
            await self._until(None)
        elif self._backoff.due > asyncio.get_running_loop().time():
            await asyncio.sleep(FIRST)  # whatever happens, it is not tried in a hurry
            await self._until(self._backoff.due)
        else:
            dues = (check, self.tables.due(), self._beside.due())
            await self._until(min(due for due in dues if due is not None))

    async def _until(self, when: float | None) -> None:
        try:
            async with asyncio.timeout_at(when):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()

    def _round(
        self, names: Collection[NamespacedName], suspect: frozenset[Family], edits: list[Edit]
    ) -> Progress:
        """In the kernel's thread."""
        begun = time.monotonic()
        node = self.source.node()
        if node != self._node:
            names = {*names, *self.source.names(), *self.tables.intent.names()}
        claims = {}
        for name in names:
            service = self.source.service(name)
            claims[name] = None if service is None else claim(service, self.source.slices(name), node)
        self._beside.before()
        done = self.tables.apply(claims, self.source.protected, suspect, edits)
        self._beside.after(done)
        self._node = node
        return Progress(done, time.monotonic() - begun, claims.keys())

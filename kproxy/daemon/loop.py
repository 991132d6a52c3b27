"""The loop waits for changes, and runs rounds of the reconciler.

    source -- wake --> take changes --> Reconciler.round --> observers
                                         (in a separate thread, because the kernel may need a second)

All events that arrive during a round are handled in the next one. There is no round before the source has
read everything once. The first round compares whole tables. So does a round after another program changed a
table. Every sync period the loop checks whether that happened.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from msgspec.structs import replace

from kproxy.intake.threads import started_threads
from kproxy.model import Family
from kproxy.problems import SHORTAGES, HostError, KproxyError
from kproxy.reconcile.core.backoff import FIRST, Backoff
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.sources.source import FollowedSource

EVERYTHING = frozenset(Family)


class Periods(NamedTuple):
    """Intervals in seconds."""

    check: float
    """The maximum interval between checks whether another program changed the tables."""
    pause: float
    """The minimum interval from the start of one round to the next."""


class Loop:
    """Runs rounds until cancelled."""

    def __init__(
        self,
        source: FollowedSource,
        reconciler: Reconciler,
        periods: Periods,
        observers: Sequence[RoundObserver] = (),
    ) -> None:
        self.source = source
        self.reconciler = reconciler
        self.idle = asyncio.Lock()
        """Held during a round."""
        self.check: Callable[[frozenset[Family]], frozenset[Family]] = frozenset
        """Takes the families whose table another program may have changed, once in each sync period.

        Returns those to compare in this round.
        """
        self._observers = observers
        self._periods = periods
        self._awake = asyncio.Event()
        self._suspect = EVERYTHING
        self._edits: list[Edit] = []
        self._backoff = Backoff()

    def wake(self) -> None:
        """Run a round soon, because something changed."""
        self._awake.set()
        for observer in self._observers:
            observer.change_noticed()

    def suspect(self, families: frozenset[Family] = EVERYTHING, edits: Iterable[Edit] = ()) -> None:
        """Compare the whole tables of these families soon, and repair the elements that `edits` name."""
        self._suspect |= families
        self._edits += edits
        self.wake()

    async def run(self) -> None:
        """Run rounds. Never returns."""
        try:
            with started_threads(1, "kernel") as thread:
                await self._rounds(thread)
        finally:
            self.reconciler.finish()

    async def _rounds(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        checked = loop.time()
        while True:
            await self._wait(checked + self._periods.check)
            if not self.source.synced:
                continue
            begun = loop.time()
            check = begun - checked >= self._periods.check
            try:
                async with self.idle:
                    done = await self._round(thread, check)
            except KproxyError as error:
                self._backoff.failed(loop.time())
                for observer in self._observers:
                    observer.round_failed(error)
                continue
            self._backoff.succeeded()
            if check or done.compared:
                checked = begun
            for observer in self._observers:
                observer.round_done(replace(done, begun=begun))
            await asyncio.sleep(self._periods.pause - (loop.time() - begun))

    async def _round(self, thread: ThreadPoolExecutor, check: bool) -> RoundReport:
        """Take the changes from the source, and run a round in the thread."""
        suspect, self._suspect = self._suspect, frozenset()
        edits, self._edits = self._edits, []
        try:
            if check:
                suspect |= self.check(self.reconciler.possibly_changed())
            names, triggers = await self.source.take(), self.source.take_triggers()
            for observer in self._observers:
                observer.round_started(len(names))
            run = asyncio.get_running_loop().run_in_executor
            done = await run(thread, self.reconciler.round, names, suspect, edits)
        except (KproxyError, OSError) as error:
            self._suspect |= suspect
            self._edits[:0] = edits
            self.reconciler.changes_lost()
            if isinstance(error, OSError) and error.errno in SHORTAGES:
                raise HostError(f"This host lacks files or memory: {error.strerror}.") from error
            raise
        return replace(done, triggers=triggers)

    async def _wait(self, check: float) -> None:
        """Wait until the loop is woken, or a failed attempt or a check is due."""
        if not self.source.synced:
            await self._until(None)
        elif self._backoff.due > asyncio.get_running_loop().time():
            await asyncio.sleep(FIRST)  # the minimum delay, also if the loop is woken
            await self._until(self._backoff.due)
        else:
            due = self.reconciler.due()
            await self._until(check if due is None else min(check, due))

    async def _until(self, when: float | None) -> None:
        try:
            async with asyncio.timeout_at(when):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()


def freeze_memory() -> None:
    """Exclude the objects of the first round from garbage collection, because they stay.

    Commands run without garbage collection (kproxy/__main__.py). It begins here.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()

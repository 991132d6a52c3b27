"""The loop: waits for changes, and makes one round of the reconciler after another.

    source -- wake --> take what changed --> Reconciler.round --> observers
                            (a thread of its own: the kernel may take a second)

Events that come while a round runs are one round together. Nothing is programmed before the source
knows everything once; the first round compares the tables as a whole, and so does one when another
program changed a table. Every sync period the loop checks whether that happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from kproxy.model import Family
from kproxy.problems import KproxyError
from kproxy.reconcile.core.backoff import FIRST, Backoff
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.sources.source import FollowedSource

EVERYTHING = frozenset(Family)


class Periods(NamedTuple):
    """How often, in seconds."""

    check: float
    """From one check whether the tables need comparing to the next, at most."""
    pause: float
    """From one round to the next, at least."""


class Loop:
    """`run` until cancelled."""

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
        """Held while a round is under way."""
        self._observers = observers
        self._periods = periods
        self._awake = asyncio.Event()
        self._suspect = EVERYTHING
        self._edits: list[Edit] = []
        self._backoff = Backoff()

    def wake(self) -> None:
        """Something changed: make a round soon."""
        self._awake.set()
        for observer in self._observers:
            observer.change_noticed()

    def suspect(self, families: frozenset[Family] = EVERYTHING, edits: Iterable[Edit] = ()) -> None:
        """Other programs may have changed these tables: compare them soon. Of other tables, `edits` only."""
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
                observer.round_done(done._replace(begun=begun))
            await asyncio.sleep(self._periods.pause - (loop.time() - begun))

    async def _round(self, thread: ThreadPoolExecutor, check: bool) -> RoundReport:
        """Take what changed, and reconcile it in the kernel's thread."""
        suspect, self._suspect = self._suspect, frozenset()
        edits, self._edits = self._edits, []
        try:
            if check:
                suspect |= self.reconciler.possibly_changed()
            names, triggers = await self.source.take(), self.source.take_triggers()
            for observer in self._observers:
                observer.round_started(len(names))
            run = asyncio.get_running_loop().run_in_executor
            done = await run(thread, self.reconciler.round, names, suspect, edits)
        except KproxyError:
            self._suspect |= suspect
            self._edits[:0] = edits
            self.reconciler.changes_lost()
            raise
        return done._replace(triggers=triggers)

    async def _wait(self, check: float) -> None:
        """Until the loop is woken, something is to be tried again, or a check is due."""
        if not self.source.synced:
            await self._until(None)
        elif self._backoff.due > asyncio.get_running_loop().time():
            await asyncio.sleep(FIRST)  # whatever happens, not sooner
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

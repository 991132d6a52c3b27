"""The loop: one task that knows what is wanted and what the kernel holds, and makes them agree.

    source -- wake --> take what changed --> claims --> Tables.apply --> observers
                            (a thread of its own: the kernel may take a second)

Events that come while a round runs are one round together. Nothing is programmed before the source
knows everything once; the first round compares the tables as a whole, and so does one every sync
period, whenever the node's own addresses are others, and when somebody else changed a table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from kproxy.daemon.backoff import Backoff
from kproxy.daemon.tables import Round, Tables
from kproxy.model import EndpointSlice, Family, NamespacedName, Node, Service
from kproxy.problems import KproxyError
from kproxy.resolve.frontends import claim

logger = logging.getLogger(__name__)
EVERYTHING = frozenset(Family)


class Source(Protocol):
    """Where services come from: manifests, or a cluster's API."""

    @property
    def synced(self) -> bool:
        """Whether everything has been read once."""

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow what changes, and `wake` the loop when something did; never returns."""

    def take(self) -> Iterable[NamespacedName]:
        """The services that changed since the last call; KproxyError: to be tried again later."""

    def names(self) -> Iterable[NamespacedName]:
        """All services."""

    def service(self, name: NamespacedName) -> Service | None:
        """A service with its addresses and node ports; None: there is none."""

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Its endpoints."""

    def node(self) -> Node:
        """This node, as it is now."""

    def kept(self, name: NamespacedName) -> bool:
        """Whether nothing may be removed of it, since part of it could not be read."""


class Progress(NamedTuple):
    """What a round came to, for those who look on."""

    round: Round
    seconds: float
    """How long it took, reading included."""
    services: int
    """How many of them were looked at."""


class Loop:
    """`run` until cancelled. `observers` are called in the loop's thread after each round."""

    def __init__(
        self,
        source: Source,
        tables: Tables,
        sync_period: float,
        min_sync_period: float = 0.0,
        observers: Iterable[Callable[[Progress], None]] = (),
    ) -> None:
        self.source = source
        self.tables = tables
        self.problem = ""
        """Why what changed could not be taken in, "" if it could: a sentence."""
        self._observers = list(observers)
        self._sync_period = sync_period
        self._min_sync_period = min_sync_period
        self._awake = asyncio.Event()
        self._suspect = EVERYTHING
        self._node: Node | None = None
        self._backoff = Backoff()

    def wake(self) -> None:
        """Something changed: look soon."""
        self._awake.set()

    def suspect(self, families: frozenset[Family] = EVERYTHING) -> None:
        """Somebody may have changed these tables: compare them as a whole, soon."""
        self._suspect |= families
        self._awake.set()

    async def run(self) -> None:
        """Follow the source and program what it says; ends only by an error of the source or cancelled."""
        with ThreadPoolExecutor(1, "kernel") as thread:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.source.run(self.wake))
                tasks.create_task(self._rounds(thread))

    async def _rounds(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        checked = loop.time()
        while True:
            await self._wait(checked + self._sync_period)
            if not self.source.synced:
                continue
            begun = loop.time()
            if begun - checked >= self._sync_period:
                self._suspect = EVERYTHING
            suspect, self._suspect = self._suspect, frozenset()
            try:
                progress = await loop.run_in_executor(thread, self._round, suspect)
            except KproxyError as error:
                self._suspect |= suspect
                self._node = None  # what was taken is lost: look at everything
                self._backoff.failed(loop.time())
                self.problem = str(error)
                logger.error("%s", error)
                continue
            self._backoff.succeeded()
            self.problem = ""
            if progress.round.checked:
                checked = begun
            for observer in self._observers:
                observer(progress)
            await asyncio.sleep(self._min_sync_period - (loop.time() - begun))

    async def _wait(self, check: float) -> None:
        """Until somebody wakes the loop, something is to be tried again, or a check is due."""
        loop = asyncio.get_running_loop()
        while self._backoff.due > loop.time():
            await asyncio.sleep(self._backoff.due - loop.time())
            self._awake.set()
        due = self.tables.due()
        try:
            async with asyncio.timeout_at(check if due is None else min(check, due)):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()

    def _round(self, suspect: frozenset[Family]) -> Progress:
        """In the kernel's thread."""
        begun = time.monotonic()
        names: Iterable[NamespacedName] = self.source.take()
        node = self.source.node()
        if node != self._node:
            names = {*names, *self.source.names(), *self.tables.intent.names()}
        claims = {}
        for name in names:
            service = self.source.service(name)
            claims[name] = None if service is None else claim(service, self.source.slices(name), node)
        done = self.tables.apply(claims, self.source.kept, suspect)
        self._node = node
        return Progress(done, time.monotonic() - begun, len(claims))

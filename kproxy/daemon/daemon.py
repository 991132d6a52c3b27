"""A daemon put together: the loop, what listens to the kernel, what is told of it, and its end.

Everything runs in one event loop, but for the kernel's thread (loop.py). SIGTERM and SIGINT end it and
leave the tables as they are, so that traffic goes on and the next one finds them; a second one does not
wait until the round that is under way is done. SIGHUP has everything read and compared anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Iterator, Mapping

from kproxy.control.channel import Revision
from kproxy.control.snapshot import take_snapshot
from kproxy.daemon.loop import Loop, Periods
from kproxy.kernel.monitor import TableMonitor, address_changes, readable
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.skeleton_probe import SkeletonProbe
from kproxy.model import Family, Node
from kproxy.observe.log import Reporter
from kproxy.observe.servers import Servers
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.backoff import FIRST, Backoff
from kproxy.reconcile.core.report import RoundReport, plural
from kproxy.reconcile.dataplane import LARGE, Dataplane
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.settings.derived import ListenAddresses
from kproxy.show.snapshot import Snapshot
from kproxy.sources.source import FollowedSource
from kproxy.table.programmed import ProgrammedSide, programmed_sides
from kproxy.table.skeleton import Options

logger = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
REPAIR_SECONDS = 5.0
"""From one repair to the next at most, while somebody else changes our tables again and again."""
STOP = (signal.SIGTERM, signal.SIGINT)


class Daemon(RoundObserver):
    """One node's tables, kept true. Made before there are threads; `run` returns when it is told to stop."""

    def __init__(
        self,
        source: FollowedSource,
        netlink: Netlink,
        skeleton_probe: SkeletonProbe,
        options: Callable[[Node], Options],
        reporter: Reporter,
        periods: Periods,
        listen: ListenAddresses,
        addresses: UplinkAddresses | None,
        last_seen: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """`last_seen`: when each source that speaks unasked was last heard (time.monotonic)."""
        self._netlink = netlink
        self._skeleton_probe = skeleton_probe
        self._dataplanes = {
            family: Dataplane(netlink, family, Options(), skeleton_probe.expected_structure)
            for family in Family
        }
        self.source = source
        self.reconciler = Reconciler(source, self._dataplanes, options, addresses)
        self.reporter = reporter
        self.servers = Servers(listen, source, self.reconciler, last_seen, periods.pause)
        self.loop = Loop(source, self.reconciler, periods, (self.servers, reporter, self))
        self.revision = Revision()
        """Of what `snapshot` contains, as of the last round."""
        self._programmed = asyncio.Event()
        self._ready = self._watching = False

    async def run(self, addresses_changed: Callable[[], None]) -> None:
        """Until a signal, or something fails that should not."""
        events = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in STOP:
            events.add_signal_handler(number, stop.set)

        def addresses() -> None:
            addresses_changed()
            self.source.host_changed()
            self.loop.wake()

        def everything() -> None:
            addresses_changed()
            self.source.host_changed()
            self.source.refresh()
            self.loop.suspect()

        events.add_signal_handler(signal.SIGHUP, everything)
        own = (self.source.run(self.loop.wake), self.loop.run(), self._watch_tables(), self._watch_problems())
        work = (*own, address_changes(addresses), self._skeleton_probe.watch(), self.servers.watchdog())
        self.servers.open()
        tasks = [asyncio.create_task(job) for job in work]
        ending = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for number in STOP:
                events.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
            for task in (*tasks, ending):
                task.cancel()
            await asyncio.gather(*tasks, ending, return_exceptions=True)
            self.servers.close()
        for task in done - {ending}:
            await task  # raises what it failed with

    async def snapshot(self) -> Snapshot:
        """What the commands show of it, as of the end of a round."""
        async with self.loop.idle:
            frontends, problems = self.reconciler.intent.frontends(), self.reconciler.problems()
            programmed = list(self._programmed_sides())
            return take_snapshot(self.source, frontends, problems, self.reporter.last_errors, programmed)

    def _programmed_sides(self) -> Iterator[ProgrammedSide]:
        """What the tables contain of protected services."""
        if protected := self.reconciler.protected():
            for dataplane in self._dataplanes.values():
                yield from programmed_sides(dataplane.applied, protected)

    async def _watch_tables(self) -> None:
        """Compare a table as soon as somebody else changes it; ever more seldom if he does it again at once.

        Not from the very beginning: while somebody listens, the kernel describes each element to be sent
        to him, though a filter drops it: the transaction of a first round takes three times as long.
        """
        await self._programmed.wait()
        events, pace = asyncio.get_running_loop(), Backoff(REPAIR_SECONDS)
        async with self.loop.idle:
            monitor = TableMonitor(self._netlink.port)
            self.loop.suspect(self.reconciler.doubtful())  # changed since the round read them
        for dataplane in self._dataplanes.values():
            dataplane.unheard = monitor.paused
        self._watching = True
        try:
            while True:
                await readable(monitor)
                await self._hold_back(pace)
                async with self.loop.idle:  # which generations are our own is known after a round
                    touched = monitor.foreign_changes(self._is_ours)
                if touched:
                    if events.time() - pace.due > REPAIR_SECONDS:
                        pace.succeeded()
                    pace.failed(events.time())
                    self.loop.suspect(
                        frozenset(family for family, keys in touched.items() if keys is None),
                        [Edit(family, keys) for family, keys in touched.items() if keys is not None],
                    )
        finally:
            monitor.close()

    async def _hold_back(self, pace: Backoff) -> None:
        """Until a repair is due, or a table is gone: then no packet finds its way meanwhile."""
        while (left := pace.due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, FIRST))
            async with self.loop.idle:
                if self.reconciler.any_gone():
                    return

    def _is_ours(self, generation: int) -> bool:
        return any(generation in dataplane.own_generations for dataplane in self._dataplanes.values())

    async def _watch_problems(self) -> None:
        """Tell what is wrong with the source while it brings about no round: a server that is away."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self.source.synced:
                gc.collect(1)  # nothing else does before the first round, and a server may be away for days
            async with self.loop.idle:
                self._tell_problems()

    def _tell_problems(self) -> None:
        found = self.source.problems() + self.source.warnings() + self.reconciler.problems()
        self.reporter.problems(found)

    # --- after each round ---

    def round_done(self, done: RoundReport) -> None:
        """Log problems, and that kproxy is ready; look again at what was not watched."""
        self._tell_problems()
        self._say_ready(done)
        self._look_again(done)
        self.revision.set(self.source.revision)
        _settle_memory()

    def _say_ready(self, done: RoundReport) -> None:
        if not self._programmed.is_set() and len(done.failures) < len(self._dataplanes):
            self._programmed.set()
        if not self._ready and not done.failures:
            self._ready = True
            logger.info("kproxy runs: %s looked at", plural(len(done.names), "service"))

    def _look_again(self, done: RoundReport) -> None:
        """After a round during which the monitor was paused."""
        large = self._watching and any(report.added + report.removed > LARGE for report in done.reports)
        if large and (doubtful := self.reconciler.doubtful()):
            self.loop.suspect(doubtful)


def _settle_memory() -> None:
    """What a first round made stays: no collection need look at it, then or later."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()

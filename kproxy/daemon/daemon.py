"""The daemon: the loop, the monitors of the kernel, the observers, and signals.

Everything runs in one event loop, except for rounds (loop.py). SIGTERM and SIGINT end the daemon and leave
the tables as they are, so that traffic continues and the next start finds them. A second signal does not
wait for the current round. SIGHUP reads and compares everything again.
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
from kproxy.observe.metrics import Requests
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
"""From one repair to the next at most, while another program changes the tables again and again."""
STOP = (signal.SIGTERM, signal.SIGINT)


class Daemon(RoundObserver):
    """Keeps one node's tables up to date. Made before there are threads; `run` returns after a signal."""

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
        requests: Callable[[], Requests] = dict,
    ) -> None:
        """`last_seen`: when each connection of the source last received something (time.monotonic).

        `requests`: how many requests it sent to an API server.
        """
        self._netlink = netlink
        self._skeleton_probe = skeleton_probe
        self._dataplanes = {
            family: Dataplane(netlink, family, Options(), skeleton_probe.expected_structure)
            for family in Family
        }
        self.source = source
        self.reconciler = Reconciler(source, self._dataplanes, options, addresses)
        self.reporter = reporter
        self.servers = Servers(listen, source, self.reconciler, last_seen, periods.pause, requests)
        self.loop = Loop(source, self.reconciler, periods, (self.servers, reporter, self))
        self.revision = Revision()
        """Of what `snapshot` contains, as of the last round."""
        self._programmed = asyncio.Event()
        self._ready = self._watching = False

    async def run(self, addresses_changed: Callable[[], None]) -> None:
        """Until a signal, or an error that cannot be handled."""
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
            return take_snapshot(
                self.source,
                self.reconciler.intent.frontends(),
                self.reconciler.problems(),
                self.reporter.last_errors,
                list(self._programmed_sides()),
                self.reconciler.warnings(),
            )

    def _programmed_sides(self) -> Iterator[ProgrammedSide]:
        """What the tables contain of protected services."""
        if protected := self.reconciler.protected():
            for dataplane in self._dataplanes.values():
                yield from programmed_sides(dataplane.applied, protected)

    async def _watch_tables(self) -> None:
        """Compare a table when another program changed it; with backoff if that happens again and again.

        Not during the first round: while a monitor listens, the kernel makes a message of each element, even
        if a filter drops it, and the transaction takes three times as long.
        """
        await self._programmed.wait()
        events, pace = asyncio.get_running_loop(), Backoff(REPAIR_SECONDS)
        async with self.loop.idle:
            monitor = TableMonitor(self._netlink.port)
            self.loop.suspect(self.reconciler.possibly_changed())  # changed since the round read them
        for dataplane in self._dataplanes.values():
            dataplane.pause_monitor = monitor.paused
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
        """Until a repair is due, or a table is gone: without it, packets find no service."""
        while (left := pace.due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, FIRST))
            async with self.loop.idle:
                if self.reconciler.any_gone():
                    return

    def _is_ours(self, generation: int) -> bool:
        return any(generation in dataplane.own_generations for dataplane in self._dataplanes.values())

    async def _watch_problems(self) -> None:
        """Log problems of the source that cause no round, such as a server that does not answer."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self.source.synced:
                gc.collect(1)  # nothing else does so before the first round, which may come days later
            async with self.loop.idle:
                self._tell_problems()

    def _tell_problems(self) -> None:
        found = self.source.problems() + self.source.warnings() + self.reconciler.problems()
        self.reporter.problems(found, self.reconciler.warnings())

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
        if large and (possibly_changed := self.reconciler.possibly_changed()):
            self.loop.suspect(possibly_changed)


def _settle_memory() -> None:
    """Exclude what the first round made from garbage collection, since it stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()

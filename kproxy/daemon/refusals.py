"""Looks for refused connections again and again, and tells of them: in the log, and as events of Services."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from itertools import islice

from kproxy.limits import PROBLEMS_LOGGED
from kproxy.observe.core.events import EventLog
from kproxy.observe.core.refused import Episodes, Refusal
from kproxy.observe.refused import RefusedCounters
from kproxy.problems import KproxyError

logger = logging.getLogger(__name__)
INTERVAL = 10.0
"""The minimum number of seconds from one reading of the counters to the next."""
SHARE = 0.005
"""The maximum share of a CPU for reading counters."""
QUICK = 0.02
"""A reading of the counters that takes less CPU time than this may also be made for a snapshot."""


class RefusalWatch:
    """Reads the counters of refused connections."""

    def __init__(
        self, counters: RefusedCounters, log: EventLog, time_of_day: Callable[[], float] = time.time
    ) -> None:
        """`log` gets the events. `time_of_day` returns the seconds of the Unix epoch."""
        self._counters = counters
        self._log = log
        self._time_of_day = time_of_day
        self._episodes: Episodes | None = None
        self._error = ""

    async def run(self) -> None:
        """Look in intervals. What was refused before that is no event. Never returns."""
        await self._read()
        self._episodes = Episodes(time.monotonic())
        while True:
            await asyncio.sleep(max(INTERVAL, self._counters.seconds / SHARE))
            await self._look(self._episodes)
            lines = list(self._episodes.lines(time.monotonic()))
            for line in islice(lines, PROBLEMS_LOGGED):
                logger.warning(line)
            if len(lines) > PROBLEMS_LOGGED:
                logger.warning("and %d more Services refused connections", len(lines) - PROBLEMS_LOGGED)

    async def look_quickly(self) -> None:
        """Look now, if that is quick."""
        if self._episodes and self._counters.seconds < QUICK:
            await self._look(self._episodes)

    async def _look(self, episodes: Episodes) -> None:
        news = await self._read()
        for service, key, event in episodes.take(news, time.monotonic(), self._time_of_day()):
            self._log.put(service, key, event)

    async def _read(self) -> dict[Refusal, int]:
        try:
            return await asyncio.to_thread(self._counters.read_news)
        except (KproxyError, OSError) as error:
            if str(error) != self._error:
                logger.warning("cannot read the counters of refused connections: %s", error)
            self._error = str(error)
            return {}

"""Decides when to read again, so that reading and showing take less than one percent of a CPU. Pure."""

from __future__ import annotations

from collections import deque

SHARE = 0.006
"""The share of a CPU for reading counters and for writing the screen."""
LIVE_SHARE = 0.003
"""The share of a CPU for reading live connections. If there are many, they are read less often."""
WINDOW = 20
"""The number of readings over which the share is computed."""
FIRST = 2
"""The readings that come without a longer pause: rates need two. The first one parses everything."""


class Pace:
    """The times of readings. Times are in seconds, of a clock and of the CPU time of this process."""

    def __init__(self, interval: float) -> None:
        """`interval` is the minimum time between two readings."""
        self.every = interval
        """The time from the last reading to the next one."""
        self.live_due = 0.0
        """When live connections are to be read again."""
        self._interval = interval
        self._readings = 0
        self._points: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def record(self, now: float, cpu: float, live_cpu: float) -> None:
        """Record that a reading ended. `live_cpu` of its CPU time was for live connections."""
        self._readings += 1
        if self._readings > FIRST:
            cost = cpu - self._points[-1][1] - live_cpu
            self.every = max(self._interval, cost / SHARE)
        if live_cpu:
            self.live_due = now + live_cpu / LIVE_SHARE
        self._points.append((now, cpu))

    def share(self) -> float:
        """Return the share of a CPU that this process took in the last readings, without the first one."""
        (begun, before), (now, cpu) = self._points[0], self._points[-1]
        return (cpu - before) / (now - begun) if now > begun else 0.0

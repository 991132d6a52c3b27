"""Exponential backoff with an upper bound."""

from __future__ import annotations

FIRST, MAX_DELAY = 0.5, 30.0
"""The first and the maximum delay in seconds."""


class Backoff:
    """The time of the next attempt. The delay doubles after each failure."""

    def __init__(self, max_delay: float = MAX_DELAY) -> None:
        self._max_delay = max_delay
        self._delay = 0.0
        self.due = float("-inf")
        """The time of the next attempt, on the clock of `now`."""

    def failed(self, now: float) -> None:
        """Record a failed attempt."""
        self._delay = min(2 * self._delay or FIRST, self._max_delay)
        self.due = now + self._delay

    def succeeded(self) -> None:
        """Record a successful attempt."""
        self._delay, self.due = 0.0, float("-inf")

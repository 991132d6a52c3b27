"""When to try again what failed: exponential backoff with an upper bound."""

from __future__ import annotations

FIRST, LONGEST = 0.5, 30.0
"""Seconds."""


class Backoff:
    """Due immediately until something fails; then after half a second, and each time after twice as long."""

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._delay = 0.0
        self.due = float("-inf")
        """When to try again, on the clock of `now`."""

    def failed(self, now: float) -> None:
        """An attempt failed."""
        self._delay = min(2 * self._delay or FIRST, self._longest)
        self.due = now + self._delay

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self._delay, self.due = 0.0, float("-inf")

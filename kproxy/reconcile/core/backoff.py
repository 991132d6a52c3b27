"""When to try again what failed: at once it makes no sense, and for ever later neither."""

from __future__ import annotations

FIRST, LONGEST = 0.5, 30.0
"""Seconds."""


class Backoff:
    """Due at once, until something fails; then after half a second, and twice as long each time. Pure."""

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._delay = 0.0
        self.due = float("-inf")
        """When to try again, on the clock of `now`."""

    def failed(self, now: float) -> None:
        """It was tried, and failed."""
        self._delay = min(2 * self._delay or FIRST, self._longest)
        self.due = now + self._delay

    def succeeded(self) -> None:
        """It was tried, and went well."""
        self._delay, self.due = 0.0, float("-inf")

"""Describes errors of requests to the API server as sentences."""

from __future__ import annotations

from kproxy.intake.dial import reason


def sentence(error: BaseException) -> str:
    """Return the description of an error that ended a request. It is never empty."""
    if isinstance(error, TimeoutError):
        return "timeout while waiting for data"
    if isinstance(error, OSError):
        return reason(error)
    return str(error) or type(error).__name__

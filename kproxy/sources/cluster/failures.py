"""Errors of requests to the API server, and their descriptions."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from kproxy.decode import wire
from kproxy.intake.dial import reason
from kproxy.limits import LARGEST_RETRY_AFTER
from kproxy.problems import KproxyError
from kproxy.sources.cluster.core.events import decimal
from kproxy.sources.cluster.credentials import CredentialsError

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class StatusError(KproxyError):
    """The server responded with an error. `retry_after` is the delay in seconds that it requests, or 0."""

    def __init__(self, status: wire.Status, code: int, retry_after: str | None = None) -> None:
        """`retry_after`: the header of this name."""
        self.code = code
        self.of_api_server = bool(status.reason or status.message)
        """False if something in front of the API server responded, for example a load balancer."""
        name = status.reason or _PHRASES.get(code, "")
        super().__init__(": ".join(filter(None, (f"{code} {name}".strip(), status.message))))
        in_body = status.details.retry_after_seconds if status.details else None
        in_header = retry_after if retry_after and retry_after.isdecimal() else ""
        requested = decimal(in_header) if in_header else in_body or 0
        self.retry_after = float(
            LARGEST_RETRY_AFTER if requested is None else min(requested, LARGEST_RETRY_AFTER)
        )


def sentence(error: BaseException) -> str:
    """Return the description of an error that ended a request. It is never empty."""
    if isinstance(error, TimeoutError):
        return "timeout while waiting for data"
    if isinstance(error, OSError):
        return reason(error)
    return str(error) or type(error).__name__


class Failure(NamedTuple):
    """Why a kind cannot be followed."""

    message: str
    concerns_all: bool
    """Whether no kind can be followed: the cause is common, and no data came from the server meanwhile."""


def is_common(error: BaseException) -> bool:
    """Whether an error is one of the connection or the credentials, which all kinds have in common."""
    if isinstance(error, StatusError):
        return error.code == HTTPStatus.UNAUTHORIZED or (error.code >= 500 and not error.of_api_server)
    return isinstance(error, OSError | CredentialsError)

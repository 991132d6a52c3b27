"""What a watch says, line by line, and where it begins and ends: pure but for the length of a watch."""

from __future__ import annotations

import random
from typing import NamedTuple, Protocol

import msgspec

from tests.apiserver.reads import Match, Query, opened, revision_of
from tests.apiserver.resources import EMPTY, Resource
from tests.apiserver.status import ApiError, invalid
from tests.apiserver.store import Event

MIN_TIMEOUT = 1800.0
"""Seconds that a watch without timeoutSeconds lasts at least; at most twice that."""


class Settings(Protocol):
    """How the server treats watches; see `server.ApiServer`."""

    bookmark_every: float
    bookmarks: bool
    expired_as_status: bool


def event_line(resource: Resource, kind: str, body: bytes) -> bytes:
    """One line of a stream."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), opened(resource, body))


def status_line(error: ApiError) -> bytes:
    """An ERROR event."""
    return msgspec.json.encode({"type": "ERROR", "object": error.status}) + b"\n"


def shown(resource: Resource, event: Event, matches: Match | None) -> tuple[str, bytes] | None:
    """What a watch shows of a change: (type, line), or None. An object that stops matching is DELETED."""
    before = event.before is not None and (matches is None or matches(event.before))
    after = event.after is not None and (matches is None or matches(event.after))
    if after:
        assert event.after
        kind = "MODIFIED" if before else "ADDED"
        return kind, event_line(resource, kind, event.after.body)
    if before:
        assert event.before
        return "DELETED", event_line(resource, "DELETED", event.before.at(event.revision).body)
    return None


def bookmark_line(resource: Resource, revision: int) -> bytes:
    """A bookmark: an object of the kind in which nothing is set but the resourceVersion."""
    content = {"metadata": {"resourceVersion": str(revision)}, **EMPTY.get(resource.kind, {})}
    return event_line(resource, "BOOKMARK", msgspec.json.encode(content))


class Start(NamedTuple):
    """Where a watch begins."""

    since: int | None
    """None: with all objects that there are."""
    newer_than: int
    """Events up to this revision are not sent, which matters if it is in the future."""


def start_of(query: Query, now: int) -> Start:
    """As the newest revision is `now`; 422 for parameters that do not go together."""
    for option in ("resourceVersionMatch", "sendInitialEvents"):
        if query.get(option):
            raise invalid(f"{option} is forbidden for watch unless the WatchList feature gate is enabled")
    revision = revision_of(query)
    # Nobody has written what is in the future: such a watch is silent until the counter is there.
    return Start(min(revision, now), revision) if revision else Start(None, 0)


def wants_bookmarks(query: Query) -> bool:
    """Whether the client has asked for them."""
    return query.get("allowWatchBookmarks", "") in ("true", "1")


def seconds_of(query: Query) -> float:
    """How long a watch is to last."""
    text = query.get("timeoutSeconds", "")
    return float(text) if text.isdecimal() and text != "0" else MIN_TIMEOUT * (1 + random.random())


def next_bookmark(now: float, deadline: float, every: float) -> float:
    """Every so often, and two seconds before the end."""
    before_end = deadline - 2
    return min(now + every, before_end) if before_end > now else now + every

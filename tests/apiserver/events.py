"""The lines of a watch, its start and its end. Pure, except for the random length of a watch."""

from __future__ import annotations

import random
from typing import NamedTuple, Protocol

import msgspec

from tests.apiserver.reads import Match, Query, opened, revision_of
from tests.apiserver.resources import EMPTY, Resource
from tests.apiserver.status import ApiError, invalid, too_large
from tests.apiserver.store import Event

END_OF_LIST = "k8s.io/initial-events-end"
MIN_TIMEOUT = 1800.0
"""The minimum duration of a watch without timeoutSeconds, in seconds; the maximum is twice that."""


class Settings(Protocol):
    """How the server handles watches; see `server.ApiServer`."""

    bookmark_every: float
    bookmarks: bool
    expired_as_status: bool
    streams: bool


def event_line(resource: Resource, kind: str, body: bytes) -> bytes:
    """Return a line of a stream."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), opened(resource, body))


def status_line(error: ApiError) -> bytes:
    """Return an ERROR event."""
    return msgspec.json.encode({"type": "ERROR", "object": error.status}) + b"\n"


def shown(resource: Resource, event: Event, matches: Match | None) -> tuple[str, bytes] | None:
    """Return (type, line) of a change in a watch, or None. An object that no longer matches is DELETED."""
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


def bookmark_line(resource: Resource, revision: int, ends_list: bool = False) -> bytes:
    """Return a bookmark: an object of the kind with nothing but the resourceVersion set.

    The bookmark that ends a streamed list has an annotation.
    """
    marks = {"annotations": {END_OF_LIST: "true"}} if ends_list else {}
    content = {
        "metadata": {"resourceVersion": str(revision), **marks},
        **EMPTY.get(resource.kind, {}),
    }
    return event_line(resource, "BOOKMARK", msgspec.json.encode(content))


class Start(NamedTuple):
    """The start of a watch."""

    since: int | None
    """None: start with all existing objects."""
    newer_than: int
    """Events up to this revision are not sent. This matters if it is in the future."""
    ends_list: bool = False
    """Whether a bookmark follows after the existing objects."""


def start_of(query: Query, now: int, streams: bool = True) -> Start:
    """Return the start of a watch at revision `now`; 422 for parameters that exclude each other.

    `streams`: the server has the feature WatchList.
    """
    _check_options(query, streams)
    revision = revision_of(query)
    match query.get("sendInitialEvents"):
        case "true" | "1":
            if revision and revision > now:
                raise too_large(revision, now)
            return Start(None, 0, wants_bookmarks(query))
        case str():
            return Start(min(revision or now, now), revision or now)
    if revision:
        # A watch from a future revision sends nothing until the counter has passed it.
        return Start(min(revision, now), revision)
    return Start(None, 0, streams and wants_bookmarks(query))


def _check_options(query: Query, streams: bool) -> None:
    initial, match = query.get("sendInitialEvents"), query.get("resourceVersionMatch", "")
    if initial is not None and match != "NotOlderThan":
        raise invalid(
            "resourceVersionMatch: Forbidden: "
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if initial is not None and not streams:
        raise invalid(
            "sendInitialEvents: Forbidden: "
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
        )
    if match and initial is None:
        raise invalid(
            "resourceVersionMatch: Forbidden: "
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )


def wants_bookmarks(query: Query) -> bool:
    """Whether the client requests bookmarks."""
    return query.get("allowWatchBookmarks", "") in ("true", "1")


def seconds_of(query: Query) -> float:
    """Return the duration of a watch in seconds."""
    text = query.get("timeoutSeconds", "")
    return float(text) if text.isdecimal() and text != "0" else MIN_TIMEOUT * (1 + random.random())


def next_bookmark(now: float, deadline: float, every: float) -> float:
    """Return the time of the next bookmark: after `every` seconds, or two seconds before the end."""
    before_end = deadline - 2
    return min(now + every, before_end) if before_end > now else now + every

"""A list that arrives as the begin of a watch, and when to request one.

The server sends each object as ADDED, and then a bookmark with an annotation. What changes meanwhile arrives
as in a watch, so an object can come several times, and can be deleted again. Until the bookmark, the list is
not complete and nothing of it may be used: what is missing would look deleted.

Not every server sends streamed lists, and a proxy in between can hold them up. Pages always work.
"""

from __future__ import annotations

from kproxy.limits import API_STREAM_IDLE_SECONDS, API_STREAM_SECONDS
from kproxy.model import NamespacedName
from kproxy.problems import InvalidResponseError
from kproxy.sources.cluster.core.events import Event, ObjectChange, Stock

QUERY = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
"""The parameters of the watch, in addition to those of every watch. Without resourceVersion, the list is at
least as new as the request."""
UNSUPPORTED = (400, 422, 500)
"""The status codes of a server that does not send streamed lists. 500, in an event: its etcd is older than
3.4.31 or 3.5.13, and cannot report its progress."""
PAGES_SECONDS = 600.0
"""For this time after a failure, lists are requested in pages."""
BREAKS = 2
"""After so many connections in a row that ended in the middle of a streamed list, the next one has pages."""


class StreamedList:
    """The objects that arrived so far. Times are those of a monotonic clock, in seconds."""

    def __init__(self, begun: float) -> None:
        self.stock = Stock()
        self._found: dict[NamespacedName, ObjectChange] = {}
        self._end = begun + API_STREAM_SECONDS

    def add(self, event: Event) -> bool:
        """Add an event. Returns whether the list is complete. Raises InvalidResponseError."""
        if event.ends_list and not event.version:
            raise InvalidResponseError("the list has no resourceVersion")
        if event.change is not None:
            self.stock.update(event.change)
            self._found[event.change.key] = event.change
        return event.ends_list

    def changes(self) -> list[ObjectChange]:
        """Return the last state of each object."""
        return list(self._found.values())

    def deadline(self, now: float) -> float:
        """Return when to give up, if nothing arrives from now on."""
        return min(self._end, now + API_STREAM_IDLE_SECONDS)


class Streams:
    """Whether to request lists as streams."""

    def __init__(self) -> None:
        self._breaks = 0
        self._pages_until = float("-inf")

    def wanted(self, now: float) -> bool:
        """Return whether to request the next list as a stream."""
        return now >= self._pages_until

    def complete(self) -> None:
        """Record that a list was complete."""
        self._breaks = 0

    def refused(self, now: float) -> None:
        """Record that a server does not send streamed lists, or not in a way that kproxy can use."""
        self._breaks, self._pages_until = 0, now + PAGES_SECONDS

    def broke(self, now: float) -> None:
        """Record that a request failed, for a reason that may have nothing to do with streams."""
        self._breaks += 1
        if self._breaks >= BREAKS:
            self.refused(now)

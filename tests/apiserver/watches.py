"""Watches: streams of events, one JSON object per line, and actions on open watches.

The queue of a watch contains what it will send, in order: changes from the store, and items from tests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from tests.apiserver import protobuf
from tests.apiserver.events import (
    Settings,
    Start,
    bookmark_line,
    event_line,
    next_bookmark,
    seconds_of,
    shown,
    start_of,
    status_line,
    wants_bookmarks,
)
from tests.apiserver.http import Connection, Cut
from tests.apiserver.reads import Match, Query, matcher
from tests.apiserver.resources import Target
from tests.apiserver.status import ApiError, expired
from tests.apiserver.store import Event, Store


class Line(NamedTuple):
    """Bytes to send unchanged."""

    data: bytes


class Extra(NamedTuple):
    """An event that is not one of the store, as a line of JSON."""

    line: bytes


class End(NamedTuple):
    """The end of the stream, properly or with a RST."""

    reset: bool = False


class BookmarkNow(NamedTuple):
    """A bookmark outside the schedule."""


Item = Event | Line | Extra | End | BookmarkNow


class Sent(NamedTuple):
    """An event that was sent on a watch."""

    revision: int
    kind: str
    key: str
    time: float
    """time.monotonic() just before the bytes were sent."""


class Shown(NamedTuple):
    """An event as a watch shows it."""

    revision: int
    kind: str
    key: str
    line: bytes
    """JSON."""


class Watch:
    """One open watch."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, target: Target, matches: Match | None, query: Query
    ) -> None:
        self.target, self.matches, self.query = target, matches, query
        self.held = False
        """While this is true, nothing is sent: the connection is half open."""
        self.queue: deque[Item] = deque()
        self.wake = asyncio.Event()
        self._loop = loop
        self._woken = False

    def put(self, items: Sequence[Item]) -> None:
        """Add items together. May be called from any thread."""
        self.queue.extend(items)
        self.notify()

    def notify(self) -> None:
        """Wake the task of the watch."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = False
        self.wake.set()


class Watches:
    """All open watches."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.open: list[Watch] = []
        self.sent: deque[Sent] = deque(maxlen=100_000)

    async def serve(self, connection: Connection, target: Target, query: Query) -> None:
        """Send a watch, from its head to its end."""
        watch = Watch(asyncio.get_running_loop(), target, matcher(target, query), query)
        with self.store.lock:
            start = start_of(query, self.store.revision, self.settings.streams)
            try:
                events = self.store.subscribe(target.resource, start.since, watch.put)
            except ApiError as error:
                if self.settings.expired_as_status:
                    raise
                await connection.begin()
                await connection.events([status_line(error)])
                await connection.end()
                return
            self.open.append(watch)
            listed_at = self.store.revision
        first = self._shown(watch, events)
        parts = [each.line for each in first]
        if connection.protobuf:
            try:
                parts = [protobuf.event(line) for line in parts]
            except protobuf.Unencodable:
                connection.protobuf = False
        closed = asyncio.create_task(connection.closed())
        closed.add_done_callback(lambda _: watch.wake.set())
        try:
            await connection.begin()
            self._record(first)
            await connection.chunks(parts)
            if start.ends_list:
                await connection.events([bookmark_line(target.resource, listed_at, ends_list=True)])
            await self._follow(connection, watch, start, closed)
        finally:
            closed.cancel()
            await asyncio.wait((closed,))
            self.store.unsubscribe(target.resource, watch.put)
            self.open.remove(watch)

    async def _follow(
        self, connection: Connection, watch: Watch, start: Start, closed: asyncio.Task[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds_of(watch.query)
        bookmark_at = next_bookmark(loop.time(), deadline, self.settings.bookmark_every)
        while True:
            watch.wake.clear()
            items: list[Item] = []
            while watch.queue and not watch.held:
                items.append(watch.queue.popleft())
            if not await self._items(connection, watch, items, start.newer_than):
                return
            now = loop.time()
            if now >= bookmark_at and not watch.held:
                if self.settings.bookmarks:
                    await self._bookmark(connection, watch, start.newer_than + 1)
                bookmark_at = next_bookmark(now, deadline, self.settings.bookmark_every)
            if now >= deadline and not watch.held:
                await connection.end()
                return
            wait = None if watch.held else max(0, min(deadline, bookmark_at) - now)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await watch.wake.wait()
            if closed.done():
                raise ConnectionResetError("the client has closed the watch")

    async def _items(self, connection: Connection, watch: Watch, items: list[Item], newer_than: int) -> bool:
        """Send queued items. Returns False if one ended the stream."""
        events: list[Event] = []
        for item in items:
            if isinstance(item, Event):
                if item.revision > newer_than:
                    events.append(item)
                continue
            await self._send(connection, watch, events)
            events = []
            match item:
                case Line(data=data):
                    await connection.send(data)
                case Extra(line=line):
                    await connection.events([line])
                case BookmarkNow():
                    await self._bookmark(connection, watch, newer_than)
                case End(reset=True):
                    raise Cut
                case End():
                    await connection.end()
                    return False
        await self._send(connection, watch, events)
        return True

    async def _send(self, connection: Connection, watch: Watch, events: list[Event]) -> None:
        if lines := self._shown(watch, events):
            self._record(lines)
            await connection.events([each.line for each in lines])

    def _shown(self, watch: Watch, events: list[Event]) -> list[Shown]:
        """Return the events that a watch shows."""
        found = []
        for event in events:
            if line := shown(watch.target.resource, event, watch.matches):
                found.append(Shown(event.revision, line[0], event.key, line[1]))
        return found

    def _record(self, events: list[Shown]) -> None:
        now = time.monotonic()
        self.sent.extend(Sent(*event[:3], now) for event in events)

    async def _bookmark(self, connection: Connection, watch: Watch, least: int) -> None:
        """Send a bookmark, unless changes are queued: it would say that there are none up to its revision."""
        with self.store.lock:
            if any(isinstance(item, Event) for item in watch.queue):
                return
            revision = self.store.revision
        if revision >= least and wants_bookmarks(watch.query):
            await connection.events([bookmark_line(watch.target.resource, revision)])

    # Actions of tests on open watches, from any thread; `resource` is a plural, "" for all.

    def of(self, resource: str = "") -> list[Watch]:
        """Return the open watches of a resource."""
        return [watch for watch in list(self.open) if resource in ("", watch.target.resource.plural)]

    def inject(self, data: bytes, resource: str = "") -> None:
        """Send bytes: garbage, a part of a line, or an invented event."""
        self._all(resource, Line(data))

    def error(self, error: ApiError, resource: str = "") -> None:
        """Send an ERROR event, and end the stream as a real server does."""
        self._all(resource, Extra(status_line(error)), End())

    def expire(self, resource: str = "") -> None:
        """Send 410, as a server may do during a watch."""
        self.error(expired("The resourceVersion for the provided watch is too old."), resource)

    def repeat(self, resource: str, key: str) -> None:
        """Send the last state of an object again."""
        for watch in self.of(resource):
            found = self.store.collections[watch.target.resource].objects[key]
            watch.put([Extra(event_line(watch.target.resource, "MODIFIED", found.body))])

    def bookmark(self, resource: str = "") -> None:
        """Send a bookmark now."""
        self._all(resource, BookmarkNow())

    def end(self, resource: str = "") -> None:
        """End the streams properly, as at their timeout."""
        self._all(resource, End())

    def reset(self, resource: str = "") -> None:
        """End the connections with a RST."""
        self._all(resource, End(reset=True))

    def hold(self, resource: str = "") -> None:
        """Send nothing more. The connections stay open."""
        for watch in self.of(resource):
            watch.held = True

    def release(self, resource: str = "") -> None:
        """End `hold`, and send the held items."""
        for watch in self.of(resource):
            watch.held = False
            watch.notify()

    def _all(self, resource: str, *items: Item) -> None:
        for watch in self.of(resource):
            watch.put(items)

"""Follows one kind of object: lists it once, watches it from there, and lists it again if necessary.

The list arrives as the begin of the watch where the server can send it that way (`core/streamed.py`), or in
pages before the watch.

A watch that ends is resumed after the last resourceVersion that was seen. A new list is necessary only if the
server no longer has that version (410), or has never reached it, because it was restored from a backup.
Objects that the new list does not contain were deleted in between.

A restored server may have passed that version again before kproxy reconnects. Then the version belongs to a
different history. To detect this, kproxy compares the object that it saw change last: in the same history, it
still has the version that was seen, or had it at that resourceVersion.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from itertools import islice
from math import inf
from time import monotonic
from typing import NamedTuple, TypeVar

from kproxy.decode import wire
from kproxy.intake.requests import Response
from kproxy.limits import API_DECODED_AT_ONCE, API_IDLE_SECONDS, API_TURN_SECONDS, API_WATCH_GRACE
from kproxy.model import NamespacedName
from kproxy.problems import InvalidResponseError, LimitError, Problem
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.events import SOURCE, Event, ObjectChange, Stock, decimal
from kproxy.sources.cluster.core.formats import PROTOBUF, Format, Json, Page, accepted, format_of
from kproxy.sources.cluster.core.resources import ApiResource
from kproxy.sources.cluster.core.streamed import QUERY, UNSUPPORTED, StreamedList, Streams
from kproxy.sources.cluster.failures import Failure, StatusError, is_common, sentence

Item = TypeVar("Item")
SMALLER = 4
"""If a page is too long, the next list has pages with so many times fewer objects."""


class Pacing(NamedTuple):
    """Sizes and times of requests. Times are in seconds."""

    page: int = 500
    """The maximum number of objects per response to a list request."""
    watch: tuple[int, int] = (300, 600)
    """The limits of the duration of a watch. It is random, so that nodes do not reconnect all at once."""
    idle_timeout: float = API_IDLE_SECONDS
    """A connection that receives no data for this time is closed. Usually a bookmark comes every minute."""
    jitter: float = 1.0
    """The upper bound of the random delay before a watch is resumed that ended early."""
    first_delay: float = 0.8
    """The delay after the second failure in a row. After the first one there is only the jitter; later delays
    double."""
    max_delay: float = 30.0
    """The upper bound of the delay between attempts."""
    min_watch: float = 1.0
    """A watch that lasts at least this time resets the delay. A shorter one counts as a failure."""


class LatestChange(NamedTuple):
    """The most recent change of a kind that was seen."""

    revision: int
    key: NamespacedName
    version: str
    """The resourceVersion of the object; "" if it was deleted."""


class HistoryLostError(Exception):
    """The server's history does not continue the one that was seen. Everything must be listed again."""


class Reflector:
    """Follows a kind. Calls `sink` with changes, and `retain` with all names after each complete list."""

    def __init__(
        self,
        connection: Connection,
        resource: ApiResource,
        sink: Callable[[Iterable[ObjectChange]], None],
        retain: Callable[[str, set[NamespacedName]], None],
        pacing: Pacing,
        content_type: str = PROTOBUF,
    ) -> None:
        """`content_type`: the format to request, of the kinds that have it."""
        self.failure: Failure | None = None
        """Why the kind cannot be followed at present; None if it can."""
        self.contact = -inf
        """The time of the last data from the server (time.monotonic())."""
        self._connection, self._resource, self._pacing = connection, resource, pacing
        self._content_type = content_type
        self._format: Format = Json()
        """The format of the last response."""
        self._newest = resource
        self._sink, self._retain = sink, retain
        self._version = ""
        """The last resourceVersion that was seen; "" if everything must be listed."""
        self._latest: LatestChange | None = None
        self._unpaged = False
        """Request the next list without pages, because the server forgot the version of a list in pages."""
        self._was_listed = False
        self._failing_since = inf
        """When requests began to fail; infinite if the last one succeeded."""
        self._must_check = False
        """The last watch ended early, so the server may have been restored: check its history."""
        self._delay = 0.0
        self._stock = Stock()
        self._streams = Streams()
        self._streamed: StreamedList | None = None
        """The list that arrives in the present watch; None if there is none, or it is complete."""
        self._page = pacing.page
        """The number of objects to request at once."""

    def problem(self, failure: Failure) -> Problem:
        """Return a failure as a problem of this kind alone."""
        return Problem(SOURCE, "", "", f"cannot follow {self._resource.kind}s: {failure.message}")

    @property
    def resource(self) -> ApiResource:
        """The resource that is followed, in the version that the server has."""
        return self._resource

    async def run(self) -> None:
        """List and watch, until cancelled."""
        while True:
            retry_after = 0.0
            try:
                if await self._follow():
                    await self._jitter()
                    continue
            except HistoryLostError:
                self._version = ""
            except LimitError as error:
                self._version, self._unpaged = "", False
                self._page = max(self._page // SMALLER, 1)
                self._fail(error)
            except StatusError as error:
                if error.code == HTTPStatus.NOT_FOUND and self._resource.optional:
                    self._version = ""
                    if self._resource.older:
                        self._resource = self._resource.older
                    else:
                        await self._be_without()
                        self._resource = self._newest
                    continue
                self._fail(error)
                retry_after = error.retry_after
            except Exception as error:  # of any type: neither a response nor a kubeconfig ends kproxy
                self._fail(error)
            await self._pause(retry_after)

    # Requests

    async def _follow(self) -> bool:
        """List if necessary, and watch. Returns whether to continue without a pause, as `_watch` does."""
        if self._version and self._must_check:
            await self._check()
        if self._version:
            return await self._watch()
        if self._streams.wanted(self._now()):
            return await self._stream()
        await self._list()
        return await self._watch()

    async def _list(self) -> None:
        resource = self._resource
        query = {**resource.selector, **({} if self._unpaged else {"limit": str(self._page)})}
        self._latest, self._stock, found = None, Stock(), list[ObjectChange]()
        while True:
            before = len(self._stock)
            metadata, changes = await self._get(resource.path, query)
            async for part in _parts(changes):
                found += self._counted(part)
            self._stock.end_page(before)
            if not metadata.continue_:
                break
            query["continue"] = metadata.continue_
        if not metadata.resource_version:
            raise InvalidResponseError("the list has no resourceVersion")
        await self._replace(found, metadata.resource_version)
        self._must_check = False

    async def _replace(self, found: Iterable[ObjectChange], version: str) -> None:
        """Replace what is known by a complete list, which `_stock` has counted."""
        async for part in _parts(found):
            self._sink(part)
        self._retain(self._resource.kind, self._stock.names())
        self._version, self._unpaged, self._was_listed = version, False, True

    async def _stream(self) -> bool:
        """List as the begin of a watch, and go on watching. Returns whether to continue without a pause."""
        self._streamed, self._latest = StreamedList(self._now()), None
        try:
            return await self._watch()
        except Exception as error:
            if self._streamed is None:
                raise
            return self._without_stream(error)
        finally:
            self._streamed = None

    def _without_stream(self, error: Exception) -> bool:
        """Decide how to list after a streamed list failed. Returns True if pages may be tried immediately."""
        self._unpaged = False
        if isinstance(error, StatusError) and error.code in UNSUPPORTED:
            self._streams.refused(self._now())
            return True
        if isinstance(error, InvalidResponseError):
            self._streams.refused(self._now())
            raise InvalidResponseError(f"streamed list: {error}")
        if not (isinstance(error, StatusError) and error.code == HTTPStatus.TOO_MANY_REQUESTS):
            self._streams.broke(self._now())
        raise error

    def _counted(self, changes: list[ObjectChange]) -> list[ObjectChange]:
        for change in changes:
            self._stock.update(change)
            self._record(change, change.version)
        return changes

    async def _check(self) -> None:
        """Raise HistoryLostError if the server's history is not the one that was seen.

        A watch that continues in another history would miss changes.
        """
        resource, latest = self._resource, self._latest
        path, query = resource.single(latest.key) if latest else (resource.path, resource.selector)
        query = {**query, "limit": "1"}
        metadata, found = await self._get(path, query)
        self._require_progress(metadata.resource_version or "")
        if latest and latest.version not in _versions(found):  # it may have changed since
            earlier = {"resourceVersion": self._version, "resourceVersionMatch": "Exact"}
            _, found = await self._get(path, {**query, **earlier})
            if latest.version not in _versions(found):
                raise HistoryLostError
        self._must_check = False

    async def _get(self, path: str, query: dict[str, str]) -> Page:
        """Return a list."""
        async with self._request(path, query) as response:
            await self._check_status(response)
            return self._format.read_page(self._resource, await response.read())

    def _request(self, path: str, query: dict[str, str]) -> AbstractAsyncContextManager[Response]:
        accept = accepted(self._resource, self._content_type)
        return self._connection.get(path, query, self._pacing.idle_timeout, accept)

    async def _check_status(self, response: Response) -> None:
        """Raise HistoryLostError or StatusError if the response is an error."""
        self._format = format_of(response.header("content-type"))
        if response.status != HTTPStatus.OK:
            status = self._format.read_status(await response.begin())
            self._raise_for(status, response.status, response.header("retry-after"))
        self._note_contact()
        self.failure, self._failing_since = None, inf

    async def _watch(self) -> bool:
        """Watch until the server or the idle timeout ends it. Returns whether it lasted `min_watch`."""
        pacing = self._pacing
        seconds = random.randint(*pacing.watch)
        query = {
            **self._resource.selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **(QUERY if self._streamed is not None else {"resourceVersion": self._version}),
        }
        self._must_check, ended = True, False
        begun = self._now()
        end = begun + seconds + API_WATCH_GRACE
        try:
            async with (
                asyncio.timeout_at(self._until(end)) as limit,
                self._request(self._resource.path, query) as response,
            ):
                await self._check_status(response)
                await self._receive(response, limit, end)
                ended = True
        except TimeoutError:  # without bookmarks, a server sends nothing if nothing changes
            if self.contact < begun:
                raise
        finally:
            lasted = self._now() - begun
            if lasted >= pacing.min_watch and self.contact > begun:
                self._delay = 0.0
        if self._streamed is not None:
            raise InvalidResponseError("it has no end" if ended else "its end does not arrive in time")
        self._must_check = not ended or lasted < seconds - 5
        return lasted >= pacing.min_watch

    async def _receive(self, response: Response, limit: asyncio.Timeout, end: float) -> None:
        """Take in the events of a watch until it ends. `limit` ends a streamed list before `end`."""
        splitter = self._format.splitter()
        limit.reschedule(self._until(end))
        async for data in response.decompressed():
            self._note_contact()
            async for part in _parts(splitter.feed(data)):
                if self._streamed is not None:
                    part = await self._collect(self._streamed, part, limit, end)
                self._apply(part)
            limit.reschedule(self._until(end))

    def _until(self, end: float) -> float:
        """Return when to give up a watch that ends at `end`, if nothing arrives from now on."""
        return end if self._streamed is None else self._streamed.deadline(self._now())

    async def _collect(
        self, streamed: StreamedList, part: list[bytes], limit: asyncio.Timeout, end: float
    ) -> list[bytes]:
        """Add events to a streamed list. If it is complete, use it, and return the events after its end."""
        for number, data in enumerate(part, 1):
            event = self._event(data)
            if event.change is not None:
                self._record(event.change, event.version)
            if streamed.add(event):
                self._streamed, self._stock = None, streamed.stock
                self._streams.complete()
                limit.reschedule(end)
                await self._replace(streamed.changes(), event.version)
                return part[number:]
        return []

    def _apply(self, part: Iterable[bytes]) -> None:
        """Apply events of a watch. If one is invalid, the events before it are applied."""
        changes: list[ObjectChange] = []
        try:
            for data in part:
                event = self._event(data)
                self._require_progress(event.version)
                self._version = event.version or self._version
                if event.change is not None:
                    self._stock.update(event.change)
                    self._record(event.change, event.version)
                    changes.append(event.change)
        finally:
            self._sink(changes)

    def _event(self, data: bytes) -> Event:
        """Decode an event of a watch. Raises HistoryLostError, StatusError or InvalidResponseError."""
        event = self._format.read_event(self._resource, data)
        if event.status is not None:
            self._raise_for(event.status, event.status.code or 500, None)
        return event

    # The server's history

    def _require_progress(self, version: str) -> None:
        """Raise HistoryLostError if `version` is lower than the last one: the history was replaced."""
        now, last = decimal(version), decimal(self._version)
        if now is not None and last is not None and now < last:
            raise HistoryLostError

    def _record(self, change: ObjectChange, version: str) -> None:
        """Record a change that happened at `version`, if it is the latest one."""
        revision = decimal(version) or 0
        if change.key.name and revision and (self._latest is None or revision >= self._latest.revision):
            self._latest = LatestChange(revision, change.key, change.version)

    def _raise_for(self, status: wire.Status, code: int, retry_after: str | None) -> None:
        """Raise HistoryLostError or StatusError for an error response."""
        too_large = "Too large resource version" in (status.message or "")
        if code == HTTPStatus.GONE or status.code == HTTPStatus.GONE or too_large:
            self._unpaged = not self._version
            raise HistoryLostError
        raise StatusError(status, code, retry_after)

    # Times

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _note_contact(self) -> None:
        self.contact = self._connection.contact = self._now()

    def _fail(self, error: Exception) -> None:
        """Record why requests fail. The first retry is immediate: a broken connection may pass with it."""
        self._failing_since = min(self._failing_since, self._now())
        if isinstance(error, OSError) and not self._delay:
            return
        common = is_common(error) and self._connection.contact < self._failing_since
        self.failure = Failure(sentence(error), common)
        if self._resource.optional and not self._was_listed:
            self._retain(self._resource.kind, set())

    async def _be_without(self) -> None:
        """Treat a kind that the server does not have as empty, until it is time to ask again."""
        self.failure, self.contact, self._version = None, -inf, ""
        self._failing_since = inf
        self._retain(self._resource.kind, set())
        await asyncio.sleep(random.randint(*self._pacing.watch))

    async def _pause(self, retry_after: float) -> None:
        """Wait before the next attempt. The delay is random, so that nodes do not reconnect all at once."""
        pacing = self._pacing
        delay, self._delay = self._delay, min(self._delay * 2 or pacing.first_delay, pacing.max_delay)
        share = random.random()
        await asyncio.sleep(max(delay * (1 + share) or pacing.jitter * share, retry_after))

    async def _jitter(self) -> None:
        """Wait before a watch is resumed that ended early: those of other nodes may have ended with it."""
        if self._version and self._must_check:
            await asyncio.sleep(random.random() * self._pacing.jitter)


async def _parts(items: Iterable[Item]) -> AsyncIterator[list[Item]]:
    """Return some items at a time. Other tasks have their turn in between."""
    remaining = iter(items)
    while part := list(_turn(remaining)):
        yield part
        await asyncio.sleep(0)


def _turn(items: Iterator[Item]) -> Iterator[Item]:
    """Yield items as long as one turn may take. To make one may mean to decode a large object."""
    end = monotonic() + API_TURN_SECONDS
    for item in islice(items, API_DECODED_AT_ONCE):
        yield item
        if monotonic() > end:
            return


def _versions(found: Iterable[ObjectChange]) -> list[str]:
    """Return the resourceVersions of objects; [""] if there are none, as for a deleted object."""
    return [change.version for change in found] or [""]

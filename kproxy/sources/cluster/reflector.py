"""Follows one kind of object: lists it once, watches it from there, and lists it again if necessary.

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
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from itertools import islice
from typing import NamedTuple, TypeVar

from kproxy.decode import wire
from kproxy.intake.requests import Response
from kproxy.limits import API_DECODED_AT_ONCE, API_IDLE_SECONDS, API_WATCH_GRACE, LARGEST_RETRY_AFTER
from kproxy.model import NamespacedName
from kproxy.problems import Problem
from kproxy.sources.cluster import body
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.events import (
    SOURCE,
    ApiResource,
    InvalidResponseError,
    LimitError,
    Lines,
    ObjectChange,
    Stock,
    read_line,
    read_page,
    read_status,
)
from kproxy.sources.cluster.failures import sentence

Item = TypeVar("Item")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
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
    first_delay: float = 0.8
    """The delay after the second failure in a row. The first retry is immediate; later delays double."""
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


class StatusError(Exception):
    """The server responded with an error. `retry_after` is the delay in seconds that it requests, or 0."""

    def __init__(self, status: wire.Status, code: int, retry_after: str | None) -> None:
        self.code = code
        name = status.reason or _PHRASES.get(code, "")
        super().__init__(": ".join(filter(None, (f"{code} {name}".strip(), status.message))))
        in_body = status.details.retry_after_seconds if status.details else None
        in_header = retry_after if retry_after and retry_after.isdecimal() else ""
        requested = _number(in_header) if in_header else in_body or 0
        self.retry_after = float(
            LARGEST_RETRY_AFTER if requested is None else min(requested, LARGEST_RETRY_AFTER)
        )


class Reflector:
    """Follows a kind. Calls `sink` with changes, and `retain` with all names after each complete list."""

    def __init__(
        self,
        connection: Connection,
        resource: ApiResource,
        sink: Callable[[Iterable[ObjectChange]], None],
        retain: Callable[[str, set[NamespacedName]], None],
        pacing: Pacing,
    ) -> None:
        self.problem: Problem | None = None
        """The present problem of the connection; None if there is none."""
        self.contact = float("-inf")
        """The time of the last data from the server (time.monotonic())."""
        self._connection, self._resource, self._pacing = connection, resource, pacing
        self._newest = resource
        self._sink, self._retain = sink, retain
        self._version = ""
        """The last resourceVersion that was seen; "" if everything must be listed."""
        self._latest: LatestChange | None = None
        self._unpaged = False
        """Request the next list without pages, because the server forgot the version of a list in pages."""
        self._was_listed = False
        self._must_check = False
        """The last watch ended early, so the server may have been restored: check its history."""
        self._delay = 0.0
        self._stock = Stock()
        self._page = pacing.page
        """The number of objects to request at once."""

    @property
    def resource(self) -> ApiResource:
        """The resource that is followed, in the version that the server has."""
        return self._resource

    async def run(self) -> None:
        """List and watch, until cancelled."""
        while True:
            retry_after = 0.0
            try:
                if self._version and self._must_check:
                    await self._check()
                if not self._version:
                    await self._list()
                if await self._watch():
                    continue
            except HistoryLostError:
                self._version = ""
            except LimitError as error:
                self._version, self._unpaged = "", False
                self._page = max(self._page // SMALLER, 1)
                self._fail(sentence(error))
            except StatusError as error:
                if error.code == HTTPStatus.NOT_FOUND and self._resource.optional:
                    self._version = ""
                    if self._resource.older:
                        self._resource = self._resource.older
                    else:
                        await self._be_without()
                        self._resource = self._newest
                    continue
                self._fail(str(error))
                retry_after = error.retry_after
            except OSError as error:
                if self._delay:  # the first retry is immediate; only if it fails, too, this is a problem
                    self._fail(sentence(error))
            except Exception as error:  # of any type: neither a response nor a kubeconfig ends kproxy
                self._fail(sentence(error))
            await self._pause(retry_after)

    # Requests

    async def _list(self) -> None:
        resource = self._resource
        query = {**resource.selector, **({} if self._unpaged else {"limit": str(self._page)})}
        self._latest, self._stock, found = None, Stock(), list[ObjectChange]()
        while True:
            before = len(self._stock)
            metadata, changes = read_page(resource, await self._get(resource.path, query))
            async for part in _parts(changes):
                found += self._counted(part)
            self._stock.end_page(before)
            if not metadata.continue_:
                break
            query["continue"] = metadata.continue_
        if not metadata.resource_version:
            raise InvalidResponseError("the list has no resourceVersion")
        async for part in _parts(found):
            self._sink(part)
        self._retain(resource.kind, self._stock.names())
        self._version, self._unpaged, self._must_check = metadata.resource_version, False, False
        self._was_listed = True

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
        metadata, found = read_page(resource, await self._get(path, query))
        self._require_progress(metadata.resource_version or "")
        if latest and latest.version not in _versions(found):  # it may have changed since
            earlier = {"resourceVersion": self._version, "resourceVersionMatch": "Exact"}
            _, found = read_page(resource, await self._get(path, {**query, **earlier}))
            if latest.version not in _versions(found):
                raise HistoryLostError
        self._must_check = False

    async def _get(self, path: str, query: dict[str, str]) -> bytearray:
        """Return the body of a response. Not for watches."""
        async with self._connection.get(path, query, self._pacing.idle_timeout) as response:
            await self._check_status(response)
            return await body.read(response)

    async def _check_status(self, response: Response) -> None:
        """Raise HistoryLostError or StatusError if the response is an error."""
        if response.status != HTTPStatus.OK:
            status = read_status(await body.begin(response))
            self._raise_for(status, response.status, response.header("retry-after"))
        self.contact = asyncio.get_running_loop().time()
        self.problem = None

    async def _watch(self) -> bool:
        """Watch until the server or the idle timeout ends it. Returns whether it lasted `min_watch`."""
        loop, pacing = asyncio.get_running_loop(), self._pacing
        seconds = random.randint(*pacing.watch)
        query = {
            **self._resource.selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        self._must_check, ended = True, False
        begun = loop.time()
        try:
            async with self._connection.get(self._resource.path, query, pacing.idle_timeout) as response:
                await self._check_status(response)
                lines = Lines()
                with suppress(TimeoutError):  # without bookmarks, a server sends nothing if nothing changes
                    async with asyncio.timeout(seconds + API_WATCH_GRACE):
                        async for data in body.pieces(response):
                            self.contact = loop.time()
                            async for part in _parts(lines.feed(data)):
                                self._apply(part)
                    ended = True
        finally:
            lasted = loop.time() - begun
            if lasted >= pacing.min_watch and self.contact > begun:
                self._delay = 0.0
        self._must_check = not ended or lasted < seconds - 5
        return lasted >= pacing.min_watch

    def _apply(self, lines: Iterable[bytes]) -> None:
        """Apply lines of a watch. If one is invalid, the lines before it are applied."""
        changes: list[ObjectChange] = []
        try:
            for line in lines:
                event = read_line(self._resource, line)
                if event.status is not None:
                    self._raise_for(event.status, event.status.code or 500, None)
                self._require_progress(event.version)
                self._version = event.version or self._version
                if event.change is not None:
                    self._stock.update(event.change)
                    self._record(event.change, event.version)
                    changes.append(event.change)
        finally:
            self._sink(changes)

    # The server's history

    def _require_progress(self, version: str) -> None:
        """Raise HistoryLostError if `version` is lower than the last one: the history was replaced."""
        now, last = _number(version), _number(self._version)
        if now is not None and last is not None and now < last:
            raise HistoryLostError

    def _record(self, change: ObjectChange, version: str) -> None:
        """Record a change that happened at `version`, if it is the latest one."""
        revision = _number(version) or 0
        if change.key.name and revision and (self._latest is None or revision >= self._latest.revision):
            self._latest = LatestChange(revision, change.key, change.version)

    def _raise_for(self, status: wire.Status, code: int, retry_after: str | None) -> None:
        """Raise HistoryLostError or StatusError for an error response."""
        too_large = "Too large resource version" in (status.message or "")
        if code == HTTPStatus.GONE or status.code == HTTPStatus.GONE or too_large:
            self._unpaged = not self._version
            raise HistoryLostError
        raise StatusError(status, code, retry_after)

    # Pauses

    def _fail(self, message: str) -> None:
        self.problem = Problem(SOURCE, "", "", f"cannot follow {self._resource.kind}s: {message}")
        if self._resource.optional and not self._was_listed:
            self._retain(self._resource.kind, set())

    async def _be_without(self) -> None:
        """Treat a kind that the server does not have as empty, until it is time to ask again."""
        self.problem, self.contact, self._version = None, float("-inf"), ""
        self._retain(self._resource.kind, set())
        await asyncio.sleep(random.randint(*self._pacing.watch))

    async def _pause(self, retry_after: float) -> None:
        """Wait before the next attempt. The delay is random, so that nodes do not reconnect all at once."""
        pacing = self._pacing
        delay, self._delay = self._delay, min(self._delay * 2 or pacing.first_delay, pacing.max_delay)
        await asyncio.sleep(max(delay * (1 + random.random()), retry_after))


async def _parts(items: Iterable[Item]) -> AsyncIterator[list[Item]]:
    """Return some items at a time. Other tasks have their turn in between."""
    remaining = iter(items)
    while part := list(islice(remaining, API_DECODED_AT_ONCE)):
        yield part
        await asyncio.sleep(0)


def _number(text: str) -> int | None:
    """Return the number that a server sent as text; None if it is none, or too large for 64 bits."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _versions(found: Iterable[ObjectChange]) -> list[str]:
    """Return the resourceVersions of objects; [""] if there are none, as for a deleted object."""
    return [change.version for change in found] or [""]

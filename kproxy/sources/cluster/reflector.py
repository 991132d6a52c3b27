"""One kind of object, followed: listed once, watched from there, listed again when the thread is lost.

An end of a watch is no event: it goes on after the last version that was seen. Only if the server
does not know that version any more (410), or has never reached it (it was restored from a backup),
everything is listed again; what vanished meanwhile is what the list does not have.

A restored server may have counted past that version before it is asked: then the version is one of
another history. What tells them apart is the object that was seen last: it is as it was, or was so then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from http.client import responses
from typing import NamedTuple

import aiohttp

from kproxy.decode import wire
from kproxy.model import NamespacedName
from kproxy.problems import KproxyError, Problem
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.events import (
    SOURCE,
    ApiResource,
    GarbageError,
    Lines,
    ObjectChange,
    read_line,
    read_page,
    read_status,
)
from kproxy.sources.cluster.failures import sentence


class Pacing(NamedTuple):
    """How often and how long; seconds."""

    page: int = 500
    """Objects in one answer to a list request."""
    watch: tuple[int, int] = (300, 600)
    """How long a watch lasts: at random in between, so that not all nodes come back at once."""
    silence: float = 90.0
    """A connection that sends nothing for so long is given up; mostly a bookmark comes every minute."""
    first: float = 0.8
    longest: float = 30.0
    """Between attempts: at once after one that went well, then `first`, and twice as long each time."""
    healthy: float = 1.0
    """A watch that lasted so long was of use; what ends sooner is tried again later and later."""


class Newest(NamedTuple):
    """Of all that was seen of a kind, what happened last."""

    revision: int
    key: NamespacedName
    version: str
    """The object's; "" if it is gone."""


class LostError(Exception):
    """Everything has to be listed again."""


class RefusedError(Exception):
    """The server answered with an error; `after` is when it wants to be asked again (s)."""

    def __init__(self, status: wire.Status, code: int, retry_after: str | None) -> None:
        name = status.reason or responses.get(code, "")
        super().__init__(": ".join(filter(None, (f"{code} {name}".strip(), status.message))))
        wanted = status.details.retry_after_seconds if status.details else None
        self.after = float(retry_after if retry_after and retry_after.isdecimal() else wanted or 0)


class Reflector:
    """Follows a kind for ever. `sink` takes changes, `retain` the names of all there are."""

    def __init__(
        self,
        connection: Connection,
        resource: ApiResource,
        sink: Callable[[Iterable[ObjectChange]], None],
        retain: Callable[[str, set[NamespacedName]], None],
        pacing: Pacing,
    ) -> None:
        self.problem: Problem | None = None
        """Why the server cannot be followed now."""
        self.contact = float("-inf")
        """When something last came from it (time.monotonic())."""
        self._connection, self._resource, self._pacing = connection, resource, pacing
        self._sink, self._retain = sink, retain
        self._version = ""
        """The last resourceVersion that was seen; "" if everything is to be listed."""
        self._newest: Newest | None = None
        self._whole = False
        """The next list is asked for without pages: a list by pages took longer than the server remembers."""
        self._doubted = False
        """The last watch ended before its time: whether the server is as far as we are is to be seen."""
        self._delay = 0.0

    async def run(self) -> None:
        """List and watch, until cancelled."""
        while True:
            wanted = 0.0
            try:
                if self._version and self._doubted:
                    await self._check()
                if not self._version:
                    await self._list()
                if await self._watch():
                    continue
            except LostError:
                self._version = ""
            except RefusedError as refused:
                self._fail(str(refused))
                wanted = refused.after
            except (GarbageError, KproxyError) as error:
                self._fail(sentence(error))
            except (aiohttp.ClientError, OSError) as error:
                if self._delay:  # else it is tried again at once, and only then known to be a problem
                    self._fail(sentence(error))
            await self._pause(wanted)

    # Requests

    async def _list(self) -> None:
        resource = self._resource
        query = {**resource.selector, **({} if self._whole else {"limit": str(self._pacing.page)})}
        keys: set[NamespacedName] = set()
        self._newest = None
        while True:
            metadata, changes = read_page(resource, await self._get(resource.path, query))
            for change in changes:
                keys.add(change.key)
                self._saw(change, change.version)
            self._sink(changes)
            del changes
            if not metadata.continue_:
                break
            query["continue"] = metadata.continue_
        if not metadata.resource_version:
            raise GarbageError("a list without resourceVersion")
        self._retain(resource.kind, keys)
        self._version, self._whole, self._doubted = metadata.resource_version, False, False

    async def _check(self) -> None:
        """Whether the server's history is the one that was seen: in another one a watch would be silent."""
        resource, newest = self._resource, self._newest
        path, query = resource.alone(newest.key) if newest else (resource.path, resource.selector)
        query = {**query, "limit": "1"}
        metadata, found = read_page(resource, await self._get(path, query))
        self._advance(metadata.resource_version or "", keep=True)
        if newest and newest.version not in _versions(found):  # it may have changed since
            then = {"resourceVersion": self._version, "resourceVersionMatch": "Exact"}
            _, found = read_page(resource, await self._get(path, {**query, **then}))
            if newest.version not in _versions(found):
                raise LostError
        self._doubted = False

    async def _get(self, path: str, query: dict[str, str]) -> bytes:
        """The body of an answer that is not a watch."""
        async with self._connection.get(path, query, self._pacing.silence) as response:
            await self._answered(response)
            return await response.read()

    async def _answered(self, response: aiohttp.ClientResponse) -> None:
        """Raises if the answer is an error."""
        if response.status != HTTPStatus.OK:
            status = read_status(await response.read())
            self._refuse(status, response.status, response.headers.get("Retry-After"))
        self.contact = asyncio.get_running_loop().time()
        self.problem = None

    async def _watch(self) -> bool:
        """Returns when the watch ended as it should, or said nothing any more; whether it was of any use."""
        loop, pacing = asyncio.get_running_loop(), self._pacing
        seconds = random.randint(*pacing.watch)
        query = {
            **self._resource.selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        self._doubted, ended = True, False
        begun = loop.time()
        try:
            async with self._connection.get(self._resource.path, query, pacing.silence) as response:
                await self._answered(response)
                lines = Lines()
                with suppress(TimeoutError):  # where nothing changes, a server may have nothing to say
                    async for data in response.content.iter_any():
                        self.contact = loop.time()
                        self._take(list(lines.feed(data)))
                    ended = True
        finally:
            lasted = loop.time() - begun
            if lasted >= pacing.healthy and self.contact > begun:
                self._delay = 0.0
        self._doubted = not ended or lasted < seconds - 5
        return lasted >= pacing.healthy

    def _take(self, lines: Iterable[bytes]) -> None:
        """Lines of a watch that came together. What is before a bad one counts."""
        changes: list[ObjectChange] = []
        try:
            for line in lines:
                event = read_line(self._resource, line)
                if event.status is not None:
                    self._refuse(event.status, event.status.code or 500, None)
                self._advance(event.version)
                if event.change is not None:
                    self._saw(event.change, event.version)
                    changes.append(event.change)
        finally:
            self._sink(changes)

    # What is known of the thread

    def _advance(self, version: str, keep: bool = False) -> None:
        """Go on after `version`. Backwards there is no way: then it is another history."""
        if version.isdecimal() and self._version.isdecimal() and int(version) < int(self._version):
            raise LostError
        if version and not keep:
            self._version = version

    def _saw(self, change: ObjectChange, version: str) -> None:
        """A change that happened at `version`."""
        revision = int(version) if version.isdecimal() else 0
        if change.key.name and revision and (self._newest is None or revision >= self._newest.revision):
            self._newest = Newest(revision, change.key, change.version)

    def _refuse(self, status: wire.Status, code: int, retry_after: str | None) -> None:
        """Raise what an answer that is an error stands for."""
        too_large = "Too large resource version" in (status.message or "")
        if code == HTTPStatus.GONE or status.code == HTTPStatus.GONE or too_large:
            self._whole = not self._version
            raise LostError
        raise RefusedError(status, code, retry_after)

    # Pauses

    def _fail(self, message: str) -> None:
        self.problem = Problem(SOURCE, "", "", f"cannot follow {self._resource.kind}s: {message}")

    async def _pause(self, wanted: float) -> None:
        """Wait before the next attempt; nodes that failed together do not come back together."""
        delay, self._delay = self._delay, min(self._delay * 2 or self._pacing.first, self._pacing.longest)
        await asyncio.sleep(max(delay * (1 + random.random()), wanted))


def _versions(found: Iterable[ObjectChange]) -> list[str]:
    """Of objects; of none, that of one that is gone."""
    return [change.version for change in found] or [""]

"""A client of a container engine's API over its Unix socket, with limits.

It only reads, except for commands of exec probes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from kproxy.decode.text import from_json
from kproxy.limits import ENGINE_BYTES, ENGINE_CONTAINERS, ENGINE_EVENT, ENGINE_SECONDS, PROBE_OUTPUT
from kproxy.problems import KproxyError
from kproxy.sources.engines.core.answers import (
    Created,
    Event,
    Executed,
    Inspected,
    Listed,
    Member,
    Refusal,
)
from kproxy.sources.engines.core.streams import Streams

API = "/v1.41"
LIBPOD = "/v4.0.0/libpod"
LIMITED = aiohttp.ClientTimeout(total=ENGINE_SECONDS)
FILTERS = json.dumps({"type": ["container", "network"]})
TRIES = 4
TRY_SECONDS = 0.1
T = TypeVar("T")


class EngineError(KproxyError):
    """The engine does not answer, or not as expected."""


class InternalError(EngineError):
    """Status 500: for a moment, podman answers so about a container that it removes."""


@asynccontextmanager
async def connect(socket: str) -> AsyncIterator[Client]:
    """Open a session with the engine behind a socket. It connects with the first request."""
    async with aiohttp.ClientSession(
        "http://engine",
        connector=aiohttp.UnixConnector(socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=ENGINE_EVENT // 2,  # the maximum length of a line is twice as much
    ) as session:
        yield Client(session)


class Client:
    """A client of an engine. `connect` makes it.

    Errors are raised as EngineError, aiohttp.ClientError, or OSError (including TimeoutError).
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def running(self) -> list[str]:
        """Return the IDs of the running and paused containers."""
        listed = await self._get(f"{API}/containers/json", list[Listed])
        if len(listed or ()) > ENGINE_CONTAINERS:
            raise EngineError(f"there are more than {ENGINE_CONTAINERS} containers")
        return [each.id for each in listed or ()]

    async def inspect(self, container: str) -> Inspected | None:
        """Return a container; None if it does not exist."""
        for _ in range(TRIES):
            with suppress(InternalError):
                return await self._get(f"{API}/containers/{container}/json", Inspected)
            await asyncio.sleep(TRY_SECONDS)
        return await self._get(f"{API}/containers/{container}/json", Inspected)

    async def members(self) -> dict[str, Member]:
        """Return the pod of each container, for podman."""
        listed = await self._get(f"{LIBPOD}/containers/json", list[Member])
        return {each.id: each for each in listed or ()}

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Return the events from now on. They end when the engine ends."""
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=ENGINE_SECONDS)
        async with self._session.get(
            f"{API}/events", params={"filters": FILTERS}, timeout=unlimited
        ) as response:
            _check(response)
            yield _lines(response)

    async def create_exec(self, container: str, command: Sequence[str]) -> str:
        """Create a command in a container, and return its ID. Both output streams are one."""
        wanted = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
        return (await self._post(f"{API}/containers/{container}/exec", wanted, Created)).id

    async def start_exec(self, process: str) -> bytes:
        """Start a command, wait for its end, and return the beginning of its output."""
        path, unlimited = f"{API}/exec/{process}/start", aiohttp.ClientTimeout(total=None)
        wanted = {"Detach": False, "Tty": False}
        async with self._session.post(path, json=wanted, timeout=unlimited) as response:
            await _check_command(response)
            streams = Streams(PROBE_OUTPUT)
            async for chunk in response.content.iter_any():
                streams.add(chunk)
        return bytes(streams.output)

    async def inspect_exec(self, process: str) -> Executed:
        """Return the state of a command."""
        return await self._get(f"{API}/exec/{process}/json", Executed) or Executed()

    async def _get(self, path: str, kind: type[T]) -> T | None:
        """Return the answer of this type; None if what the path names does not exist."""
        async with self._session.get(path, timeout=LIMITED, allow_redirects=False) as response:
            if response.status == 404:
                return None
            _check(response)
            return await _answer(response, kind)

    async def _post(self, path: str, wanted: object, kind: type[T]) -> T:
        async with self._session.post(path, json=wanted, timeout=LIMITED, allow_redirects=False) as response:
            await _check_command(response)
            return await _answer(response, kind)


async def _answer(response: aiohttp.ClientResponse, kind: type[T]) -> T:
    body = await _body(response)
    try:
        return from_json(body, kind)
    except msgspec.DecodeError as error:
        raise EngineError(f"{response.url.path}: unexpected answer: {error}") from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ENGINE_BYTES:
            raise EngineError(f"{response.url.path}: the answer is longer than {ENGINE_BYTES} bytes")
    return bytes(body)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Yield the events of a stream. Raises EngineError at a line that is too long or cannot be read."""
    try:
        async for line in response.content:
            if line.strip():
                yield from_json(line, Event)
    except (msgspec.DecodeError, HttpProcessingError) as error:
        raise EngineError(f"unexpected event: {error}") from None


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 500:
        raise InternalError(f"{response.url.path}: status 500")
    if response.status != 200:
        raise EngineError(f"{response.url.path}: status {response.status}")


async def _check_command(response: aiohttp.ClientResponse) -> None:
    """Raise EngineError with the reason of the engine, for example that the container is paused."""
    if response.status not in (200, 201):
        body = await _body(response)
        try:
            reason = from_json(body, Refusal).message
        except msgspec.DecodeError:
            reason = ""
        raise EngineError(reason or f"{response.url.path}: status {response.status}")


NO_MEMBERS: Mapping[str, Member] = {}
"""The pods of docker's containers."""

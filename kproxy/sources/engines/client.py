"""A client of a container engine's API over its Unix socket, with limits.

It only reads, except for commands of exec probes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from kproxy.decode.text import from_json
from kproxy.intake.dial import open_unix
from kproxy.intake.requests import HttpClient, Request, Response
from kproxy.limits import ENGINE_BYTES, ENGINE_CONTAINERS, ENGINE_EVENT, ENGINE_SECONDS, PROBE_OUTPUT
from kproxy.problems import KproxyError
from kproxy.sources.engines.core.answers import (
    Created,
    EngineFault,
    Event,
    Executed,
    Inspected,
    Listed,
    Member,
)
from kproxy.sources.engines.core.streams import Streams

API = "/v1.41"
LIBPOD = "/v4.0.0/libpod"
HEADERS = {"Host": "engine"}
EVENTS = f"{API}/events?{urlencode({'filters': json.dumps({'type': ['container', 'network']})})}"
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
    http = HttpClient(partial(open_unix, socket), HEADERS)
    try:
        yield Client(http)
    finally:
        http.close()


class Client:
    """A client of an engine. `connect` makes it.

    Errors are raised as EngineError, or OSError (including TimeoutError).
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

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
        async with self._http.send(Request("GET", EVENTS), None) as response:
            _check(response, EVENTS)
            yield _events(response)

    async def create_exec(self, container: str, command: Sequence[str]) -> str:
        """Create a command in a container, and return its ID. Both output streams are one."""
        wanted = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command)}
        return (await self._post(f"{API}/containers/{container}/exec", wanted, Created)).id

    async def start_exec(self, process: str) -> bytes:
        """Start a command, wait for its end, and return the beginning of its output."""
        wanted = {"Detach": False, "Tty": False}
        request = Request("POST", f"{API}/exec/{process}/start", content=wanted)
        async with self._http.send(request, None) as response:
            await _check_command(response, request.path)
            streams = Streams(PROBE_OUTPUT)
            async for chunk in response.pieces():
                streams.add(chunk)
        return bytes(streams.output)

    async def inspect_exec(self, process: str) -> Executed:
        """Return the state of a command."""
        return await self._get(f"{API}/exec/{process}/json", Executed) or Executed()

    async def _get(self, path: str, kind: type[T]) -> T | None:
        """Return the answer of this type; None if what the path names does not exist."""
        async with asyncio.timeout(ENGINE_SECONDS), self._http.send(Request("GET", path), None) as response:
            if response.status == 404:
                return None
            _check(response, path)
            return await _answer(response, path, kind)

    async def _post(self, path: str, wanted: object, kind: type[T]) -> T:
        request = Request("POST", path, content=wanted)
        async with asyncio.timeout(ENGINE_SECONDS), self._http.send(request, None) as response:
            await _check_command(response, path)
            return await _answer(response, path, kind)


async def _answer(response: Response, path: str, kind: type[T]) -> T:
    body = await _body(response, path)
    try:
        return from_json(body, kind)
    except msgspec.DecodeError as error:
        raise EngineError(f"{path}: unexpected answer: {error}") from None


async def _body(response: Response, path: str) -> bytes:
    body = bytearray()
    async for chunk in response.pieces():
        body += chunk
        if len(body) > ENGINE_BYTES:
            raise EngineError(f"{path}: the answer is longer than {ENGINE_BYTES} bytes")
    return bytes(body)


async def _events(response: Response) -> AsyncIterator[Event]:
    """Yield the events of a stream. Raises EngineError at a line that is too long or cannot be read."""
    rest = b""
    async for chunk in response.pieces():
        *lines, rest = (rest + chunk).split(b"\n")
        try:
            for line in filter(bytes.strip, lines):
                yield from_json(line, Event)
        except msgspec.DecodeError as error:
            raise EngineError(f"unexpected event: {error}") from None
        if len(rest) > ENGINE_EVENT:
            raise EngineError(f"unexpected event: longer than {ENGINE_EVENT} bytes")


def _check(response: Response, path: str) -> None:
    if response.status == 500:
        raise InternalError(f"{path}: status 500")
    if response.status != 200:
        raise EngineError(f"{path}: status {response.status}")


async def _check_command(response: Response, path: str) -> None:
    """Raise EngineError with the reason of the engine, for example that the container is paused."""
    if response.status not in (200, 201):
        body = await _body(response, path)
        try:
            reason = from_json(body, EngineFault).message
        except msgspec.DecodeError:
            reason = ""
        raise EngineError(reason or f"{path}: status {response.status}")


NO_MEMBERS: Mapping[str, Member] = {}
"""The pods of docker's containers."""

"""Follows the containers of one engine.

The events say which container may have changed, and that container is inspected again. So the order of
events does not matter, nor do events that come late or twice. If the connection ends, all containers are
listed again.

If the engine cannot be asked, its last containers stay, and nothing is removed. A container that cannot be
inspected stays, too, and the others are used. A pod whose manifest is not valid stays as it was, or is left
out. It protects nothing else: the engine answered, so no other pod can be missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from kproxy.decode import Decoded, Document, Unreadable, decode
from kproxy.intake.dial import ConnectError
from kproxy.limits import ENGINE_REQUESTS
from kproxy.problems import Problem, limited
from kproxy.sources.engines.client import NO_MEMBERS, Client, EngineError, connect
from kproxy.sources.engines.core.answers import Event, Inspected, Member
from kproxy.sources.engines.core.merge import together
from kproxy.sources.engines.core.pods import Choice, PodManifests

RETRY_SECONDS = 1.0
RETRY_MAX_SECONDS = 30.0
LIST_SECONDS = 20.0
"""How often all containers are listed, in case that an engine tells nothing of a change."""
SHOWN = 12
"""The first characters of an ID, as the engines show it."""
PODMAN = "podman"
FAILURES = (EngineError, OSError)


class Engine:
    """A container engine, and its containers as pods."""

    def __init__(self, choice: Choice, socket: str) -> None:
        self._choice = choice
        self.socket = socket
        self._containers: dict[str, Inspected] = {}
        self._members: Mapping[str, Member] = NO_MEMBERS
        self._stopping: set[str] = set()
        self._busy = asyncio.Lock()
        self._manifests = PodManifests(choice)
        self._known: dict[str, tuple[bytes, Decoded]] = {}
        """Each manifest and what was decoded of it, by the ID of the pod."""
        self._uninspected: dict[str, str] = {}
        """Why a container could not be inspected, by its ID."""
        self._told: tuple[dict[str, bytes], list[Problem]] = ({}, [self._problem("has not been asked yet")])
        self.decoded = self._decode()
        """The pods. It is another object after each change."""

    def has(self, identity: str) -> bool:
        """Whether the engine runs a container with this ID."""
        return identity in self._containers

    async def read(self) -> None:
        """Ask for all containers."""
        try:
            async with connect(self.socket) as client:
                await self._list(client)
        except Exception as error:  # of any type: no container may end the program
            self._fail(error)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Follow the events, and call `changed` after each change of the pods. Never returns."""
        pause = RETRY_SECONDS
        while True:
            try:
                async with connect(self.socket) as client, client.events() as events:
                    if await self._list(client):
                        changed()
                    pause = RETRY_SECONDS
                    await self._follow(events, client, changed)
                raise EngineError("the engine ended the connection")
            except Exception as error:  # of any type, likewise
                if self._fail(error):
                    changed()
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MAX_SECONDS)

    async def _follow(
        self, events: AsyncIterator[Event], client: Client, changed: Callable[[], None]
    ) -> None:
        """Take events until they end. Meanwhile, list all containers at times."""
        listing = asyncio.create_task(self._list_again(client, changed))
        try:
            async for event in events:
                async with self._busy:
                    has_changed = await self._take(event, client)
                if has_changed:
                    changed()
        finally:
            listing.cancel()
            await asyncio.gather(listing, return_exceptions=True)

    async def _list_again(self, client: Client, changed: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(LIST_SECONDS)
            with suppress(Exception):  # the events end, too, or the next list is complete
                async with self._busy:
                    has_changed = await self._list(client)
                if has_changed:
                    changed()

    async def _list(self, client: Client) -> bool:
        """Inspect all containers. Returns whether a pod changed."""
        self._members = await client.members() if self._choice.engine == PODMAN else NO_MEMBERS
        slots = asyncio.Semaphore(ENGINE_REQUESTS)

        async def inspect(container: str) -> Inspected | None:
            async with slots:
                return await self._inspect(client, container)

        running = await client.running()
        self._uninspected = {}
        found = await asyncio.gather(*map(inspect, running))
        self._containers = {each.id: each for each in found if each}
        self._stopping &= self._containers.keys()
        return self._update()

    async def _inspect(self, client: Client, container: str) -> Inspected | None:
        """Return a container; as it was if it cannot be inspected. None if it does not exist."""
        self._uninspected.pop(container, None)
        try:
            return await client.inspect(container)
        except (EngineError, TimeoutError) as error:
            self._uninspected[container] = str(error) or "no answer"
            return self._containers.get(container)

    async def _take(self, event: Event, client: Client) -> bool:
        """Inspect the container of an event again. Returns whether a pod changed."""
        identity = event.container
        if not identity:
            return False
        if event.stops:
            self._stopping.add(identity)
        elif event.type == "container" and event.action in ("start", "die", "died"):
            self._stopping.discard(identity)
        if self._choice.engine == PODMAN and identity not in self._members:
            self._members = await client.members()
        found = await self._inspect(client, identity)
        if found is None:
            self._containers.pop(identity, None)
        else:
            self._containers[identity] = found
        return self._update()

    def _update(self) -> bool:
        """Make the pods again. Returns whether they changed, or an error is over."""
        problems = [self._problem(why, identity) for identity, why in sorted(self._uninspected.items())]
        pods = self._manifests.of(self._containers.values(), self._members, self._stopping)
        return self._tell(pods, problems)

    def _fail(self, error: Exception) -> bool:
        """Keep the pods. Returns whether it is another error than before."""
        return self._tell(self._told[0], [self._problem(sentence(error, self.socket))])

    def _problem(self, message: str, container: str = "") -> Problem:
        place = f"container {container[:SHOWN]}" if container else ""
        return Problem(self._choice.engine, place, "", message)

    def _tell(self, pods: dict[str, bytes], problems: list[Problem]) -> bool:
        if (pods, problems) == self._told:
            return False
        self._told = pods, problems
        self.decoded = self._decode()
        return True

    def _decode(self) -> Decoded:
        pods, problems = self._told
        self._known = {identity: (text, self._pod(identity, text)) for identity, text in pods.items()}
        decoded = together(self._choice.engine, (pod for _, pod in self._known.values()))
        decoded.unreadable.everything += problems
        return replace(decoded, problems=limited([*problems, *decoded.problems]))

    def _pod(self, identity: str, text: bytes) -> Decoded:
        before = self._known.get(identity)
        if before is not None and before[0] == text:
            return before[1]
        found = decode([Document(self._choice.engine, msgspec.Raw(text))])
        state = before[1].state if before is not None and found.unreadable else found.state
        return replace(found, state=state, unreadable=Unreadable())


def sentence(error: Exception, socket: str) -> str:
    """Return what is wrong with the engine behind a socket."""
    if isinstance(error, ConnectError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"{socket}: no answer"
    return f"{socket}: {error}"

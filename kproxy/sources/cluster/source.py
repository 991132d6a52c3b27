"""The cluster as the daemon's source: three reflectors, one cache.

Nothing is given away before every kind has been listed once. The reflectors run in the event
loop; what the daemon asks may be asked from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from kproxy.model import ClusterNode, EndpointSlice, NamespacedName, Service
from kproxy.problems import Problem
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import SERVICES, SLICES, ObjectChange, node_resource
from kproxy.sources.cluster.credentials import Credentials
from kproxy.sources.cluster.reflector import Pacing, Reflector


class ClusterSource:
    """Services, EndpointSlices and the Node of one name, as the API server has them."""

    def __init__(self, credentials: Credentials, node_name: str, pacing: Pacing | None = None) -> None:
        self._cache = Cache()
        self._lock = Lock()
        self._connection = Connection(credentials)
        self._wake: Callable[[], None] = lambda: None
        resources = (SERVICES, SLICES, node_resource(node_name))
        self._unlisted = {resource.kind for resource in resources}
        self._reflectors = {
            resource.kind: Reflector(
                self._connection, resource, self._apply, self._retain, pacing or Pacing()
            )
            for resource in resources
        }

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow the API server until cancelled; `wake` is called when `take` has something."""
        self._wake = wake
        async with self._connection, asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors.values():
                tasks.create_task(reflector.run())

    @property
    def synced(self) -> bool:
        """Whether everything has been listed once."""
        return not self._unlisted

    def take(self) -> set[NamespacedName]:
        """The services that something happened to since the last call; none until all is synced."""
        with self._lock:
            return self._cache.take() if self.synced else set()

    def take_triggers(self) -> dict[NamespacedName, list[str]]:
        """By service, when what changed its endpoints happened (RFC 3339), since the last call."""
        with self._lock:
            return self._cache.take_triggers() if self.synced else {}

    def service(self, name: NamespacedName) -> Service | None:
        """A service; None: there is none."""
        return self._cache.service(name)

    def services(self) -> dict[NamespacedName, Service]:
        """All services, as of now."""
        with self._lock:
            return dict(self._cache.services())

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """The EndpointSlices of a service, in order of their names."""
        return self._cache.slices(name)

    def all_slices(self) -> dict[NamespacedName, tuple[EndpointSlice, ...]]:
        """The same by service, as of now."""
        with self._lock:
            return dict(self._cache.all_slices())

    @property
    def node(self) -> ClusterNode | None:
        """The Node, if there is one."""
        return self._cache.node

    def is_protected(self, name: NamespacedName) -> bool:
        """Whether part of it cannot be decoded, and never could: nothing of it may be removed."""
        with self._lock:
            return self._cache.is_protected(name)

    def problems(self) -> list[Problem]:
        """What is wrong now: with the server, and with objects."""
        unreachable = [r.problem for r in self._reflectors.values() if r.problem is not None]
        with self._lock:
            return unreachable + self._cache.problems()

    @property
    def last_contact(self) -> Mapping[str, float]:
        """By kind, when something last came from the server (time.monotonic()); -inf for never."""
        return {kind: reflector.contact for kind, reflector in self._reflectors.items()}

    def _apply(self, changes: Iterable[ObjectChange]) -> None:
        with self._lock:
            for change in changes:
                self._cache.apply(change)
        self._notify()

    def _retain(self, kind: str, keys: set[NamespacedName]) -> None:
        """A list is complete."""
        with self._lock:
            self._cache.retain(kind, keys)
            if kind in self._unlisted:
                self._unlisted.remove(kind)
                if self.synced:
                    self._cache.take_triggers()  # those of a first list are of changes long ago
                    self._wake()
        self._notify()

    def _notify(self) -> None:
        if self.synced and self._cache.pending:
            self._wake()

"""A cluster as a source: three reflectors fill one cache, and the loop asks it.

Nothing is taken before every kind has been listed once. The reflectors change the cache in the event loop.
A round asks from another thread, so that every change holds a lock, and so does every question that
reads more than one entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock

from msgspec.structs import replace

from kproxy.model import ClusterNode, EndpointSlice, NamespacedName, Node, Service
from kproxy.problems import Problem
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import SERVICES, SLICES, ObjectChange, node_resource
from kproxy.sources.cluster.credentials import Credentials
from kproxy.sources.cluster.reflector import Pacing, Reflector
from kproxy.sources.core.inventory import Inventory


class Cluster:
    """A `FollowedSource`: Services, EndpointSlices and the Node of one name, as the API server has them."""

    def __init__(
        self,
        credentials: Credentials,
        node_name: str,
        find_node: Callable[[Mapping[str, ClusterNode]], Node],
        pacing: Pacing | None = None,
    ) -> None:
        """`find_node` is asked in a thread, since it may ask the kernel, when the node may have changed."""
        self.revision = 0
        self._cache = Cache()
        self._lock = Lock()
        self._connection = Connection(credentials)
        self._find_node = find_node
        self._node = Node("")
        self._node_of: tuple[ClusterNode | None, int] | None = None
        self._host_changes = 0
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
        """Whether every kind has been listed once."""
        return not self._unlisted

    async def take(self) -> Collection[NamespacedName]:
        """The services that changed since the last call; none until all is synced."""
        now = self._cache.node, self._host_changes
        if now != self._node_of:
            node = await asyncio.to_thread(self._find_node, self.nodes())
            # A Node that is deleted does not take its pods along.
            self._node = replace(node, pod_cidrs=node.pod_cidrs or self._node.pod_cidrs)
            self._node_of = now
        with self._lock:
            if not self.synced:
                return ()
            self.revision += self._cache.pending
            return self._cache.take()

    def take_triggers(self) -> Collection[str]:
        """When what changed endpoints since the last call happened (RFC 3339); none until all is synced."""
        with self._lock:
            return self._cache.take_triggers() if self.synced else ()

    def names(self) -> Iterable[NamespacedName]:
        """All services."""
        with self._lock:
            return list(self._cache.services())

    def service(self, name: NamespacedName) -> Service | None:
        """A service; None: there is none."""
        return self._cache.service(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """The EndpointSlices of a service, in order of their names."""
        return self._cache.slices(name)

    def node(self) -> Node:
        """As of the last `take`."""
        return self._node

    def nodes(self) -> dict[str, ClusterNode]:
        """This node's object, if there is one, by its name."""
        node = self._cache.node
        return {} if node is None else {node.name: node}

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of it cannot be decoded, and never could."""
        with self._lock:
            return self._cache.is_protected(name)

    def why_protected(self, name: NamespacedName) -> str:
        """`cluster: Service default/web cannot be read`."""
        with self._lock:
            return self._cache.why_protected(name)

    def problems(self) -> list[Problem]:
        """What is wrong now: with the server, and with objects."""
        unreachable = [r.problem for r in self._reflectors.values() if r.problem is not None]
        with self._lock:
            return unreachable + self._cache.problems()

    def warnings(self) -> list[Problem]:
        """None: pods and selectors are the cluster's."""
        return []

    def inventory(self) -> Inventory:
        """As of now. Pods, Ingresses and the slices of headless services are not followed."""
        with self._lock:
            return Inventory(
                dict(self._cache.services()),
                dict(self._cache.all_slices()),
                nodes=self.nodes(),
                held=self._cache.held(),
                followed=frozenset({"Endpoints", *self._reflectors}),
                headless=False,
                all_nodes=False,
                annotated=False,
            )

    def host_changed(self) -> None:
        """Find the node anew with the next `take`."""
        self._host_changes += 1

    def refresh(self) -> None:
        """Nothing: what the server says is known as soon as it says so."""

    def last_seen(self) -> Mapping[str, float]:
        """When something last came from the server, by kind (time.monotonic); without those never heard."""
        contacts = {kind: reflector.contact for kind, reflector in self._reflectors.items()}
        return {kind: when for kind, when in contacts.items() if when > 0}

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

"""A cluster as the loop's source: what the API server says, and the node that this host is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping

from kproxy.model import ClusterNode, EndpointSlice, NamespacedName, Node, Service
from kproxy.problems import Problem
from kproxy.sources.cluster.source import ClusterSource
from kproxy.sources.core.inventory import Inventory


class Cluster:
    """A `FollowedSource`."""

    def __init__(self, source: ClusterSource, find_node: Callable[[Mapping[str, ClusterNode]], Node]) -> None:
        """`find_node` is asked before each round, in a thread: it may ask the kernel."""
        self._source = source
        self._find_node = find_node
        self._node = Node("")
        self._with_pods: dict[str, ClusterNode] = {}
        self._triggers: list[str] = []

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once."""
        return self._source.synced

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow the API server; never returns."""
        await self._source.run(wake)

    async def take(self) -> Collection[NamespacedName]:
        """The services that the server has said something new of."""
        nodes = self.nodes()
        if any(node.pod_cidrs for node in nodes.values()):
            self._with_pods = nodes
        self._node = await asyncio.to_thread(self._find_node, nodes)
        triggers = self._source.take_triggers()
        self._triggers += [trigger for found in triggers.values() for trigger in found]
        return self._source.take()

    def nodes(self) -> dict[str, ClusterNode]:
        """This node's object, if there is one, by its name."""
        node = self._source.node
        return {} if node is None else {node.name: node}

    def with_pods(self) -> dict[str, ClusterNode]:
        """The same as it was when it last had pod CIDRs: a Node that is deleted takes no pods along."""
        return self._with_pods

    def names(self) -> Iterable[NamespacedName]:
        """All services."""
        return self._source.services()

    def service(self, name: NamespacedName) -> Service | None:
        """As the server has it."""
        return self._source.service(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """As the server has them."""
        return self._source.slices(name)

    def node(self) -> Node:
        """As of the last `take`."""
        return self._node

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of it could not be decoded, and never could."""
        return self._source.is_protected(name)

    def problems(self) -> list[Problem]:
        """What is wrong with the server, and with objects."""
        return self._source.problems()

    def warnings(self) -> list[Problem]:
        """None: pods and selectors are the cluster's."""
        return []

    def refresh(self) -> None:
        """Nothing: what the server says is known as soon as it says so."""

    def take_triggers(self) -> Collection[str]:
        """When what changed endpoints happened."""
        triggers, self._triggers = self._triggers, []
        return triggers

    def last_seen(self) -> Mapping[str, float]:
        """When something last came from the server, by kind (time.monotonic)."""
        return {kind: when for kind, when in self._source.last_contact.items() if when > 0}

    def inventory(self) -> Inventory:
        """As of now."""
        return Inventory(
            self._source.services(),
            self._source.all_slices(),
            nodes=self.nodes(),
            followed=frozenset({"Service", "Endpoints", "EndpointSlice", "Node"}),
            headless=False,
        )

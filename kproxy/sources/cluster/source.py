"""A cluster as a source: a reflector for each kind fills one cache, from which the loop reads.

`take` returns nothing before every kind has been listed once. The reflectors change the cache in the event
loop, but a round reads it in another thread. Therefore a lock protects each change, and each method that
reads more than one entry.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from threading import Lock

from msgspec.structs import replace

from kproxy.gatewayapi import GatewayObjects
from kproxy.model import (
    ClusterNode,
    EndpointSlice,
    NamespacedName,
    Network,
    Node,
    Service,
    is_gateway,
)
from kproxy.problems import Problem
from kproxy.sources.cluster.connection import Connection
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import SOURCE, ObjectChange
from kproxy.sources.cluster.core.formats import PROTOBUF
from kproxy.sources.cluster.core.resources import (
    GATEWAY_API,
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    ApiResource,
    node_resource,
)
from kproxy.sources.cluster.credentials import Credentials
from kproxy.sources.cluster.gateways import GatewayServices
from kproxy.sources.cluster.reflector import Pacing, Reflector
from kproxy.sources.core.inventory import KINDS, Inventory
from kproxy.sources.core.routed import RoutedObjects
from kproxy.sources.node import unknown_node
from kproxy.sources.source import Requests


class Cluster:
    """A `FollowedSource`: Services, EndpointSlices, one Node and the ServiceCIDRs of an API server."""

    def __init__(
        self,
        credentials: Credentials,
        node_name: str,
        find_node: Callable[[Mapping[str, ClusterNode]], Node],
        pacing: Pacing | None = None,
        follow_service_cidrs: bool = True,
        follow_gateways: bool = False,
        start_jitter: float = 0.0,
        content_type: str = PROTOBUF,
    ) -> None:
        """`find_node` is called in a thread, whenever the node may have changed. It may query the kernel.

        `follow_service_cidrs`: False if the ranges of ClusterIPs are known. `follow_gateways`: follow the
        Gateway API, and serve its TCP and UDP routes. `start_jitter`: the first request is sent after
        a random time of at most so many seconds. `content_type`: the format to request.
        """
        self.revision = 0
        self._cache = Cache()
        self._lock = Lock()
        self.credentials = str(credentials.place)
        self._connection = Connection(credentials)
        self._start_jitter = start_jitter
        self._node_name = node_name
        self._find_node = find_node
        self._node = Node("")
        self._node_of: tuple[ClusterNode | None, int] | None = None
        self._host_changes = 0
        self._wake: Callable[[], None] = lambda: None
        resources = [SERVICES, SLICES, node_resource(node_name)]
        resources += [SERVICE_CIDRS] if follow_service_cidrs else []
        resources += GATEWAY_API if follow_gateways else []
        self._gateways = GatewayServices()
        self._cause = ""
        """Why no kind can be followed, as the last `problems` said; "" if any can."""
        self._unlisted = {resource.kind for resource in resources}
        self._reflectors = {
            resource.kind: Reflector(
                self._connection, resource, self._apply, self._retain, pacing or Pacing(), content_type
            )
            for resource in resources
        }

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow the API server until cancelled. Calls `wake` when `take` has changes."""
        self._wake = wake
        await asyncio.sleep(random.random() * self._start_jitter)
        async with self._connection, asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors.values():
                tasks.create_task(reflector.run())

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once, or is optional and cannot be listed."""
        return not self._unlisted

    async def take(self) -> Collection[NamespacedName]:
        """Return the services that changed since the last call; () until `synced`."""
        now = self._cache.node, self._host_changes
        if now != self._node_of:
            node = await asyncio.to_thread(self._find_node, self.nodes())
            # The pods of a deleted Node may still run, so its pod CIDRs stay.
            self._node = replace(node, pod_cidrs=node.pod_cidrs or self._node.pod_cidrs)
            self._node_of = now
        with self._lock:
            if not self.synced:
                return ()
            self.revision += self._cache.pending
            changed = self._cache.take()
            return changed | self._update_gateways(changed) if "Gateway" in self._reflectors else changed

    def _update_gateways(self, changed: set[NamespacedName]) -> set[NamespacedName]:
        cache = self._cache
        objects = cache.take_gateways() if cache.gateways_changed else None
        return self._gateways.update(objects, changed, self._node, cache.service, cache.slices)

    def routed(self) -> RoutedObjects:
        """Return nothing: the objects of the gateway are not followed."""
        return RoutedObjects()

    def take_triggers(self) -> Collection[str]:
        """Return the known times (RFC 3339) of events that changed endpoints since the last call."""
        with self._lock:
            return self._cache.take_triggers() if self.synced else ()

    def names(self) -> Iterable[NamespacedName]:
        """Return the names of all services."""
        with self._lock:
            return [*self._cache.services(), *self._gateways.services]

    def service(self, name: NamespacedName) -> Service | None:
        """Return a service; None if it does not exist."""
        return self._gateways.services.get(name) if is_gateway(name) else self._cache.service(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Return the EndpointSlices of a service, sorted by name."""
        return self._gateways.slices.get(name, ()) if is_gateway(name) else self._cache.slices(name)

    def node(self) -> Node:
        """Return this node, as of the last `take`."""
        return self._node

    def service_cidrs(self) -> tuple[Network, ...]:
        """Return the ranges of ServiceCIDRs, without ClusterIPs of Services that another proxy serves."""
        with self._lock:
            return self._cache.service_cidrs()

    def nodes(self) -> dict[str, ClusterNode]:
        """Return the Node object of this node by its name; {} if it does not exist."""
        node = self._cache.node
        return {} if node is None else {node.name: node}

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of a service cannot be decoded, and never could; or Gateways cannot be followed."""
        if is_gateway(name) and self._gateways_unknown():
            return True
        with self._lock:
            return self._cache.is_protected(name)

    def _gateways_unknown(self) -> str:
        """Return why a kind of the Gateway API cannot be followed; "" if each can."""
        found = (self._reflectors[each.kind] for each in GATEWAY_API if each.kind in self._reflectors)
        return next((str(each.problem(each.failure)) for each in found if each.failure), "")

    def why_protected(self, name: NamespacedName) -> str:
        """Return for example `cluster: Service default/web cannot be read`."""
        if is_gateway(name) and (why := self._gateways_unknown()):
            return why
        with self._lock:
            return self._cache.why_protected(name)

    def held(self) -> Mapping[NamespacedName, str]:
        """Return the services for which the last valid version of an object is in use, and why."""
        with self._lock:
            return self._cache.held()

    def problems(self) -> list[Problem]:
        """Return the present problems of the connections and of objects."""
        with self._lock:
            return [*self._not_followed(), *self._cache.problems()]

    def _not_followed(self) -> Iterator[Problem]:
        """Yield why kinds cannot be followed.

        What concerns all kinds is one problem. It stays the same one as long as it concerns any kind, because
        other requests may fail in another way at the same time.
        """
        failing = {r: r.failure for r in self._reflectors.values() if r.failure}
        common = [failure.message for failure in failing.values() if failure.concerns_all]
        if self._cause not in common:
            self._cause = common[0] if common else ""
        if self._cause:
            yield Problem(SOURCE, "", "", f"cannot use the API server: {self._cause}")
        yield from (r.problem(failure) for r, failure in failing.items() if not failure.concerns_all)

    def input_warnings(self) -> list[Problem]:
        """Return parts of objects that are not used, or read in another way."""
        with self._lock:
            return self._cache.warnings()

    def warnings(self) -> list[Problem]:
        """Return a warning if this node has no Node. The cluster's controllers check pods and selectors."""
        if not self.synced or self._cache.has_node:
            return []
        return [unknown_node(SOURCE, self._node_name)]

    def notes(self) -> list[str]:
        """Return []: the cluster's controllers make pods and endpoints."""
        return []

    def inventory(self) -> Inventory:
        """Return the present objects. Pods, Ingresses and slices of headless services are not followed."""
        with self._lock:
            return Inventory(
                dict(self._cache.services()),
                dict(self._cache.all_slices()),
                nodes=self.nodes(),
                held=self._cache.held(),
                followed=frozenset({"Endpoints", *self._reflectors}) & KINDS,
                headless=False,
                all_nodes=False,
                annotated=False,
                gateways=self._gateways.objects,
                gateway_services=dict(self._gateways.services),
                gateway_slices=dict(self._gateways.slices),
            )

    def gateways(self) -> GatewayObjects:
        """Return the objects of the Gateway API that are in use."""
        return self._gateways.objects

    @property
    def connection(self) -> Connection:
        """The connection to the API server. It can be used while `run` runs."""
        return self._connection

    def resource(self, kind: str) -> ApiResource:
        """Return the resource of a kind that is followed."""
        return self._reflectors[kind].resource

    def host_changed(self) -> None:
        """Determine the node again in the next `take`."""
        self._host_changes += 1

    def refresh(self) -> None:
        """Do nothing: the server sends every change."""

    def requests(self) -> Requests:
        """Return the number of requests. It may be called in any thread."""
        return dict(self._connection.requests)

    def last_seen(self) -> Mapping[str, float]:
        """Return when data last came from the server (time.monotonic), for each kind that received any."""
        contacts = {kind: reflector.contact for kind, reflector in self._reflectors.items()}
        return {kind: when for kind, when in contacts.items() if when > 0}

    def _apply(self, changes: Iterable[ObjectChange]) -> None:
        with self._lock:
            for change in changes:
                self._cache.apply(change)
        self._notify()

    def _retain(self, kind: str, keys: set[NamespacedName]) -> None:
        """Delete the objects that a complete list of a kind does not contain."""
        with self._lock:
            self._cache.retain(kind, keys)
            if kind in self._unlisted:
                self._unlisted.remove(kind)
                if self.synced:
                    self._cache.take_triggers()  # the times in a first list are long past
                    self._wake()
        self._notify()

    def _notify(self) -> None:
        if self.synced and self._cache.pending:
            self._wake()

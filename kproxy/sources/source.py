"""The interface of sources, which read manifests or a cluster's API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeAlias

from kproxy.model import EndpointSlice, NamespacedName, Network, Node, Service
from kproxy.problems import Problem
from kproxy.sources.core.inventory import Inventory
from kproxy.sources.core.routed import RoutedObjects

Requests: TypeAlias = Mapping[tuple[str, str, str], int]
"""Requests to API servers, by status code (`<error>` without a response), host and method."""


class Source(Protocol):
    """Services and their endpoints, as of the last read or `take`."""

    def names(self) -> Iterable[NamespacedName]:
        """Return the names of all Services."""

    def service(self, name: NamespacedName) -> Service | None:
        """Return a Service with its addresses and node ports; None if there is no such Service."""

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Return the slices of a Service."""

    def node(self) -> Node:
        """Return this node."""

    def service_cidrs(self) -> tuple[Network, ...]:
        """Return the ranges of ClusterIPs, as far as the input names them. They do not overlap."""

    def protected(self, name: NamespacedName) -> bool:
        """Whether nothing of a Service may be removed, because part of its input could not be read."""

    def why_protected(self, name: NamespacedName) -> str:
        """Return why a Service is protected, as a sentence without full stop; "" if it is not."""

    def held(self) -> Mapping[NamespacedName, str]:
        """Return the Services of which something is in use although it can no longer be read, and why."""

    def problems(self) -> list[Problem]:
        """Return the errors in the input."""

    def input_warnings(self) -> list[Problem]:
        """Return what is used, but perhaps not as it was meant, for example in spite of unknown fields."""

    def warnings(self) -> list[Problem]:
        """Return possible mistakes in the input, which have no consequences."""

    def notes(self) -> list[str]:
        """Return what is missing in the input, although nothing in it is wrong."""

    def inventory(self) -> Inventory:
        """Return all objects, for views. To be called between two rounds; the value does not change later."""


class FollowedSource(Source, Protocol):
    """A source that notices changes."""

    @property
    def synced(self) -> bool:
        """Whether everything has been read once."""

    @property
    def revision(self) -> int:
        """A number that is different after each `take` that changed the inventory."""

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow the input, and call `wake` after each change. Never returns."""

    async def take(self) -> Collection[NamespacedName]:
        """Apply the changes. Returns the Services that changed. Raises KproxyError; then try again later."""

    def host_changed(self) -> None:
        """Determine the node again in the next `take`, because this host's addresses may have changed."""

    def refresh(self) -> None:
        """Read the whole input again in the next `take`."""

    def routed(self) -> RoutedObjects:
        """Return the objects of the gateway, as of the last `take`."""

    def take_triggers(self) -> Collection[str]:
        """Return the known times (RFC 3339) of events that changed endpoints since the last call."""

    # --- about the API server; nothing if there is none ---

    @property
    def credentials(self) -> str:
        """The path of the kubeconfig, or the folder of the service account."""

    def last_seen(self) -> Mapping[str, float]:
        """Return when each connection last received data (time.monotonic), by kind."""

    def requests(self) -> Requests:
        """Return the number of requests. It may be called in any thread."""

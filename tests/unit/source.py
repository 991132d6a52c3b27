"""A source without services, from which the sources of tests are derived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kproxy.model import EndpointSlice, NamespacedName, Network, Node, Service
from kproxy.problems import Problem
from kproxy.sources.core.inventory import Inventory
from kproxy.sources.core.routed import RoutedObjects
from kproxy.sources.source import Requests


class EmptySource:
    """A `Source`, and most of a `FollowedSource`. Tests replace `this_node`, and override what they need."""

    this_node = Node("n1")
    credentials = ""

    def names(self) -> Iterable[NamespacedName]:
        return ()

    def service(self, name: NamespacedName) -> Service | None:
        return None

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        return ()

    def node(self) -> Node:
        return self.this_node

    def service_cidrs(self) -> tuple[Network, ...]:
        return ()

    def protected(self, name: NamespacedName) -> bool:
        return bool(self.why_protected(name))

    def why_protected(self, name: NamespacedName) -> str:
        return ""

    def held(self) -> Mapping[NamespacedName, str]:
        return {}

    def problems(self) -> list[Problem]:
        return []

    def input_warnings(self) -> list[Problem]:
        return []

    def warnings(self) -> list[Problem]:
        return []

    def notes(self) -> list[str]:
        return []

    def inventory(self) -> Inventory:
        return Inventory({}, {})

    def routed(self) -> RoutedObjects:
        return RoutedObjects()

    def last_seen(self) -> Mapping[str, float]:
        return {}

    def requests(self) -> Requests:
        return {}

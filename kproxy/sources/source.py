"""What a source of services is, whatever it reads: manifests, or a cluster's API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from kproxy.model import EndpointSlice, NamespacedName, Node, Service
from kproxy.problems import Problem
from kproxy.sources.core.inventory import Inventory


class Source(Protocol):
    """Services and their endpoints, as of the last time that changes were taken."""

    def names(self) -> Iterable[NamespacedName]:
        """All services."""

    def service(self, name: NamespacedName) -> Service | None:
        """A service with its addresses and node ports; None: there is none."""

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Its endpoints."""

    def node(self) -> Node:
        """This node."""

    def protected(self, name: NamespacedName) -> bool:
        """Whether nothing may be removed of it, since part of it could not be read."""

    def why_protected(self, name: NamespacedName) -> str:
        """What could not be read of a protected service, as a sentence without a full stop; "" of others."""

    def problems(self) -> list[Problem]:
        """What is wrong with what was read."""

    def warnings(self) -> list[Problem]:
        """What may not be as it was meant, and leaves nothing out."""

    def inventory(self) -> Inventory:
        """Everything that can be shown. Between two rounds; the value does not change later."""


class FollowedSource(Source, Protocol):
    """A source that notices changes."""

    @property
    def synced(self) -> bool:
        """Whether everything has been read once."""

    @property
    def revision(self) -> int:
        """Another number after each `take` that changed the inventory."""

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow what changes, and `wake` the loop when something did; never returns."""

    async def take(self) -> Collection[NamespacedName]:
        """Take in what changed; the services that it concerns. KproxyError: to be tried again later."""

    def host_changed(self) -> None:
        """This host's addresses or routes may have changed: find the node anew with the next `take`."""

    def refresh(self) -> None:
        """Read everything anew with the next `take`."""

    def take_triggers(self) -> Collection[str]:
        """When what changed endpoints since the last call happened (RFC 3339), as far as it is known."""

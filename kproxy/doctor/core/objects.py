"""The input as the checks look at it: the Services in question, with their pods, slices and frontends."""

from __future__ import annotations

from functools import cached_property

from kproxy.model import EndpointSlice, NamespacedName, Pod, Service
from kproxy.problems import Problem
from kproxy.resolve.claims import Socket, socket_of
from kproxy.show.describe.context import Context, grouped
from kproxy.show.snapshot import Snapshot


class Objects:
    """A snapshot, and the Services that the command asks about."""

    def __init__(self, snapshot: Snapshot, only: frozenset[NamespacedName] | None = None) -> None:
        """`only`: the Service that the command names, if it is one; None for all Services."""
        self.snapshot = snapshot
        self.inventory = snapshot.inventory
        self.only = only
        self.context = Context(snapshot, 0.0)

    @cached_property
    def services(self) -> list[Service]:
        """The Services in question that kproxy knows, in order of their names."""
        known = self.inventory.services
        return [known[name] for name in sorted(known if self.only is None else self.only & known.keys())]

    @cached_property
    def served(self) -> list[Service]:
        """Those that have frontends on this node."""
        return [each for each in self.services if each.wants_cluster_ip and not each.proxied_elsewhere]

    def concerns(self, name: NamespacedName) -> bool:
        """Whether a Service is in question."""
        return self.only is None or name in self.only

    def knows(self, name: NamespacedName) -> bool:
        """Whether the input has a Service, even one that cannot be decoded; or a Gateway with frontends."""
        inventory = self.inventory
        return name in inventory.owners or name in inventory.left_out or f"Service {name}" in self.problems

    @cached_property
    def problems(self) -> dict[str, list[Problem]]:
        """The problems by object."""
        return grouped(self.snapshot.problems, lambda problem: problem.object)

    @cached_property
    def owners(self) -> dict[Socket, NamespacedName]:
        """The Service that has each frontend."""
        return {socket_of(frontend): frontend.owner.service for frontend in self.snapshot.frontends}

    def slices(self, service: Service) -> tuple[EndpointSlice, ...]:
        """Return the slices of a Service, also those without endpoints."""
        return self.inventory.slices.get(service.name, ())

    def uses_selector(self, service: Service) -> bool:
        """Whether kproxy selects the pods of a Service, because it knows pods and no slices."""
        return "Pod" in self.inventory.followed and self.context.uses_selector(service)

    def selected(self, service: Service) -> list[Pod]:
        """Return the pods that match the selector of a Service, by name."""
        pods = self.context.selected(service) if self.uses_selector(service) else []
        return sorted(pods, key=lambda pod: pod.name)

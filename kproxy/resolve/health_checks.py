"""What health check node ports say: whose each is, and how many endpoints it has on this node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from kproxy.model import Address, EndpointSlice, Family, NamespacedName, Service

Served: TypeAlias = dict[int, tuple[NamespacedName, int]]
"""By health check node port: whose it is, and the ready endpoints that the service has on this node."""


def local_ready(slices: Iterable[EndpointSlice], node: str) -> int:
    """Ready endpoints on the node, each once however many ports it has.

    Those that only serve while they terminate do not count, so that load balancers turn away in time. Of
    two families the one with more counts: a pod of a dual-stack service has an address in each.
    """
    found: dict[Family, set[Address]] = {}
    for slice_ in slices:
        here = {e.address for e in slice_.endpoints if e.ready and e.node == node}
        found.setdefault(slice_.family, set()).update(here)
    return max(map(len, found.values()), default=0)


class HealthChecks:
    """The health check node ports of all services, kept as services change."""

    def __init__(self) -> None:
        self._ports: dict[NamespacedName, tuple[int, int]] = {}

    def change(
        self, name: NamespacedName, service: Service | None, slices: Iterable[EndpointSlice], node: str
    ) -> bool:
        """A service, its endpoints or the node are others (None: it went). Whether anything follows."""
        before = self._ports.pop(name, None)
        if service is not None and service.wants_health_check and service.health_check_node_port:
            self._ports[name] = (service.health_check_node_port, local_ready(slices, node))
        return self._ports.get(name) != before

    def served(self) -> Served:
        """Of two services with the same port, which allocation prevents, the first by name has it."""
        ordered = sorted(self._ports.items(), reverse=True)
        return {port: (name, count) for name, (port, count) in ordered}

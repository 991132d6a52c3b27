"""Health check node ports: the Service of each port, and the number of its endpoints on this node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from kproxy.model import Address, EndpointSlice, Family, NamespacedName, Service

Served: TypeAlias = dict[int, tuple[NamespacedName, int]]
"""By health check node port: the Service, and the number of its ready endpoints on this node."""


def local_ready(slices: Iterable[EndpointSlice], node: str) -> int:
    """Count the ready endpoints on `node`, each once even if it has several ports.

    Endpoints that only serve while they terminate do not count, so that load balancers stop sending
    connections in time. A pod of a dual-stack Service has an address in each family; the family with
    more ready endpoints counts.
    """
    found: dict[Family, set[Address]] = {}
    for slice_ in slices:
        here = {e.address for e in slice_.endpoints if e.ready and e.node == node}
        found.setdefault(slice_.family, set()).update(here)
    return max(map(len, found.values()), default=0)


class HealthChecks:
    """The health check node ports of all Services. `change` keeps them up to date."""

    def __init__(self) -> None:
        self._ports: dict[NamespacedName, tuple[int, int]] = {}

    def change(
        self, name: NamespacedName, service: Service | None, slices: Iterable[EndpointSlice], node: str
    ) -> bool:
        """Take the new state of a Service, its slices and its node; `service` is None if it was removed.

        Returns whether `served` changed.
        """
        before = self._ports.pop(name, None)
        if service is not None and _has_health_check(service):
            self._ports[name] = (service.health_check_node_port, local_ready(slices, node))
        return self._ports.get(name) != before

    def served(self) -> Served:
        """Return all ports. If two Services have the same one, the first by name gets it.

        Allocation prevents that.
        """
        ordered = sorted(self._ports.items(), reverse=True)
        return {port: (name, count) for name, (port, count) in ordered}


def _has_health_check(service: Service) -> bool:
    return (
        service.wants_health_check and bool(service.health_check_node_port) and not service.proxied_elsewhere
    )

"""The Gateways of a cluster, as Services that have ports and slices.

They are computed again if an object of the Gateway API, the node, or a Service behind a route changed. The
cost of another change does not depend on the number of Gateways.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from kproxy.controlplane.gateways import gateway_services
from kproxy.controlplane.ranges import AddressRange, Pool
from kproxy.gatewayapi import NO_OBJECTS, GatewayObjects
from kproxy.model import EndpointSlice, Family, NamespacedName, Node, Service

if TYPE_CHECKING:
    from kproxy.gateway.core.attachment import FindService

Slices: TypeAlias = tuple[EndpointSlice, ...]
EVERYWHERE = Pool(tuple(AddressRange(family, 0, 256**family.width - 1) for family in Family), "any address")
"""In a cluster, the network brings packets to requested addresses to the nodes, as those to externalIPs."""
NO_SERVICES: Mapping[NamespacedName, Service] = MappingProxyType({})
NO_SLICES: Mapping[NamespacedName, Slices] = MappingProxyType({})


class GatewayServices:
    """The present Services of Gateways. Another thread may read them during an update."""

    def __init__(self) -> None:
        self.objects = NO_OBJECTS
        self.services = NO_SERVICES
        self.slices = NO_SLICES
        self._backends: frozenset[NamespacedName] = frozenset()
        self._node = Node("")

    def update(
        self,
        objects: GatewayObjects | None,
        changed: Collection[NamespacedName],
        node: Node,
        find: FindService,
        slices_of: Callable[[NamespacedName], Slices],
    ) -> set[NamespacedName]:
        """Compute them again if necessary. `objects` is None if none changed. Returns those that changed."""
        if objects is None and node == self._node and self._backends.isdisjoint(changed):
            return set()
        from kproxy.gateway.core.l4 import l4_services  # not at the top: few clusters have Gateways

        self.objects, self._node = self.objects if objects is None else objects, node
        routes = (each for kind in self.objects.routes.values() for each in kind.values())
        refs = (ref for route in routes for rule in route.rules for ref in rule.backends)
        self._backends = frozenset(ref.name for ref in refs)
        own = {service.name: service for service in gateway_services(self.objects, EVERYWHERE, node)}
        found = list(l4_services(self.objects, lambda name: own.get(name) or find(name), slices_of))
        services, slices = self.services, self.slices
        self.services = {service.name: service for service, _ in found}
        self.slices = {service.name: own_slices for service, own_slices in found}
        return {
            name
            for name in services.keys() | self.services.keys()
            if services.get(name) != self.services.get(name) or slices.get(name) != self.slices.get(name)
        }

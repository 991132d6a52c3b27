"""Objects of manifests -> Services with addresses, and their EndpointSlices. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from kproxy.controlplane.allocate import allocate
from kproxy.controlplane.gateways import gateway_services
from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ownership import Announced, announced
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.selection import mismatches
from kproxy.controlplane.slices import all_slices, of_service_families, pod_index
from kproxy.controlplane.workloads import missing_pods
from kproxy.decode import Decoded, Unreadable
from kproxy.model import EndpointSlice, NamespacedName, Node, Service
from kproxy.problems import Problem


class Settled(NamedTuple):
    """Services with their addresses, and their EndpointSlices, as a cluster's API would have them.

    A Gateway is a Service, too. Its ports and slices are added by gateway/core.
    """

    services: dict[NamespacedName, Service]
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    allocations: Allocations
    problems: list[Problem]
    warnings: list[Problem]
    """Services that do not match their pods or endpoints. These are not errors."""
    notes: list[str]
    """What is missing in the input, although nothing in it is wrong."""
    refused: dict[NamespacedName, Problem]
    """Services that are left out, because they cannot get all that they need, and why."""
    unreadable: Unreadable

    @property
    def has_protected(self) -> bool:
        """Whether any Service is protected."""
        return bool(self.refused or self.unreadable)

    def protected(self, service: NamespacedName) -> bool:
        """Whether nothing of a Service may be removed: it was refused, or part of its input is unreadable."""
        return service in self.refused or self.unreadable.covers(service)


def settle(decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Settled:
    """Allocate addresses and ports, and make slices. The result contains all problems and warnings."""
    unreadable, pods = decoded.unreadable, pod_index(decoded.state, node)
    own = (*node.addresses, *node.node_port_addresses)
    gateways = gateway_services(decoded.gateways, ranges.pool, node)
    services = [*decoded.state.services.values(), *gateways]
    allocated = allocate(services, past, ranges, unreadable.covers, own)
    known = {**decoded.state.services, **allocated.services}
    slices = all_slices(decoded.state, pods)
    for name in slices.keys() - decoded.state.slices.keys():
        slices[name] = of_service_families(known[name], slices[name])
    return Settled(
        allocated.services,
        slices,
        allocated.allocations,
        decoded.problems + allocated.problems,
        mismatches(decoded.state, pods),
        list(filter(None, [missing_pods(decoded.state, pods)])),
        allocated.refused,
        unreadable,
    )


def announced_by(node: str, nodes: Collection[str], found: Settled) -> Announced:
    """Return the addresses of the pool for the uplink of `node`, which is one of `nodes`."""
    return announced(
        found.allocations.pool_addresses(),
        found.services.get,
        lambda name: found.slices.get(name, ()),
        found.protected,
        nodes,
        node,
    )

"""Objects of manifests -> Services with addresses, and their EndpointSlices. Pure."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from kproxy.controlplane.allocator import Allocator
from kproxy.controlplane.gateways import gateway_services
from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ownership import Announced, announced
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.selector import Selector
from kproxy.controlplane.slices import with_host_addresses
from kproxy.controlplane.workloads import missing_pods
from kproxy.decode import Decoded, Unreadable
from kproxy.model import EndpointSlice, NamespacedName, Node, Service
from kproxy.problems import Problem


class Settled(Struct, frozen=True):
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


class Settler:
    """Settles one input after another. What both have in common is not computed again.

    The result is the same as that of a new Settler.
    """

    def __init__(self) -> None:
        self._allocator, self._selector = Allocator(), Selector()

    def settle(self, decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Settled:
        """Allocate addresses and ports, and make slices. The result contains all problems and warnings."""
        own = (*node.addresses, *node.node_port_addresses)
        gateways = {each.name: each for each in gateway_services(decoded.gateways, ranges.pool, node)}
        state = replace(decoded.state, pods=tuple(with_host_addresses(decoded.state.pods, node)))
        allocator, selector = self._allocator, self._selector
        self._allocator, self._selector = Allocator(), Selector()  # they stay new after an exception
        allocated = allocator.allocate({**state.services, **gateways}, past, ranges, decoded.unreadable, own)
        selected = selector.select(state, {**state.services, **allocated.services})
        self._allocator, self._selector = allocator, selector
        return Settled(
            allocated.services,
            selected.slices,
            allocated.allocations,
            decoded.problems + allocated.problems,
            selected.warnings,
            list(filter(None, [missing_pods(selected.lacks)])),
            allocated.refused,
            decoded.unreadable,
        )


def settle(decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Settled:
    """Settle one input. Returns the result of a new `Settler`."""
    return Settler().settle(decoded, past, ranges, node)


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

"""The pure middle of a sync without a cluster: objects -> frontends, by way of selectors and allocation."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from kproxy.controlplane.allocate import allocate
from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ownership import Announced, announced
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.selection import disagreements
from kproxy.controlplane.slices import all_slices, of_its_families, pod_index
from kproxy.decode import Decoded, Unreadable
from kproxy.model import EndpointSlice, Frontend, NamespacedName, Node, Protects, Service
from kproxy.problems import Problem
from kproxy.resolve.frontends import all_frontends


class Settled(NamedTuple):
    """What a cluster's API would say: services with their addresses, and their endpoints."""

    services: dict[NamespacedName, Service]
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    allocations: Allocations
    problems: list[Problem]
    warnings: list[Problem]
    """Nothing that would be wrong: what a service and its pods do not agree on."""
    left_out: dict[NamespacedName, Problem]
    """Services that cannot have all that they need, and why."""
    unreadable: Unreadable

    @property
    def in_doubt(self) -> bool:
        """Whether any service is protected."""
        return bool(self.left_out or self.unreadable)

    def protected(self, service: NamespacedName) -> bool:
        """Whether nothing may be removed of a service, since part of its input is missing."""
        return service in self.left_out or self.unreadable.covers(service)


class Resolution(NamedTuple):
    """What is to be programmed, and what was found on the way."""

    services: dict[NamespacedName, Service]
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    frontends: list[Frontend]
    allocations: Allocations
    """What to save, and (`pool_addresses`) which load-balancer addresses are whose."""
    problems: list[Problem]
    warnings: list[Problem]
    """As of `Settled`."""
    protected: Protects
    """As of `Settled`."""


def settle(decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Settled:
    """Allocate and select; every problem and warning of the input is in the outcome."""
    unreadable, pods = decoded.unreadable, pod_index(decoded.state, node)
    own = (*node.addresses, *node.node_port_addresses)
    allocated = allocate(decoded.state.services.values(), past, ranges, unreadable.covers, own)
    known = {**decoded.state.services, **allocated.services}
    slices = all_slices(decoded.state, pods)
    for name in slices.keys() - decoded.state.slices.keys():
        slices[name] = of_its_families(known[name], slices[name])
    return Settled(
        allocated.services,
        slices,
        allocated.allocations,
        decoded.problems + allocated.problems,
        disagreements(decoded.state, pods),
        allocated.left_out,
        unreadable,
    )


def resolve(decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Resolution:
    """`settle`, and what this node makes of it."""
    settled = settle(decoded, past, ranges, node)
    resolved = all_frontends(settled.services.values(), settled.slices, node)
    return Resolution(
        settled.services,
        settled.slices,
        resolved.frontends,
        settled.allocations,
        settled.problems + resolved.problems,
        settled.warnings,
        settled.protected,
    )


def announced_by(node: str, nodes: Collection[str], found: Settled | Resolution) -> Announced:
    """Which addresses of the pool `node`, one of `nodes`, is to have on its uplink."""
    return announced(
        found.allocations.pool_addresses(),
        found.services.get,
        lambda name: found.slices.get(name, ()),
        found.protected,
        nodes,
        node,
    )

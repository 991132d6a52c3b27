"""Computes frontends from objects in one step: settles them, and resolves them for one node."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from kproxy.controlplane.gateways import with_built_in
from kproxy.controlplane.hold import InUse, hold
from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import settle
from kproxy.decode import Decoded
from kproxy.gateway.core.l4 import with_gateways
from kproxy.model import EndpointSlice, Frontend, NamespacedName, Node, Protects, Service
from kproxy.problems import Problem
from kproxy.resolve.claims import all_frontends


class Resolution(NamedTuple):
    """The frontends to program, and the data that they are computed from."""

    services: dict[NamespacedName, Service]
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    frontends: list[Frontend]
    allocations: Allocations
    """To be saved. `pool_addresses` returns the load-balancer addresses and their Services."""
    problems: list[Problem]
    warnings: list[Problem]
    """As in `Settled` and `Resolved`."""
    protected: Protects
    """As in `Settled`."""


def resolve(decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Resolution:
    """Return the result of `settle` with the frontends on this node."""
    decoded = replace(decoded, gateways=with_built_in(decoded.gateways))
    settled = settle(decoded, past, ranges, node)
    in_use = with_gateways(hold(InUse(), settled), decoded.gateways)
    resolved = all_frontends(in_use.services.values(), in_use.slices, node)
    return Resolution(
        in_use.services,
        in_use.slices,
        resolved.frontends,
        settled.allocations,
        settled.problems + resolved.problems,
        settled.warnings + resolved.warnings,
        settled.protected,
    )

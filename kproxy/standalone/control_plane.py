"""The pure middle of a sync without a cluster: objects -> frontends, by way of selectors and allocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kproxy.decode import Decoded
from kproxy.model import Frontend, NamespacedName, Node, Service
from kproxy.problems import Problem
from kproxy.resolve.frontends import all_frontends
from kproxy.standalone.allocate import Allocations, Claim, Ranges, Resource, allocate
from kproxy.standalone.endpoints import all_slices


class Outcome(NamedTuple):
    """What is to be programmed, and what was found on the way."""

    services: dict[NamespacedName, Service]
    frontends: list[Frontend]
    allocations: dict[Claim, Resource]
    problems: list[Problem]
    kept: Callable[[NamespacedName], bool]
    """Whether nothing may be removed of a service, since part of its input is missing."""


def resolve(decoded: Decoded, held: Allocations, ranges: Ranges, node: Node) -> Outcome:
    """Allocate, select and resolve; every problem of the input is in the outcome."""
    doubt = decoded.doubt
    allocated = allocate(decoded.state.services.values(), held, ranges, doubt.covers)
    resolved = all_frontends(allocated.services.values(), all_slices(decoded.state, node), node)
    return Outcome(
        allocated.services,
        resolved.frontends,
        allocated.allocations,
        decoded.problems + allocated.problems + resolved.problems,
        lambda service: service in allocated.left_out or doubt.covers(service),
    )

"""Which endpoints of a service port a node uses: readiness, hints, locality.

It corresponds to kube-proxy's CategorizeEndpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from kproxy.model import Endpoint, Node

Candidate: TypeAlias = tuple[Endpoint, int]
"""An endpoint, and the number of its port."""


class Categorized(NamedTuple):
    """The endpoint lists for the traffic policies Cluster and Local."""

    cluster: Sequence[Candidate]
    local: Sequence[Candidate]
    """The endpoints on this node, regardless of hints."""
    has_any: bool
    """Whether any node has a usable endpoint."""


def usable(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the ready endpoints; if there are none, those that serve while they terminate."""
    ready = [pair for pair in candidates if pair[0].ready]
    return ready or [pair for pair in candidates if pair[0].serving and pair[0].terminating]


def _use_hints(ready: Sequence[Candidate], hints_of: Callable[[Endpoint], Sequence[str]], own: str) -> bool:
    """Whether every ready endpoint has a hint, and at least one hint is `own`, this node or its zone."""
    hints = [hints_of(endpoint) for endpoint, _ in ready]
    return bool(own) and all(hints) and any(own in names for names in hints)


def _hinted(candidates: Sequence[Candidate], node: Node) -> Sequence[Candidate]:
    """Return the endpoints that have a hint for this node, else for its zone, else all endpoints."""
    ready = [pair for pair in candidates if pair[0].ready]
    if _use_hints(ready, lambda endpoint: endpoint.for_nodes, node.name):
        return [pair for pair in candidates if node.name in pair[0].for_nodes]
    if _use_hints(ready, lambda endpoint: endpoint.for_zones, node.zone):
        return [pair for pair in candidates if node.zone in pair[0].for_zones]
    return candidates


def categorize(candidates: Sequence[Candidate], node: Node) -> Categorized:
    """Select the endpoints that `node` uses, from those of one service port in one family."""
    near = [pair for pair in _hinted(candidates, node) if pair[0].ready]
    cluster = near or usable(candidates)
    local = usable([pair for pair in candidates if pair[0].node == node.name])
    return Categorized(cluster, local, has_any=bool(cluster or local))

"""Which of a service port's endpoints a node uses: readiness, hints, locality (CategorizeEndpoints)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from kproxy.model import Endpoint, Node

Candidate: TypeAlias = tuple[Endpoint, int]
"""An endpoint and its port."""


class Categorized(NamedTuple):
    """The two lists that policies choose between, and whether anything serves at all."""

    cluster: Sequence[Candidate]
    local: Sequence[Candidate]
    """Those on this node; hints do not count for them."""
    any: bool
    """Whether some endpoint, wherever it is, could serve."""


def serving(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The ready ones; if none is, those that still serve while they terminate."""
    ready = [pair for pair in candidates if pair[0].ready]
    return ready or [pair for pair in candidates if pair[0].serving and pair[0].terminating]


def _hinted(ready: Sequence[Candidate], meant: Callable[[Endpoint], Sequence[str]], here: str) -> bool:
    """Whether every ready endpoint has such a hint, and one of them names this place."""
    hints = [meant(endpoint) for endpoint, _ in ready]
    return bool(here) and all(hints) and any(here in names for names in hints)


def closest(candidates: Sequence[Candidate], node: Node) -> Sequence[Candidate]:
    """What hints leave of the candidates: those for this node, or for its zone, or all of them."""
    ready = [pair for pair in candidates if pair[0].ready]
    if _hinted(ready, lambda endpoint: endpoint.for_nodes, node.name):
        return [pair for pair in candidates if node.name in pair[0].for_nodes]
    if _hinted(ready, lambda endpoint: endpoint.for_zones, node.zone):
        return [pair for pair in candidates if node.zone in pair[0].for_zones]
    return candidates


def categorize(candidates: Sequence[Candidate], node: Node) -> Categorized:
    """Sort a service port's endpoints of one family."""
    near = [pair for pair in closest(candidates, node) if pair[0].ready]
    cluster = near or serving(candidates)
    local = serving([pair for pair in candidates if pair[0].node == node.name])
    return Categorized(cluster, local, any=bool(cluster or local))

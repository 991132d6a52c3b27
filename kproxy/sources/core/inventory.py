"""Everything that a source holds at one moment: what `get`, `describe` and `env` show, and nothing else.

The services and slices are those that the tables are made from. Whoever shows them does not select
endpoints or allocate addresses again: beside a file that cannot be read the outcome would be another one.
"""

from __future__ import annotations

from msgspec import Struct

from kproxy.controlplane.hold import InUse
from kproxy.controlplane.slices import with_host_addresses
from kproxy.model import ClusterNode, ClusterState, EndpointSlice, Ingress, NamespacedName, Node, Pod, Service
from kproxy.probes.core.readiness import PodReadiness

KINDS = frozenset({"Service", "Endpoints", "EndpointSlice", "Pod", "Node", "Ingress"})


class Inventory(Struct, frozen=True):
    """The objects of a source, by kind."""

    services: dict[NamespacedName, Service]
    """With the addresses and node ports that are theirs."""
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    """By service, which need not exist."""
    pods: tuple[Pod, ...] = ()
    """As ready as their probes found them."""
    ingresses: tuple[Ingress, ...] = ()
    nodes: dict[str, ClusterNode] = {}
    """By name."""
    held: dict[NamespacedName, str] = {}
    """Services of which something is in use although it cannot be read any more, and why."""
    left_out: dict[NamespacedName, Service] = {}
    """Services that cannot have all that they need, as in their manifests: nothing of them is in use."""
    unselected: frozenset[NamespacedName] = frozenset()
    """Services whose endpoints the input lists, so that their selectors do not count."""
    readiness: dict[NamespacedName, PodReadiness] | None = None
    """Of the pods that are probed here; None where no kproxy runs."""
    followed: frozenset[str] = KINDS
    """The kinds that the source reads."""
    headless: bool = True
    """Whether it reads the endpoints of headless services."""
    all_nodes: bool = True
    """Whether it reads all Nodes, or only that of its own node."""
    annotated: bool = True
    """Whether it keeps the annotations of objects."""


def manifest_inventory(state: ClusterState, in_use: InUse, node: Node) -> Inventory:
    """What manifests amount to on `node`. `state`: what was read, with what the probes found."""
    return Inventory(
        in_use.services,
        in_use.slices,
        tuple(with_host_addresses(state.pods, node)),
        state.ingresses,
        state.nodes,
        in_use.held,
        {name: service for name, service in state.services.items() if name not in in_use.services},
        frozenset(state.slices),
    )

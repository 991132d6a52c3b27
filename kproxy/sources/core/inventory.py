"""All objects of a source at one moment, as `get`, `describe` and `env` show them.

The Services and slices are those from which the tables are made. The views do not select endpoints
or allocate addresses again: if a file is unreadable, the result would differ from what is programmed.
"""

from __future__ import annotations

from msgspec import Struct

from kproxy.controlplane.hold import InUse
from kproxy.controlplane.slices import with_host_addresses
from kproxy.model import (
    WORKLOADS,
    ClusterNode,
    ClusterState,
    EndpointSlice,
    Ingress,
    NamespacedName,
    Node,
    Pod,
    Service,
    Workload,
)
from kproxy.probes.core.readiness import PodReadiness

KINDS = frozenset({"Service", "Endpoints", "EndpointSlice", "Pod", "Node", "Ingress", *WORKLOADS})


class Inventory(Struct, frozen=True):
    """The objects of a source, by kind."""

    services: dict[NamespacedName, Service]
    """With their allocated addresses and node ports."""
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    """By Service, which may not exist."""
    pods: tuple[Pod, ...] = ()
    """With the readiness that their probes found."""
    ingresses: tuple[Ingress, ...] = ()
    nodes: dict[str, ClusterNode] = {}
    """By name."""
    workloads: tuple[Workload, ...] = ()
    held: dict[NamespacedName, str] = {}
    """Services of which something is in use although it can no longer be read, and why."""
    left_out: dict[NamespacedName, Service] = {}
    """Refused Services, as in their manifests. Nothing of them is in use."""
    unselected: frozenset[NamespacedName] = frozenset()
    """Services that have slices in the input, so that their selectors are not used."""
    readiness: dict[NamespacedName, PodReadiness] | None = None
    """The readiness of the pods that this kproxy probes; None without a running kproxy."""
    followed: frozenset[str] = KINDS
    """The kinds that the source reads."""
    headless: bool = True
    """Whether it reads the endpoints of headless Services."""
    all_nodes: bool = True
    """Whether it reads all Nodes, not only the one on which it runs."""
    annotated: bool = True
    """Whether it keeps the annotations of objects."""


def manifest_inventory(state: ClusterState, in_use: InUse, node: Node) -> Inventory:
    """Return the inventory of manifests on `node`. `state` contains the readiness that probes found."""
    return Inventory(
        in_use.services,
        in_use.slices,
        tuple(with_host_addresses(state.pods, node)),
        state.ingresses,
        state.nodes,
        state.workloads,
        in_use.held,
        {name: service for name, service in state.services.items() if name not in in_use.services},
        frozenset(state.slices),
    )

"""All objects of a source at one moment, as `get`, `describe` and `env` show them.

The Services and slices are those from which the tables are made. The views do not select endpoints
or allocate addresses again: if a file is unreadable, the result would differ from what is programmed.
"""

from __future__ import annotations

from msgspec import Struct

from kproxy.controlplane.hold import InUse
from kproxy.controlplane.slices import with_host_addresses
from kproxy.gatewayapi import NO_OBJECTS, GatewayObjects
from kproxy.model import (
    WORKLOADS,
    ClusterNode,
    ClusterState,
    EndedPod,
    EndpointSlice,
    Ingress,
    NamespacedName,
    Node,
    Pod,
    Service,
    Workload,
    is_gateway,
)
from kproxy.probes.core.readiness import PodReadiness

KINDS = frozenset(
    {
        *("Service", "Endpoints", "EndpointSlice", "Pod", "Node", "Ingress", *WORKLOADS),
        *("GatewayClass", "Gateway", "HTTPRoute", "TCPRoute", "UDPRoute", "ReferenceGrant"),
    }
)


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
    gateways: GatewayObjects = NO_OBJECTS
    """The objects of the Gateway API."""
    gateway_services: dict[NamespacedName, Service] = {}
    """What Gateways serve in the tables, by `gateway_owner`."""
    gateway_slices: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
    annotated: bool = True
    """Whether it keeps the annotations of objects."""
    ended_pods: tuple[EndedPod, ...] = ()

    @property
    def owners(self) -> dict[NamespacedName, Service]:
        """What owns frontends: the Services, and those of Gateways."""
        return self.services | self.gateway_services

    @property
    def owned_slices(self) -> dict[NamespacedName, tuple[EndpointSlice, ...]]:
        """The slices by owner."""
        return self.slices | self.gateway_slices


def manifest_inventory(
    state: ClusterState, in_use: InUse, node: Node, gateways: GatewayObjects = NO_OBJECTS
) -> Inventory:
    """Return the inventory of manifests on `node`. `state` contains the readiness that probes found."""
    return Inventory(
        {name: service for name, service in in_use.services.items() if not is_gateway(name)},
        {name: slices for name, slices in in_use.slices.items() if not is_gateway(name)},
        tuple(with_host_addresses(state.pods, node)),
        state.ingresses,
        state.nodes,
        state.workloads,
        in_use.held,
        {name: service for name, service in state.services.items() if name not in in_use.services},
        frozenset(state.slices),
        gateways=gateways,
        gateway_services={n: service for n, service in in_use.services.items() if is_gateway(n)},
        gateway_slices={n: slices for n, slices in in_use.slices.items() if is_gateway(n)},
        ended_pods=state.ended_pods,
    )

"""Selectors -> EndpointSlices, as the endpoint slice controller makes them.

A service with a selector gets slices from the pods of its namespace whose labels
match, unless slices or Endpoints for it were given: what is given wins. Pods whose
ports resolve to other numbers go to other slices, as in Kubernetes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from kproxy.decode.endpointslices import HEADLESS_LABEL
from kproxy.model import (
    ClusterNode,
    ClusterState,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Node,
    Pod,
    Service,
    family_of,
)

PREFER_ZONE = ("PreferSameZone", "PreferClose")


class PodIndex:
    """Pods by namespace and label, so that a selector costs as much as it matches."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._by_label: dict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        for pod in pods:
            for key, value in pod.labels.items():
                self._by_label[pod.name.namespace, key, value].append(pod)

    def select(self, namespace: str, selector: dict[str, str]) -> list[Pod]:
        """The pods that carry every label of `selector`, which is not empty."""
        candidates = min(
            (self._by_label.get((namespace, key, value), []) for key, value in selector.items()), key=len
        )
        return [pod for pod in candidates if selector.items() <= pod.labels.items()]


def selects(service: Service) -> bool:
    """Whether its selector counts, where no endpoints are given."""
    return bool(service.selector) and service.type != "ExternalName"


def resolve_ports(service: Service, pod: Pod) -> tuple[EndpointPort, ...]:
    """The service's ports as this pod has them; a port name that the pod lacks is left out."""
    resolved = []
    for port in service.ports:
        target = port.target_port
        if isinstance(target, str):
            named = [p.port for p in pod.ports if p.name == target and p.protocol is port.protocol]
            target = named[0] if named else 0
        if target:
            resolved.append(EndpointPort(port.name, port.protocol, target))
    return tuple(resolved)


def _endpoint(service: Service, pod: Pod, address: bytes, nodes: Mapping[str, ClusterNode]) -> Endpoint:
    zone = nodes[pod.node].zone if pod.node in nodes else ""
    same_node, same_zone = service.distribution == "PreferSameNode", service.distribution in PREFER_ZONE
    return Endpoint(
        address,
        ready=service.publish_not_ready or (pod.ready and not pod.terminating),
        serving=pod.ready,
        terminating=pod.terminating,
        node=pod.node,
        pod=pod.name.name,
        for_nodes=(pod.node,) if same_node and pod.node else (),
        for_zones=(zone,) if (same_node or same_zone) and zone else (),
    )


def make_slices(
    service: Service, pods: Iterable[Pod], nodes: Mapping[str, ClusterNode]
) -> tuple[EndpointSlice, ...]:
    """One slice per family and distinct port list, its endpoints in order of pod names.

    spec.trafficDistribution becomes hints: for the pod's own node, for its zone.
    """
    groups: dict[tuple[Family, tuple[EndpointPort, ...]], list[Endpoint]] = defaultdict(list)
    for pod in sorted(pods, key=lambda pod: pod.name):
        ports = resolve_ports(service, pod)
        for address in pod.addresses:
            groups[family_of(address), ports].append(_endpoint(service, pod, address, nodes))
    return tuple(
        EndpointSlice(
            service=service.name,
            origin=service.origin,
            name=f"{service.name.name}-{index}",
            family=family,
            ports=ports,
            endpoints=tuple(endpoints),
            headless=service.headless,
            labels=service.labels | ({HEADLESS_LABEL: ""} if service.headless else {}),
        )
        for index, ((family, ports), endpoints) in enumerate(sorted(groups.items()))
    )


def addressed(pods: Iterable[Pod], node: Node) -> list[Pod]:
    """The pods; those of this node's own network that have no address get this node's.

    A kubelet would have written it into their status. One that names no node runs here.
    """
    return [
        replace(pod, addresses=node.addresses, node=node.name)
        if pod.host_network and not pod.addresses and pod.node in ("", node.name)
        else pod
        for pod in pods
    ]


def pod_index(state: ClusterState, node: Node) -> PodIndex:
    """The pods of all namespaces, as `node` sees them."""
    return PodIndex(addressed(state.pods, node))


def of_its_families(service: Service, made: tuple[EndpointSlice, ...]) -> tuple[EndpointSlice, ...]:
    """Without those that a cluster would not make; no families are allocated to a headless service."""
    families = service.families
    if not families and service.family_policy in ("", "SingleStack"):
        families = tuple(slice_.family for slice_ in made[:1])
    if not families or all(slice_.family in families for slice_ in made):
        return made
    return tuple(slice_ for slice_ in made if slice_.family in families)


def all_slices(state: ClusterState, pods: PodIndex) -> dict[NamespacedName, tuple[EndpointSlice, ...]]:
    """The slices of every service: those given, else those that its selector makes."""
    slices = dict(state.slices)
    if not state.pods:
        return slices
    for service in state.services.values():
        if selects(service) and service.name not in slices:
            slices[service.name] = make_slices(
                service, pods.select(service.name.namespace, service.selector), state.nodes
            )
    return slices

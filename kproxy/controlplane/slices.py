"""Selectors -> EndpointSlices, as the EndpointSlice controller makes them.

A Service with a selector gets slices from the matching pods of its namespace, unless the
input contains EndpointSlices or Endpoints for it. As in Kubernetes, pods whose ports
resolve to different numbers are in different slices.
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
    Selector,
    Service,
    family_of,
)

PREFER_ZONE = ("PreferSameZone", "PreferClose")


class PodIndex:
    """Pods by namespace and label. The cost of a selector depends on the pods that it matches only."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._by_label: dict[tuple[str, str, str], dict[NamespacedName, Pod]] = defaultdict(dict)
        self._by_namespace: dict[str, dict[NamespacedName, Pod]] = defaultdict(dict)
        for pod in pods:
            self.add(pod)

    def add(self, pod: Pod) -> None:
        """Add a pod. No other one has its name."""
        self._by_namespace[pod.name.namespace][pod.name] = pod
        for label in pod.labels.items():
            self._by_label[pod.name.namespace, *label][pod.name] = pod

    def remove(self, pod: Pod) -> None:
        """Remove a pod that was added."""
        del self._by_namespace[pod.name.namespace][pod.name]
        for label in pod.labels.items():
            pods = self._by_label[pod.name.namespace, *label]
            del pods[pod.name]
            if not pods:
                del self._by_label[pod.name.namespace, *label]

    def select(self, namespace: str, selector: dict[str, str]) -> list[Pod]:
        """Return the pods that have every label of `selector`, which is not empty."""
        candidates = min((self._by_label.get((namespace, *label), {}) for label in selector.items()), key=len)
        return [pod for pod in candidates.values() if selector.items() <= pod.labels.items()]

    def matching(self, namespace: str, selector: Selector) -> list[Pod]:
        """Return the pods that match `selector`; none if it has no requirements."""
        if not selector.requirements:
            return []
        labels = selector.equalities
        found = self.select(namespace, labels) if labels else self._by_namespace.get(namespace, {}).values()
        return [pod for pod in found if selector.matches(pod.labels)]


class SelectorIndex:
    """Services by their selectors. The cost of a question depends on the sets of keys that selectors have."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._by_keys: dict[str, dict[tuple[str, ...], dict[tuple[str, ...], set[NamespacedName]]]] = {}
        for service in services:
            self.add(service)

    def add(self, service: Service) -> None:
        """Add a Service. One without a selector selects nothing."""
        if service.selector:
            keys, values = _sorted_labels(service.selector)
            by_values = self._by_keys.setdefault(service.name.namespace, {}).setdefault(keys, {})
            by_values.setdefault(values, set()).add(service.name)

    def remove(self, service: Service) -> None:
        """Remove a Service that was added."""
        if service.selector:
            keys, values = _sorted_labels(service.selector)
            by_values = self._by_keys[service.name.namespace][keys]
            by_values[values].remove(service.name)
            if not by_values[values]:
                del by_values[values]
            if not by_values:
                del self._by_keys[service.name.namespace][keys]

    def selecting(self, namespace: str, labels: Mapping[str, str]) -> set[NamespacedName]:
        """Return the Services of a namespace whose selectors match `labels`."""
        found = set[NamespacedName]()
        for keys, by_values in self._by_keys.get(namespace, {}).items():
            values = tuple(labels[key] for key in keys if key in labels)
            found |= by_values.get(values, frozenset())
        return found


def _sorted_labels(labels: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    keys = tuple(sorted(labels))
    return keys, tuple(labels[key] for key in keys)


def selects(service: Service) -> bool:
    """Whether a Service without slices gets them from its selector."""
    return bool(service.selector) and service.type != "ExternalName"


def resolve_ports(service: Service, pod: Pod) -> tuple[EndpointPort, ...]:
    """Return the Service's ports with this pod's numbers. Named target ports that it lacks are omitted."""
    pod_ports = reversed(pod.ports) if _names_targets(service) else ()
    named = {(port.name, port.protocol): port.port for port in pod_ports}
    resolved = []
    for port in service.ports:
        target = port.target_port
        if isinstance(target, str):
            target = named.get((target, port.protocol), 0)
        if target:
            resolved.append(EndpointPort(port.name, port.protocol, target))
    return tuple(resolved)


def _names_targets(service: Service) -> bool:
    return any(isinstance(port.target_port, str) for port in service.ports)


def pods_without_ports(service: Service, pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """Return the pods that lack the named target port of a port of the Service, by the name of that port."""
    names = {port.name: None for port in service.ports}
    without: dict[str, list[Pod]] = {}
    for pod in pods if _names_targets(service) else ():
        for name in names.keys() - {port.name for port in resolve_ports(service, pod)}:
            without.setdefault(name, []).append(pod)
    return without


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
        hostname=pod.hostname if pod.subdomain == service.name.name else "",
    )


def make_slices(
    service: Service, pods: Iterable[Pod], nodes: Mapping[str, ClusterNode]
) -> tuple[EndpointSlice, ...]:
    """Return one slice per family and distinct port list, with endpoints in order of pod names.

    spec.trafficDistribution becomes hints for the pod's node and zone.
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


def with_host_addresses(pods: Iterable[Pod], node: Node) -> list[Pod]:
    """Return the pods. Host-network pods of this node without addresses get those of the node.

    A kubelet would write them to their status. A host-network pod without nodeName runs on this node.
    """
    return [
        replace(pod, addresses=node.addresses, node=node.name)
        if pod.host_network and not pod.addresses and pod.node in ("", node.name)
        else pod
        for pod in pods
    ]


def of_service_families(service: Service, made: tuple[EndpointSlice, ...]) -> tuple[EndpointSlice, ...]:
    """Return the slices of the Service's families, as a cluster makes them.

    A headless Service has no allocated families. If it is single-stack, its first slice decides.
    """
    families = service.families
    if not families and service.family_policy in ("", "SingleStack"):
        families = tuple(slice_.family for slice_ in made[:1])
    if not families or all(slice_.family in families for slice_ in made):
        return made
    return tuple(slice_ for slice_ in made if slice_.family in families)


def selected_slices(
    service: Service, allocated: Service, state: ClusterState, pods: PodIndex
) -> tuple[EndpointSlice, ...] | None:
    """Return the slices that the selector of a Service makes; None if it makes none.

    `allocated` is the Service with its families.
    """
    if not state.pods or not selects(service) or service.name in state.slices:
        return None
    selected = pods.select(service.name.namespace, service.selector)
    return of_service_families(allocated, make_slices(service, selected, state.nodes))

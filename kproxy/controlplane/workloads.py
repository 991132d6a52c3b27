"""Workloads whose pods are missing: a cluster would start them, but kproxy does not. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kproxy.controlplane.slices import PodIndex
from kproxy.model import ClusterState, Service, Workload
from kproxy.problems import enumeration

LONGEST = 100
"""The maximum length of a label in a sentence. Invalid ones may be longer."""
NEEDED = (
    "would make pods, but kproxy starts none: for each pod that runs, add a Pod with its labels and its "
    "address (status.podIP), or an EndpointSlice"
)


def missing_pods(state: ClusterState, pods: PodIndex) -> str:
    """Return a sentence that names the workloads, and what is needed for their pods; "" if there are none."""
    found = [_described(workload) for workload in _without_endpoints(state, pods)]
    if not found:
        return ""
    return f"{enumeration(found)} {NEEDED}"


def _without_endpoints(state: ClusterState, pods: PodIndex) -> Iterator[Workload]:
    """Yield the workloads of which the input has neither a pod nor explicit endpoints."""
    services: dict[str, list[Service]] = defaultdict(list)
    for service in state.services.values() if state.workloads else ():
        services[service.name.namespace].append(service)
    for workload in state.workloads:
        namespace, labels = workload.name.namespace, dict(workload.labels)
        if labels and pods.select(namespace, labels):
            continue
        selecting = (each for each in services[namespace] if each.selector)
        own = [each.name for each in selecting if each.selector.items() <= labels.items()]
        if not own or any(name not in state.slices for name in own):
            yield workload


def _described(workload: Workload) -> str:
    """Return for example `Deployment default/web (3 pods, app=web)`."""
    number = workload.replicas
    pods = "a pod on each node" if number is None else "1 pod" if number == 1 else f"{number} pods"
    labels = enumeration([_short(f"{key}={value}") for key, value in sorted(workload.labels.items())])
    return f"{workload.kind} {workload.name} ({pods}, {labels or 'no labels'})"


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else f"{label[:LONGEST]}..."

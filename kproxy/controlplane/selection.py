"""Warnings about Services that do not match their pods or endpoints.

They are not errors: a Service may exist before its pods, and kproxy serves it with the endpoints
that it has. But a misspelled selector or port name looks the same. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from kproxy.controlplane.slices import PodIndex, pods_without_ports, selects
from kproxy.model import ClusterState, EndpointSlice, NamespacedName, Pod, Service
from kproxy.problems import Problem, enumeration

NAMED = 3
"""The maximum number of pods that a message names."""


def mismatches(
    service: Service, state: ClusterState, pods: PodIndex, awaited: Collection[NamespacedName]
) -> list[Problem]:
    """Compare a Service with its slices, or else with its pods.

    If a workload in the input wants its pods, so that it is `awaited`, only that is reported, and not here.
    """
    name, found = service.name, list[tuple[str, str]]()
    if name in state.slices:
        found += _slice_mismatches(service, state.slices[name])
    elif selects(service):
        selected = pods.select(name.namespace, service.selector)
        found += _pod_mismatches(service, selected) if selected or name not in awaited else ()
    return [Problem(service.origin.source, f"Service {name}", field, message) for field, message in found]


def _slice_mismatches(service: Service, slices: Iterable[EndpointSlice]) -> Iterator[tuple[str, str]]:
    """Yield ports of the Service that no slice has. They match by name; the name may be empty."""
    named = {port.name for slice_ in slices if slice_.endpoints for port in slice_.ports}
    if not named or service.headless or service.type == "ExternalName":
        return
    existing = enumeration([name or "an unnamed port" for name in sorted(named)])
    for index, port in enumerate(service.ports):
        if port.name not in named:
            what = f"no port named {port.name}" if port.name else "no unnamed port"
            yield f"spec.ports[{index}].name", f"its endpoints have {what}, only {existing}"


def _pod_mismatches(service: Service, pods: Sequence[Pod]) -> Iterator[tuple[str, str]]:
    if not pods:
        labels = ",".join(f"{key}={value}" for key, value in sorted(service.selector.items()))
        yield "spec.selector", f"no pod in namespace {service.name.namespace} has the labels {labels}"
    lacking = pods_without_ports(service, pods)
    for index, port in enumerate(service.ports):
        if without := lacking.get(port.name):
            message = f"no container port {port.target_port}/{port.protocol} in {_names(without)}"
            yield f"spec.ports[{index}].targetPort", message
    if without := [pod for pod in pods if not pod.addresses]:
        yield "spec.selector", f"no address (status.podIPs) in {_names(without)}"


def _names(pods: Iterable[Pod]) -> str:
    names = sorted(pod.name.name for pod in pods)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Pod {', '.join(names[:NAMED])}{more}"

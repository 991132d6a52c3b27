"""Why a service has fewer endpoints than its author thinks: where it and the pods do not agree.

None of this is an error. A service may well be there before its pods, and it is served with the
endpoints that it has; but a selector or a port with a wrong letter looks just the same. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kproxy.controlplane.slices import PodIndex, resolve_ports, selects
from kproxy.model import ClusterState, EndpointSlice, Pod, Service
from kproxy.problems import Problem

NAMED = 3
"""Pods that a sentence names."""


def disagreements(state: ClusterState, pods: PodIndex) -> list[Problem]:
    """Of all services, in order of their names: with the endpoints that are given, else with their pods."""
    found = []
    for name, service in sorted(state.services.items()):
        if name in state.slices:
            sentences = _with_slices(service, state.slices[name])
        elif selects(service):
            sentences = _with_pods(service, pods.select(name.namespace, service.selector))
        else:
            continue
        origin = service.origin.source
        found += [Problem(origin, f"Service {name}", field, message) for field, message in sentences]
    return found


def _with_slices(service: Service, slices: Iterable[EndpointSlice]) -> Iterator[tuple[str, str]]:
    """Ports go by their names; a port that has none goes by that."""
    named = {port.name for slice_ in slices if slice_.endpoints for port in slice_.ports}
    if not named or service.headless or service.type == "ExternalName":
        return
    for index, port in enumerate(service.ports):
        if port.name not in named:
            theirs = ", ".join(name or "one without a name" for name in sorted(named))
            what = f"called {port.name}" if port.name else "without a name"
            yield f"spec.ports[{index}].name", f"its endpoints have no port {what}, but {theirs}"


def _with_pods(service: Service, pods: Sequence[Pod]) -> Iterator[tuple[str, str]]:
    if not pods:
        wanted = ",".join(f"{key}={value}" for key, value in sorted(service.selector.items()))
        yield "spec.selector", f"no pod of namespace {service.name.namespace} has the labels {wanted}"
    for index, port in enumerate(service.ports):
        if isinstance(port.target_port, int):
            continue  # is there, whatever the pod says
        if lacking := [pod for pod in pods if not _has(service, pod, port.name)]:
            message = f"there is no container port {port.target_port}/{port.protocol} in {_names(lacking)}"
            yield f"spec.ports[{index}].targetPort", message
    if addressless := [pod for pod in pods if not pod.addresses]:
        yield "spec.selector", f"there is no address (status.podIPs) in {_names(addressless)}"


def _has(service: Service, pod: Pod, name: str) -> bool:
    return any(port.name == name for port in resolve_ports(service, pod))


def _names(pods: Iterable[Pod]) -> str:
    names = sorted(pod.name.name for pod in pods)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Pod {', '.join(names[:NAMED])}{more}"

"""Fields of a Service that have no effect for its type, in the words in which kubectl refuses them.

An API server refuses such an object. kproxy serves it as the type says, with a warning: the field may be left
from an earlier type, or the type may be missing.

And EndpointSlices that belong to no Service: an API server accepts them, but in manifests it is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kproxy.decode import wire
from kproxy.decode.endpointslices import SERVICE_NAME_LABEL

ONLY_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"


def misplaced_fields(obj: Any) -> Iterator[tuple[str, str]]:
    """Yield path and message of each field that has no effect, or without which the object has none."""
    if isinstance(obj, wire.Service):
        yield from _of_type(obj.spec, obj.spec.type or "ClusterIP")
    elif isinstance(obj, wire.EndpointSlice) and not (obj.metadata.labels or {}).get(SERVICE_NAME_LABEL):
        yield "metadata.labels", f"no {SERVICE_NAME_LABEL}: the slice belongs to no Service"


def _of_type(spec: wire.ServiceSpec, kind: str) -> Iterator[tuple[str, str]]:
    if kind in ("ClusterIP", "ExternalName"):
        for index, port in enumerate(spec.ports or ()):
            if port.node_port:
                yield f"spec.ports[{index}].nodePort", f"may not be used when `type` is '{kind}'"
    if kind == "ExternalName" and not spec.external_name:
        yield "spec.externalName", "Required value"
    if spec.external_traffic_policy and not _is_externally_accessible(spec, kind):
        yield "spec.externalTrafficPolicy", "may only be set for externally-accessible services"
    if kind != "LoadBalancer":
        yield from _of_load_balancers(spec)
    if spec.health_check_node_port and (kind, spec.external_traffic_policy) != ("LoadBalancer", "Local"):
        rule = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield "spec.healthCheckNodePort", rule
    if spec.session_affinity_config is not None and spec.session_affinity != "ClientIP":
        yield "spec.sessionAffinityConfig", "must not be set when session affinity is None"


def _of_load_balancers(spec: wire.ServiceSpec) -> Iterator[tuple[str, str]]:
    for field, value in (
        ("allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports is not None),
        ("loadBalancerClass", spec.load_balancer_class),
        ("loadBalancerIP", spec.load_balancer_ip),
        ("loadBalancerSourceRanges", spec.load_balancer_source_ranges),
    ):
        if value:
            yield f"spec.{field}", ONLY_LOAD_BALANCER


def _is_externally_accessible(spec: wire.ServiceSpec, kind: str) -> bool:
    return kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.external_ips))

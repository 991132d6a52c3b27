"""Makes manifests of objects: the fields that kproxy reads, including allocations.

kproxy reads the same objects from them. Pure: the functions return plain values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kproxy.decode.endpointslices import SERVICE_NAME_LABEL
from kproxy.decode.ingress import CLASS_ANNOTATION
from kproxy.decode.service import CONSISTENT_HASH, WEIGHTS
from kproxy.model import (
    Annotations,
    ClusterNode,
    Container,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    Ingress,
    IngressBackend,
    IngressRule,
    NamespacedName,
    Pod,
    Probe,
    Service,
    ServicePort,
    TCPSocketAction,
    format_address,
)
from kproxy.show.tables import FAMILY_NAMES, UNFOLLOWED, EndpointsView, balancer

UNFOLLOWED_ANNOTATION = "kproxy.io/endpoints"


def service_manifest(service: Service) -> dict[str, Any]:
    """Return a v1 Service: the fields that kproxy reads, with defaults and allocations filled in."""
    spec: dict[str, Any] = {"type": service.type}
    texts = ["None"] if service.headless else [format_address(ip) for ip in service.cluster_ips]
    if texts:
        spec |= {"clusterIP": texts[0], "clusterIPs": texts}
    if service.type == "ExternalName":
        spec["externalName"] = service.external_name
    else:
        spec |= _traffic(service)
    spec["ports"] = [_port_manifest(port) for port in service.ports]
    spec["selector"] = dict(sorted(service.selector.items()))
    status = {"loadBalancer": {"ingress": [_ingress_entry(service, text) for text in balancer(service)]}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_of(
            service.name,
            service.origin.created,
            service.labels,
            _annotations(service),
        ),
        "spec": without_empty(spec),
        **({"status": status} if balancer(service) else {}),
    }


def _annotations(service: Service) -> dict[str, str]:
    """Return the annotations of the manifest, and those that kproxy reads, also in a cluster."""
    annotations = annotations_of(service.annotations)
    if service.weights:
        text = ", ".join(f"{name}={weight}" for name, weight in service.weights.items())
        annotations.setdefault(WEIGHTS, text)
    if service.hashing is not None:
        annotations.setdefault(CONSISTENT_HASH, service.hashing.removeprefix("hash-"))
    return annotations


def annotations_of(text: Annotations) -> dict[str, str]:
    """Return the annotations of an object by key."""
    found: dict[str, str] = json.loads(text) if text else {}
    return found


def _traffic(service: Service) -> dict[str, Any]:
    external = service.type in ("NodePort", "LoadBalancer") or service.external_local
    spec: dict[str, Any] = {
        "ipFamilies": [FAMILY_NAMES[family] for family in service.families],
        "ipFamilyPolicy": service.family_policy,
        "sessionAffinity": affinity(service),
        "internalTrafficPolicy": policy(service.internal_local),
        "externalTrafficPolicy": policy(service.external_local) if external else "",
        "externalIPs": [format_address(address) for address in service.external_ips],
        "loadBalancerIP": service.load_balancer_ip,
        "loadBalancerClass": service.load_balancer_class,
        "loadBalancerSourceRanges": [str(network) for network in service.source_ranges],
        "trafficDistribution": service.distribution,
    }
    if service.affinity_timeout is not None:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": service.affinity_timeout}}
    if service.publish_not_ready:
        spec["publishNotReadyAddresses"] = True
    if not service.allocate_node_ports:
        spec["allocateLoadBalancerNodePorts"] = False
    if service.health_check_node_port:
        spec["healthCheckNodePort"] = service.health_check_node_port
    return spec


def affinity(service: Service) -> str:
    """Return the value of spec.sessionAffinity."""
    return "None" if service.affinity_timeout is None else "ClientIP"


def policy(local: bool) -> str:
    """Return the value of a traffic policy."""
    return "Local" if local else "Cluster"


def _ingress_entry(service: Service, text: str) -> dict[str, str]:
    served = text in map(format_address, service.load_balancer_ips)
    if served:
        return {"ip": text, "ipMode": "VIP"}
    entry = _ingress_address(text)
    return entry | ({"ipMode": "Proxy"} if "ip" in entry else {})


def _ingress_address(text: str) -> dict[str, str]:
    is_address = ":" in text or text.replace(".", "").isdigit()
    return {"ip" if is_address else "hostname": text}


def metadata_of(
    name: NamespacedName, created: str, labels: dict[str, str], annotations: dict[str, str], **rest: Any
) -> dict[str, Any]:
    """Return the metadata of an object: these fields and `rest`, without empty ones."""
    fields = {
        "namespace": name.namespace,
        "creationTimestamp": created,
        "labels": dict(sorted(labels.items())),
        "annotations": dict(sorted(annotations.items())),
        **rest,
    }
    return {"name": name.name, **without_empty(fields)}


def without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not empty. False and 0 are not empty."""
    return {key: value for key, value in fields.items() if value not in ("", [], {}, None)}


def _port_manifest(port: ServicePort) -> dict[str, Any]:
    return {
        **({"name": port.name} if port.name else {}),
        "port": port.port,
        "protocol": port.protocol.upper(),
        "targetPort": port.target_port,
        **({"nodePort": port.node_port} if port.node_port else {}),
    }


def slice_labels(slice_: EndpointSlice) -> dict[str, str]:
    """Return the labels of a slice, including the one that names its service."""
    return slice_.labels | {SERVICE_NAME_LABEL: slice_.service.name}


def slice_manifest(slice_: EndpointSlice) -> dict[str, Any]:
    """Return a discovery.k8s.io/v1 EndpointSlice."""
    name = NamespacedName(slice_.service.namespace, slice_.name)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata_of(
            name, slice_.origin.created, slice_labels(slice_), annotations_of(slice_.annotations)
        ),
        "addressType": FAMILY_NAMES[slice_.family],
        "ports": _endpoint_ports(slice_.ports),
        "endpoints": [_endpoint_manifest(endpoint, name.namespace) for endpoint in slice_.endpoints],
    }


def _endpoint_manifest(endpoint: Endpoint, namespace: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "addresses": [format_address(endpoint.address)],
        "conditions": {
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
        },
    }
    made |= _target(endpoint, namespace)
    hints = {"forNodes": endpoint.for_nodes, "forZones": endpoint.for_zones}
    if any(hints.values()):
        made["hints"] = {key: [{"name": name} for name in names] for key, names in hints.items() if names}
    return made


def _target(endpoint: Endpoint, namespace: str) -> dict[str, Any]:
    reference = {"kind": "Pod", "name": endpoint.pod, "namespace": namespace} if endpoint.pod else {}
    named = {"hostname": endpoint.hostname, "nodeName": endpoint.node, "targetRef": reference}
    return without_empty(named)


def _endpoint_ports(ports: Iterable[EndpointPort]) -> list[dict[str, Any]]:
    return [{"name": port.name, "port": port.port, "protocol": port.protocol.upper()} for port in ports]


def endpoints_manifest(view: EndpointsView) -> dict[str, Any]:
    """Return a v1 Endpoints. An annotation says if kproxy does not follow the endpoints."""
    unfollowed = {} if view.followed or view.slices else {UNFOLLOWED_ANNOTATION: UNFOLLOWED}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata_of(
            view.name, view.created, view.labels, annotations_of(view.annotations) | unfollowed
        ),
        "subsets": [_subset(slice_) for slice_ in view.slices if slice_.endpoints],
    }


def _subset(slice_: EndpointSlice) -> dict[str, Any]:
    by_readiness = {
        ready: [
            {"ip": format_address(endpoint.address), **_target(endpoint, slice_.service.namespace)}
            for endpoint in slice_.endpoints
            if endpoint.ready is ready
        ]
        for ready in (True, False)
    }
    return without_empty(
        {
            "addresses": by_readiness[True],
            "notReadyAddresses": by_readiness[False],
            "ports": _endpoint_ports(slice_.ports),
        }
    )


def pod_manifest(pod: Pod) -> dict[str, Any]:
    """Return a v1 Pod: the fields that matter for services and probes, with kproxy's readiness."""
    addresses = [format_address(address) for address in pod.addresses]
    spec = {
        **without_empty({"hostname": pod.hostname, "subdomain": pod.subdomain}),
        "nodeName": pod.node,
        "containers": [container_manifest(container) for container in pod.containers],
        **({"hostNetwork": True} if pod.host_network else {}),
        **({} if pod.service_links else {"enableServiceLinks": False}),
    }
    status = {
        "phase": pod.phase,
        "conditions": [{"type": "Ready", "status": str(pod.ready)}],
        "podIP": addresses[0] if addresses else "",
        "podIPs": [{"ip": address} for address in addresses],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata_of(
            pod.name,
            pod.origin.created,
            pod.labels,
            annotations_of(pod.annotations),
            uid=pod.uid,
            deletionTimestamp=pod.deleted,
        ),
        "spec": without_empty(spec),
        "status": without_empty(status),
    }


def container_manifest(container: Container) -> dict[str, Any]:
    """Return a container of a Pod."""
    ports = [
        without_empty({"name": port.name, "containerPort": port.port, "protocol": port.protocol.upper()})
        for port in container.ports
    ]
    probe = {} if container.probe is None else _probe(container.probe)
    fields = {"name": container.name, "image": container.image, "ports": ports, "readinessProbe": probe}
    return without_empty(fields)


def _probe(probe: Probe) -> dict[str, Any]:
    return {
        **_action(probe),
        "initialDelaySeconds": probe.initial_delay,
        "periodSeconds": probe.period,
        "timeoutSeconds": probe.timeout,
        "successThreshold": probe.success_threshold,
        "failureThreshold": probe.failure_threshold,
    }


def _action(probe: Probe) -> dict[str, Any]:
    match probe.action:
        case ExecAction(command=command):
            return {"exec": {"command": list(command)}}
        case HTTPGetAction() as get:
            headers = [{"name": name, "value": value} for name, value in get.headers]
            port = get.port.name_or_number
            fields = {"path": get.path, "port": port, "host": get.host, "scheme": get.scheme}
            return {"httpGet": without_empty({**fields, "httpHeaders": headers})}
        case TCPSocketAction(port=port, host=host):
            return {"tcpSocket": without_empty({"port": port.name_or_number, "host": host})}
        case GRPCAction(port=number, service=service):
            return {"grpc": without_empty({"port": number, "service": service})}


def ingress_manifest(ingress: Ingress) -> dict[str, Any]:
    """Return a networking.k8s.io/v1 Ingress, also if the input has another version."""
    default = ingress.default_backend
    spec = {
        "ingressClassName": ingress.class_name,
        "defaultBackend": _backend(default) if default else {},
        "tls": [without_empty({"hosts": list(tls.hosts), "secretName": tls.secret}) for tls in ingress.tls],
        "rules": [_rule(rule) for rule in ingress.rules],
    }
    entries = [_ingress_address(text) for text in ingress.addresses]
    annotations = annotations_of(ingress.annotations)
    annotations.pop(CLASS_ANNOTATION, None)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata_of(ingress.name, ingress.origin.created, ingress.labels, annotations),
        "spec": without_empty(spec),
        **({"status": {"loadBalancer": {"ingress": entries}}} if entries else {}),
    }


def _rule(rule: IngressRule) -> dict[str, Any]:
    paths = [
        {**({"path": p.path} if p.path else {}), "pathType": p.path_type, "backend": _backend(p.backend)}
        for p in rule.paths
    ]
    return without_empty({"host": rule.host, "http": {"paths": paths} if paths else {}})


def _backend(backend: IngressBackend) -> dict[str, Any]:
    if backend.resource:
        kind, _, name = backend.resource.partition("/")
        return {"resource": without_empty({"apiGroup": backend.api_group, "kind": kind, "name": name})}
    key = "number" if isinstance(backend.port, int) else "name"
    return {"service": {"name": backend.service, "port": {key: backend.port}}}


def node_manifest(node: ClusterNode) -> dict[str, Any]:
    """Return a v1 Node: the fields that kproxy reads."""
    parts = {"spec": without_empty(_node_spec(node)), "status": without_empty(_node_status(node))}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata_of(
            NamespacedName("", node.name),
            node.origin.created,
            node.labels,
            annotations_of(node.annotations),
            deletionTimestamp=node.deleted,
        ),
        **without_empty(parts),
    }


def _node_spec(node: ClusterNode) -> dict[str, Any]:
    cidrs = [str(network) for network in node.pod_cidrs]
    return {
        "podCIDR": cidrs[0] if cidrs else "",
        "podCIDRs": cidrs,
        "taints": [without_empty(taint._asdict()) for taint in node.taints],
        **({"unschedulable": True} if node.unschedulable else {}),
    }


def _node_status(node: ClusterNode) -> dict[str, Any]:
    info = {
        "kubeletVersion": node.info.kubelet,
        "osImage": node.info.os_image,
        "kernelVersion": node.info.kernel,
        "containerRuntimeVersion": node.info.container_runtime,
    }
    return {
        "addresses": [{"type": kind, "address": address} for kind, address in node.addresses],
        "conditions": [{"type": "Ready", "status": node.ready}] if node.ready else [],
        "nodeInfo": without_empty(info),
    }

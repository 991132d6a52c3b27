"""The lab's pods and nodes as Kubernetes objects: v1 Pods that are running, and v1 Nodes."""

from collections.abc import Collection, Mapping
from typing import Any

from netns_lab.topology import Node, Pod, Topology

Object = dict[str, Any]


def pod_manifests(topology: Topology) -> list[Object]:
    """Return a v1 Pod for each pod of the topology, in the same order. Its namespace is ``default``, unless
    it was started for a manifest, which then determines its metadata and spec."""
    return [_manifest(topology, pod) for pod in topology.pods]


def as_list(manifests: list[Object]) -> Mapping[str, Any]:
    """Return a v1 List of objects."""
    return {"apiVersion": "v1", "kind": "List", "items": manifests}


def lab_objects(topology: Topology, terminating: Collection[str], now: str) -> list[Object]:
    """Return the Nodes, and the Pods whose own manifest has no address.

    Pods in ``terminating`` have the deletion timestamp ``now``. A pod with a readiness probe has no
    condition, because only the program that probes it knows whether it is ready.
    """
    shown = [pod for pod in topology.pods if not pod.manifest.get("complete")]
    objects = [_node_manifest(topology, node) for node in topology.nodes]
    for pod in shown:
        manifest = _manifest(topology, pod)
        if pod.name in terminating:
            manifest["metadata"]["deletionTimestamp"] = now
        if any(container.get("readinessProbe") for container in manifest["spec"]["containers"]):
            del manifest["status"]["conditions"]
        objects.append(manifest)
    return objects


def _manifest(topology: Topology, pod: Pod) -> Object:
    addresses = list(topology.addresses(pod).values())
    named = {"name": pod.name, "namespace": "default", "labels": dict(pod.labels)}
    spec = {"nodeName": pod.node, "hostNetwork": pod.host_network}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**named, **pod.manifest.get("metadata", {})},
        "spec": {**spec, "containers": _containers(pod), **pod.manifest.get("spec", {}), **spec},
        "status": {
            "phase": "Running",
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _containers(pod: Pod) -> list[Object]:
    ports = [
        {"name": port.name, "containerPort": port.number, "protocol": port.protocol.upper()}
        for port in pod.ports
    ]
    return [{"name": "main", "image": "netns-lab", "ports": ports}]


def _node_manifest(topology: Topology, node: Node) -> Object:
    """Return a Node. Its addresses are also external ones: the clients of the lab can reach them."""
    addresses = topology.addresses(node).values()
    kinds = ("InternalIP", "ExternalIP")
    cidrs = list(topology.pod_cidrs(node).values())
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {
            "addresses": [{"type": kind, "address": address} for kind in kinds for address in addresses],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }

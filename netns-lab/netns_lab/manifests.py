"""The lab's pods as Kubernetes objects: v1 Pods that are running and ready."""

from collections.abc import Mapping
from typing import Any

from netns_lab.topology import Pod, Topology


def pod_manifests(topology: Topology) -> list[dict[str, Any]]:
    """Return a v1 Pod in namespace ``default`` for each pod of the topology, in the same order."""
    return [_manifest(topology, pod) for pod in topology.pods]


def as_list(manifests: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Return a v1 List of objects."""
    return {"apiVersion": "v1", "kind": "List", "items": manifests}


def _manifest(topology: Topology, pod: Pod) -> dict[str, Any]:
    addresses = list(topology.addresses(pod).values())
    ports = [
        {"name": port.name, "containerPort": port.number, "protocol": port.protocol.upper()}
        for port in pod.ports
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": "default", "labels": dict(pod.labels)},
        "spec": {
            "nodeName": pod.node,
            "hostNetwork": pod.host_network,
            "containers": [{"name": "main", "image": "netns-lab", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }

"""Node v1 -> model."""

from __future__ import annotations

from ipaddress import ip_network

from kproxy.decode import wire
from kproxy.decode.fields import checked, object_name, origin
from kproxy.model import ClusterNode, NodeInfo, Taint

ZONE_LABEL = "topology.kubernetes.io/zone"


def node(source: str, given: wire.Node) -> list[ClusterNode]:
    """A Node v1: its zone, where its pods are, whether it is to stay, and what is shown of it."""
    spec, status = given.spec or wire.NodeSpec(), given.status or wire.NodeStatus()
    labels = given.metadata.labels or {}
    texts = [(f"spec.podCIDRs[{index}]", text) for index, text in enumerate(spec.pod_cidrs or [])]
    if spec.pod_cidr and not texts:
        texts = [("spec.podCIDR", spec.pod_cidr)]
    return [
        ClusterNode(
            object_name(given.metadata).name,
            labels.get(ZONE_LABEL, ""),
            tuple(checked(path, ip_network, text) for path, text in texts),
            origin(source, given.metadata),
            labels=labels,
            addresses=tuple((entry.type, entry.address) for entry in status.addresses or ()),
            ready=next((each.status for each in status.conditions or () if each.type == "Ready"), ""),
            unschedulable=spec.unschedulable is True,
            taints=tuple(map(_taint, spec.taints or ())),
            deleted=given.metadata.deletion_timestamp or "",
            info=_info(status.node_info or wire.NodeInfo()),
        )
    ]


def _taint(given: wire.Taint) -> Taint:
    return Taint(given.key or "", given.value or "", given.effect or "")


def _info(given: wire.NodeInfo) -> NodeInfo:
    return NodeInfo(
        given.kubelet_version or "",
        given.os_image or "",
        given.kernel_version or "",
        given.container_runtime_version or "",
    )

"""Node v1 -> model."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.decode import wire
from kproxy.decode.fields import Notes, network, object_name, origin, text_map, usable
from kproxy.model import ClusterNode, Network, NodeInfo, Taint

ZONE_LABEL = "topology.kubernetes.io/zone"


def node(source: str, obj: wire.Node, notes: Notes) -> list[ClusterNode]:
    """Decode a Node v1: the fields that kproxy uses, and those that `get nodes` shows."""
    spec, status = obj.spec or wire.NodeSpec(), obj.status or wire.NodeStatus()
    labels = text_map("metadata.labels", obj.metadata.labels, notes)
    return [
        ClusterNode(
            object_name(obj.metadata).name,
            labels.get(ZONE_LABEL, ""),
            tuple(_pod_cidrs(spec, notes)),
            origin(source, obj.metadata),
            labels=labels,
            addresses=tuple((entry.type, entry.address) for entry in status.addresses or ()),
            ready=next((each.status for each in status.conditions or () if each.type == "Ready"), ""),
            unschedulable=spec.unschedulable is True,
            taints=tuple(map(_taint, spec.taints or ())),
            deleted=obj.metadata.deletion_timestamp or "",
            info=_info(status.node_info or wire.NodeInfo()),
        )
    ]


def _pod_cidrs(spec: wire.NodeSpec, notes: Notes) -> Iterator[Network]:
    texts = [(f"spec.podCIDRs[{index}]", text) for index, text in enumerate(spec.pod_cidrs or [])]
    if spec.pod_cidr and not texts:
        texts = [("spec.podCIDR", spec.pod_cidr)]
    return usable(network, texts, notes)


def _taint(taint: wire.Taint) -> Taint:
    return Taint(taint.key or "", taint.value or "", taint.effect or "")


def _info(info: wire.NodeInfo) -> NodeInfo:
    return NodeInfo(
        info.kubelet_version or "",
        info.os_image or "",
        info.kernel_version or "",
        info.container_runtime_version or "",
    )

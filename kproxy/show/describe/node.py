"""Describes a Node as `kubectl describe node` does, with the fields that matter for Services. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.model import ClusterNode, NamespacedName
from kproxy.show.describe.context import Context, annotation_lines, heading, multiline, section
from kproxy.show.tables import NONE, UNKNOWN, roles, table


def describe_node(node: ClusterNode, context: Context) -> str:
    """Return the description."""
    conditions = [("Type", "Status"), ("----", "------"), ("Ready", node.ready)]
    cidrs = [str(network) for network in node.pod_cidrs]
    return (
        table(_identity(node, context), gap=2)
        + section("Conditions", table(conditions if node.ready else [], gap=2))
        + section("Addresses", table(((f"{kind}:", address) for kind, address in node.addresses), gap=2))
        + section("System Info", table(_system(node), gap=2))
        + table([("PodCIDR:", cidrs[0] if cidrs else NONE), ("PodCIDRs:", ",".join(cidrs) or NONE)], gap=2)
        + section("Problems", context.problems("Node", NamespacedName("default", node.name)))
    )


def _identity(node: ClusterNode, context: Context) -> Iterator[tuple[str, str]]:
    name, *labels = heading(NamespacedName("", node.name), node.labels)
    yield name
    yield "Roles:", roles(node)
    yield from labels
    yield from annotation_lines(node.annotations, context)
    yield "CreationTimestamp:", node.origin.created or UNKNOWN
    yield from multiline("Taints:", map(str, node.taints))
    yield "Unschedulable:", str(node.unschedulable).lower()


def _system(node: ClusterNode) -> Iterator[tuple[str, str]]:
    yield "Kernel Version:", node.info.kernel or UNKNOWN
    yield "OS Image:", node.info.os_image or UNKNOWN
    yield "Container Runtime Version:", node.info.container_runtime or UNKNOWN
    yield "Kubelet Version:", node.info.kubelet or UNKNOWN

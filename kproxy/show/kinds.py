"""The kinds of objects, with kubectl's names: plural, singular, short names and categories. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from kproxy.gatewayapi import GROUP
from kproxy.model import WORKLOADS, NamespacedName
from kproxy.problems import CommandLineError, did_you_mean
from kproxy.show import components, gateways, manifests, tables
from kproxy.show.tables import Age, Objects
from kproxy.show.workloads import rows_of, workload_manifest


class Kind(NamedTuple):
    """A kind of object, and the functions that show it."""

    aliases: tuple[str, ...]
    singular: str
    """The name in `-o name`."""
    kind: str
    """The name in manifests and in a Problem."""
    select: Callable[[Objects], Sequence[Any]]
    rows: Callable[[Iterable[Any], Age, bool], list[list[str]]]
    manifest: Callable[[Any], dict[str, Any]]
    name: Callable[[Any], NamespacedName] = attrgetter("name")
    labels: Callable[[Any], dict[str, str]] = attrgetter("labels")
    namespaced: bool = True


def _workload(kind: str, short: str) -> Kind:
    group = ".apps" if WORKLOADS[kind][0] else ""
    return Kind(
        (short,),
        f"{kind.lower()}{group}",
        kind,
        lambda objects: [view for view in objects.workloads if view.workload.kind == kind],
        rows_of(kind),
        workload_manifest,
        name=attrgetter("workload.name"),
        labels=attrgetter("workload.labels"),
    )


WORKLOAD_KINDS = {
    "replicationcontrollers": _workload("ReplicationController", "rc"),
    "daemonsets": _workload("DaemonSet", "ds"),
    "deployments": _workload("Deployment", "deploy"),
    "replicasets": _workload("ReplicaSet", "rs"),
    "statefulsets": _workload("StatefulSet", "sts"),
}


def _gateway_kind(
    short: tuple[str, ...],
    kind: str,
    rows: Callable[[Iterable[Any], Age, bool], list[list[str]]],
    namespaced: bool = True,
) -> Kind:
    """Return a kind of the Gateway API."""
    singular = f"{kind.lower()}.{GROUP}"
    aliases = (kind.lower(), *short)
    select, manifest = gateways.shown(kind), gateways.gateway_manifest
    return Kind(aliases, singular, kind, select, rows, manifest, namespaced=namespaced)


KINDS = {
    "services": Kind(
        ("svc",),
        "service",
        "Service",
        attrgetter("services"),
        tables.service_rows,
        manifests.service_manifest,
    ),
    "endpoints": Kind(
        ("ep",),
        "endpoints",
        "Endpoints",
        attrgetter("endpoints"),
        tables.endpoints_rows,
        manifests.endpoints_manifest,
    ),
    "pods": Kind(("po",), "pod", "Pod", attrgetter("pods"), tables.pod_rows, manifests.pod_manifest),
    "endpointslices": Kind(
        ("endpointslice",),
        "endpointslice.discovery.k8s.io",
        "EndpointSlice",
        attrgetter("slices"),
        tables.slice_rows,
        manifests.slice_manifest,
        name=lambda slice_: NamespacedName(slice_.service.namespace, slice_.name),
        labels=manifests.slice_labels,
    ),
    "ingresses": Kind(
        ("ingress", "ing"),
        "ingress.networking.k8s.io",
        "Ingress",
        attrgetter("ingresses"),
        tables.ingress_rows,
        manifests.ingress_manifest,
    ),
    "nodes": Kind(
        ("no",),
        "node",
        "Node",
        attrgetter("nodes"),
        tables.node_rows,
        manifests.node_manifest,
        name=lambda node: NamespacedName("", node.name),
        namespaced=False,
    ),
    "componentstatuses": Kind(
        ("componentstatus", "cs"),
        "componentstatus",
        components.KIND,
        attrgetter("components"),
        components.component_rows,
        components.component_manifest,
        name=components.component_name,
        labels=lambda _: {},
        namespaced=False,
    ),
    **WORKLOAD_KINDS,
    "gatewayclasses": _gateway_kind(("gc",), "GatewayClass", gateways.class_rows, namespaced=False),
    "gateways": _gateway_kind(("gtw",), "Gateway", gateways.gateway_rows),
    "httproutes": _gateway_kind((), "HTTPRoute", gateways.http_route_rows),
    "tcproutes": _gateway_kind((), "TCPRoute", gateways.plain_rows),
    "udproutes": _gateway_kind((), "UDPRoute", gateways.plain_rows),
    "referencegrants": _gateway_kind(("refgrant",), "ReferenceGrant", gateways.plain_rows),
}
CATEGORIES = {
    "all": (
        "pods",
        "replicationcontrollers",
        "services",
        "daemonsets",
        "deployments",
        "replicasets",
        "statefulsets",
    ),
    "gateway-api": ("gatewayclasses", "gateways", "httproutes", "tcproutes", "udproutes", "referencegrants"),
}
"""Names for several kinds, in kubectl's order. As there, `all` has no endpoints, ingresses and nodes."""


def plurals_of(word: str, kinds: Collection[str]) -> tuple[str, ...]:
    """Return the kinds (plurals) that a word stands for. Raises CommandLineError if it is not in `kinds`."""
    if word in CATEGORIES:
        return CATEGORIES[word]
    names = {name: plural for plural in kinds for name in _names(plural)}
    if word.lower() not in names:
        known = ", ".join(f"{plural} ({KINDS[plural].aliases[-1]})" for plural in kinds)
        hint = did_you_mean(word.lower(), [*names, *CATEGORIES]) or f" A KIND is {known}."
        raise CommandLineError(f"Unknown kind {word}.{hint}")
    return (names[word.lower()],)


def _names(plural: str) -> tuple[str, ...]:
    """Return the words that stand for a kind, for example also `deployments.apps`."""
    kind = KINDS[plural]
    group = kind.singular.partition(".")[2]
    return (plural, *kind.aliases, kind.singular, kind.kind.lower(), f"{plural}.{group}".rstrip("."))

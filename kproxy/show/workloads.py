"""Shows workloads as kubectl does: the numbers of pods that they want, that exist and are ready. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from kproxy.model import WORKLOADS, Requirement, Selector, Workload
from kproxy.show.manifests import annotations_of, container_manifest, metadata_of, without_empty
from kproxy.show.tables import Age, WorkloadView, labels

Rows: TypeAlias = Callable[[Iterable[WorkloadView], Age, bool], list[list[str]]]
OPERATORS = {"in": "In", "notin": "NotIn", "exists": "Exists", "absent": "DoesNotExist"}


def _replicated(view: WorkloadView) -> list[str]:
    return [str(number) for number in view.counts]


def _deployment(view: WorkloadView) -> list[str]:
    desired, found, ready = view.counts
    return [f"{ready}/{desired}", str(found), str(ready)]


def _stateful(view: WorkloadView) -> list[str]:
    return [f"{view.counts.ready}/{view.counts.desired}"]


def _daemon(view: WorkloadView) -> list[str]:
    desired, found, ready = map(str, view.counts)
    return [desired, found, ready, found, ready, labels(view.workload.node_selector)]


_REPLICATED = ("DESIRED", "CURRENT", "READY")
_COLUMNS: dict[str, tuple[Sequence[str], Callable[[WorkloadView], list[str]]]] = {
    "Deployment": (("READY", "UP-TO-DATE", "AVAILABLE"), _deployment),
    "ReplicaSet": (_REPLICATED, _replicated),
    "ReplicationController": (_REPLICATED, _replicated),
    "StatefulSet": (("READY",), _stateful),
    "DaemonSet": ((*_REPLICATED, "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR"), _daemon),
}
"""The columns between NAME and AGE. All pods are up to date, because kproxy knows no older templates."""


def rows_of(kind: str) -> Rows:
    """Return the function that makes the headings and the rows of this kind of workload."""
    headings, cells = _COLUMNS[kind]

    def rows(views: Iterable[WorkloadView], age: Age, wide: bool) -> list[list[str]]:
        made = [["NAME", *headings, "AGE", *(_wide_headings(kind) if wide else [])]]
        for view in views:
            more = _wide_cells(view.workload) if wide else []
            made.append([view.workload.name.name, *cells(view), age(view.workload.origin.created), *more])
        return made

    return rows


def _wide_headings(kind: str) -> list[str]:
    return ["CONTAINERS", "IMAGES", *([] if kind == "StatefulSet" else ["SELECTOR"])]


def _wide_cells(workload: Workload) -> list[str]:
    names = ",".join(each.name for each in workload.containers)
    images = ",".join(each.image for each in workload.containers)
    return [names, images, *([] if workload.kind == "StatefulSet" else [selector(workload)])]


def selector(workload: Workload) -> str:
    """Return for example `app=web,tier in (a,b)`; `<none>` without requirements."""
    return ",".join(map(str, workload.selector.requirements)) or labels({})


def workload_manifest(view: WorkloadView) -> dict[str, Any]:
    """Return a v1 ReplicationController or an apps/v1 object: what kproxy reads of it, and the counts."""
    workload = view.workload
    spec = {
        **({} if workload.replicas is None else {"replicas": workload.replicas}),
        **without_empty({"selector": _selector(workload.kind, workload.selector)}),
        "template": _template(workload),
    }
    return {
        "apiVersion": "apps/v1" if WORKLOADS[workload.kind][0] else "v1",
        "kind": workload.kind,
        "metadata": metadata_of(
            workload.name, workload.origin.created, workload.labels, annotations_of(workload.annotations)
        ),
        "spec": spec,
        "status": _status(view),
    }


def _selector(kind: str, wanted: Selector) -> dict[str, Any]:
    if kind == "ReplicationController":
        return wanted.equalities
    others = (each for each in wanted.requirements if each.key not in wanted.equalities)
    expressions = [_expression(each) for each in others]
    return without_empty({"matchLabels": wanted.equalities, "matchExpressions": expressions})


def _expression(requirement: Requirement) -> dict[str, Any]:
    fields = {"key": requirement.key, "operator": OPERATORS[requirement.operator]}
    return {**fields, **without_empty({"values": list(requirement.values)})}


def _template(workload: Workload) -> dict[str, Any]:
    containers = [container_manifest(each) for each in workload.containers]
    spec = without_empty({"nodeSelector": workload.node_selector, "containers": containers})
    return {"metadata": without_empty({"labels": workload.template}), "spec": spec}


def _status(view: WorkloadView) -> dict[str, int]:
    desired, found, ready = view.counts
    if view.workload.kind == "DaemonSet":
        return {"desiredNumberScheduled": desired, "currentNumberScheduled": found, "numberReady": ready}
    return {"replicas": found, "readyReplicas": ready}

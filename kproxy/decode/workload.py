"""Workloads -> model, to show them and to count their pods. No Service depends on them.

So a mistake in such an object is a warning, and the object is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kproxy.decode import wire
from kproxy.decode.containers import containers
from kproxy.decode.explain import describe
from kproxy.decode.fields import FieldError, annotations_text, object_name, origin
from kproxy.decode.objects import convert, subject_of
from kproxy.decode.text import to_python
from kproxy.model import WORKLOADS, Requirement, Selector, Workload, labels_selector
from kproxy.problems import Problem

OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}


def workload(source: str, meta: wire.TypeMeta, content: Any) -> Workload | Problem | None:
    """Decode a workload; None for another object, and a warning for an invalid one."""
    kind = meta.kind or ""
    if (meta.api_version or "").rpartition("/")[0] not in WORKLOADS.get(kind, ()):
        return None
    try:
        return _workload(source, kind, content)
    except Exception as error:  # of any type: no object may end the program
        loaded = to_python(content)
        path, message = describe(error, loaded)
        return Problem(source, subject_of(kind, loaded), path, f"{message}; it is not shown")


def _workload(source: str, kind: str, content: Any) -> Workload:
    form: type[wire.Workload] | type[wire.ReplicationController] = wire.Workload
    if kind == "ReplicationController":
        form = wire.ReplicationController
    obj = convert(content, form)
    spec = obj.spec or wire.WorkloadSpec()
    template = spec.template or wire.PodTemplate()
    labels = _labels(template.metadata.labels if template.metadata else None)
    selector = _selector(spec.selector)
    if not selector.requirements:
        selector = labels_selector(labels)
    elif not selector.matches(labels):
        message = f"does not match the labels of its template ({_text(labels)})"
        raise FieldError("spec.selector", message)
    pods = template.spec or wire.TemplateSpec()
    return Workload(
        kind=kind,
        name=object_name(obj.metadata),
        origin=origin(source, obj.metadata),
        replicas=None if kind == "DaemonSet" else 1 if spec.replicas is None else spec.replicas,
        selector=selector,
        template=labels,
        containers=_containers(pods),
        node_selector=_labels(pods.node_selector),
        owned=any(owner.controller for owner in obj.metadata.owner_references or ()),
        labels=_labels(obj.metadata.labels),
        annotations=annotations_text(obj.metadata),
    )


def _containers(pods: wire.PodSpec) -> Any:
    try:
        return containers(pods)
    except FieldError as error:
        raise FieldError(f"spec.template.{error.path}", str(error)) from None


def _labels(labels: Mapping[str, str | None] | None) -> dict[str, str]:
    return {key: value or "" for key, value in (labels or {}).items()}


def _text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "none"


def _selector(selector: wire.LabelSelector | dict[str, str | None] | None) -> Selector:
    """Return the selector; without requirements if it is absent or empty."""
    if not isinstance(selector, wire.LabelSelector):
        return labels_selector(_labels(selector))
    found = labels_selector(_labels(selector.match_labels)).requirements
    others = enumerate(selector.match_expressions or [])
    found += tuple(_requirement(f"spec.selector.matchExpressions[{index}]", each) for index, each in others)
    return Selector(found)


def _requirement(path: str, requirement: wire.SelectorRequirement) -> Requirement:
    operator = OPERATORS.get(requirement.operator)
    if operator is None:
        raise FieldError(f"{path}.operator", f"{requirement.operator!r} is not one of {', '.join(OPERATORS)}")
    values = tuple(sorted(set(requirement.values or ())))
    if bool(values) != (operator in ("in", "notin")):
        raise FieldError(f"{path}.values", "must be empty" if values else "is missing")
    return Requirement(requirement.key, operator, values)

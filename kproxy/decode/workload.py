"""Workloads -> model, to say which pods they would make. kproxy does not use them otherwise.

So a mistake in such an object is no problem, and nothing is said about an object that cannot be read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kproxy.decode import wire
from kproxy.decode.fields import FieldError, object_name
from kproxy.decode.objects import convert
from kproxy.model import Workload

KINDS = frozenset({"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"})
GROUPS = frozenset({"", "apps", "extensions"})


def workload(meta: wire.TypeMeta, content: Any) -> Workload | None:
    """Decode a workload that starts pods; None for other objects, and if its owner is a workload, too."""
    kind = meta.kind or ""
    if kind not in KINDS or (meta.api_version or "").rpartition("/")[0] not in GROUPS:
        return None
    try:
        obj = convert(content, wire.Workload)
        name = object_name(obj.metadata)
    except (msgspec.DecodeError, FieldError):
        return None
    spec = obj.spec or wire.WorkloadSpec()
    template = (spec.template and spec.template.metadata) or wire.Metadata()
    replicas = None if kind == "DaemonSet" else 1 if spec.replicas is None else spec.replicas
    if replicas == 0 or any(owner.controller for owner in obj.metadata.owner_references or ()):
        return None
    labels = {key: value or "" for key, value in (template.labels or {}).items()}
    return Workload(kind, name, replicas, labels)

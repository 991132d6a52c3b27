"""One object of a known kind -> model, or a problem.

Manifests and the API server's responses both go through `decode_object`, so an object has
the same meaning and the same problems wherever it was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from kproxy.decode import endpointslices as endpoints
from kproxy.decode import ingress, node, service, wire
from kproxy.decode.endpointslices import SERVICE_NAME_LABEL
from kproxy.decode.fields import FieldError
from kproxy.model import ClusterNode, EndpointSlice, Ingress, NamespacedName, Pod, Service
from kproxy.problems import Problem

T = TypeVar("T")

Object = Service | EndpointSlice | Pod | ClusterNode | Ingress

_KINDS: dict[tuple[str, str], tuple[type[Any], Callable[[str, Any], list[Any]]]] = {
    ("v1", "Service"): (wire.Service, service.service),
    ("v1", "Endpoints"): (wire.Endpoints, endpoints.endpoints),
    ("v1", "Pod"): (wire.Pod, endpoints.pod),
    ("v1", "Node"): (wire.Node, node.node),
    ("discovery.k8s.io/v1", "EndpointSlice"): (wire.EndpointSlice, endpoints.endpoint_slice),
    ("networking.k8s.io/v1", "Ingress"): (wire.Ingress, ingress.ingress_v1),
    ("networking.k8s.io/v1beta1", "Ingress"): (wire.Ingress, ingress.ingress_beta),
    ("extensions/v1beta1", "Ingress"): (wire.Ingress, ingress.ingress_beta),
}


class Unreadable:
    """The Services of which a part may be missing, because some input could not be read, and that input.

    These Services are protected: kproxy removes nothing that it has programmed for them, because the
    absence of an object may be due to the error.
    """

    def __init__(self) -> None:
        self.services: dict[NamespacedName, list[Problem]] = {}
        self.namespaces: dict[str, list[Problem]] = {}
        self.everything: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self.services or self.namespaces or self.everything)

    def covers(self, service: NamespacedName) -> bool:
        """Whether a part of this Service may be missing."""
        return bool(self.everything) or service in self.services or service.namespace in self.namespaces

    def causes(self, service: NamespacedName) -> list[Problem]:
        """Return the problems that may concern this Service; [] if it is not covered."""
        of_namespace = self.namespaces.get(service.namespace, [])
        return [*self.services.get(service, ()), *of_namespace, *self.everything]

    def update(self, other: Unreadable) -> None:
        """Add what `other` covers."""
        for name, causes in other.services.items():
            self.services.setdefault(name, []).extend(causes)
        for namespace, causes in other.namespaces.items():
            self.namespaces.setdefault(namespace, []).extend(causes)
        self.everything += other.everything

    def add(self, kind: str, content: Any, cause: Problem) -> None:
        """Add the Services to which the unreadable object `content` may belong; none for an Ingress."""
        if kind == "Ingress":
            return
        namespace = _lookup(content, "metadata", "namespace") or "default"
        name = _lookup(content, "metadata", "name")
        if kind == "EndpointSlice":
            name = _lookup(content, "metadata", "labels", SERVICE_NAME_LABEL)
        if not isinstance(namespace, str) or kind not in ("Service", "Endpoints", "EndpointSlice", "Pod"):
            self.everything.append(cause)
        elif kind == "Pod" or not isinstance(name, str):
            self.namespaces.setdefault(namespace, []).append(cause)
        else:
            self.services.setdefault(NamespacedName(namespace, name), []).append(cause)


class UndecodableError(ValueError):
    """An invalid object: the problem, and the Services to which the object may belong."""

    def __init__(self, source: str, kind: str, content: Any, error: Exception) -> None:
        super().__init__()
        loaded = msgspec.json.decode(content) if isinstance(content, Raw) else content
        self.problem = Problem(source, _object_name(kind, loaded), *describe(error))
        self.unreadable = Unreadable()
        self.unreadable.add(kind, loaded, self.problem)

    def __str__(self) -> str:
        return str(self.problem)


def decode_object(
    source: str, meta: wire.TypeMeta, content: Any
) -> tuple[wire.Metadata, list[Object]] | None:
    """Return the metadata of an object and its form in the model; None if kproxy does not use its kind.

    `content` is JSON text (`Raw`), or a value loaded from YAML. Raises UndecodableError.
    """
    if not meta.kind or not meta.api_version:
        missing = "kind" if not meta.kind else "apiVersion"
        raise UndecodableError(source, meta.kind or "object", content, FieldError(missing, "is missing"))
    known = _KINDS.get((meta.api_version, meta.kind))
    if known is None:
        return None
    wire_type, to_model = known
    try:
        obj = convert(content, wire_type)
        return obj.metadata, to_model(source, obj)
    except (msgspec.ValidationError, FieldError) as error:
        raise UndecodableError(source, meta.kind, content, error) from None


def convert(content: Any, kind: type[T]) -> T:
    """Convert JSON text or a loaded value to a type of `wire`. Raises msgspec.DecodeError."""
    if isinstance(content, Raw):
        return msgspec.json.decode(content, type=kind)
    return msgspec.convert(content, kind)


def describe(error: Exception) -> tuple[str, str]:
    """Return field and message of an error. msgspec's form: Expected `int`, got `str` - at `$.spec.port`."""
    if isinstance(error, FieldError):
        return error.path, str(error)
    message, _, place = str(error).partition(" - at ")
    path = place.strip("`").removeprefix("$").lstrip(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", message):
        return f"{path}.{missing[1]}".lstrip("."), "is missing"
    return path, message.replace("`", "").replace(" | null", "").replace("Expected", "expected", 1)


def _lookup(content: Any, *path: str) -> Any:
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _object_name(kind: str, content: Any) -> str:
    """Return for example `Service default/kubia`, for an object whose fields may have wrong types."""
    namespace = _lookup(content, "metadata", "namespace") or "default"
    name = _lookup(content, "metadata", "name")
    return f"{kind} {namespace}/{name}" if name else f"{kind} (no name)"

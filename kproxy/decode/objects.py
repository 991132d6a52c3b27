"""One object of a known kind -> model, or what is wrong with it.

Manifests and the API server's answers go through `decode_object`: an object means the
same, and is complained of in the same words, wherever it was read.
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
    """What may be missing from the state because part of the input could not be read, and which part.

    Nothing that is programmed for a service in doubt may be removed: its absence may be an error.
    """

    def __init__(self) -> None:
        self.services: dict[NamespacedName, list[Problem]] = {}
        self.namespaces: dict[str, list[Problem]] = {}
        self.everything: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self.services or self.namespaces or self.everything)

    def covers(self, service: NamespacedName) -> bool:
        """Whether some of this service may be missing."""
        return bool(self.everything) or service in self.services or service.namespace in self.namespaces

    def causes(self, service: NamespacedName) -> list[Problem]:
        """What could not be read and may be a part of this service; [] if it is not covered."""
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
        """Add what the object `content` may have been a part of; nothing is programmed for an Ingress."""
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
    """An object that something is wrong with: what it is, and of what it would have been a part."""

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
    """The object's metadata, and what it is to kproxy; None if kproxy has no use for its kind.

    `content` is JSON text (`Raw`), or a value as YAML loads it. Raises UndecodableError.
    """
    if not meta.kind or not meta.api_version:
        missing = "kind" if not meta.kind else "apiVersion"
        raise UndecodableError(source, meta.kind or "object", content, FieldError(missing, "is missing"))
    known = _KINDS.get((meta.api_version, meta.kind))
    if known is None:
        return None
    wire_type, to_model = known
    try:
        given = convert(content, wire_type)
        return given.metadata, to_model(source, given)
    except (msgspec.ValidationError, FieldError) as error:
        raise UndecodableError(source, meta.kind, content, error) from None


def convert(content: Any, kind: type[T]) -> T:
    """JSON text or a loaded value as a type of `wire`."""
    if isinstance(content, Raw):
        return msgspec.json.decode(content, type=kind)
    return msgspec.convert(content, kind)


def describe(error: Exception) -> tuple[str, str]:
    """Field and message of a decoding error. msgspec's read: Expected `int`, got `str` - at `$.spec.port`."""
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
    """`Service default/kubia`, from an object whose types cannot be relied on."""
    namespace = _lookup(content, "metadata", "namespace") or "default"
    name = _lookup(content, "metadata", "name")
    return f"{kind} {namespace}/{name}" if name else f"{kind} (no name)"

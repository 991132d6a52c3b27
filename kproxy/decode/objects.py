"""One object of a known kind -> model, or a problem.

Manifests and the API server's responses both go through `decode_object`, so an object has
the same meaning and the same problems wherever it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, to_builtins
from msgspec.structs import replace

from kproxy.decode import endpointslices as endpoints
from kproxy.decode import node, service, servicecidr, wire
from kproxy.decode.advice import misplaced_fields
from kproxy.decode.endpointslices import SERVICE_NAME_LABEL
from kproxy.decode.explain import describe
from kproxy.decode.fields import FieldError, Notes, is_label
from kproxy.decode.kinds import Kind, find_slip
from kproxy.decode.schema import unknown_fields
from kproxy.decode.strict import strictly
from kproxy.decode.text import Encoded, from_json, has_too_many_values, to_python
from kproxy.gatewayapi import Gateway, GatewayClass, Namespace, ReferenceGrant, Route
from kproxy.limits import OBJECT_VALUES
from kproxy.model import (
    ClusterNode,
    EndedPod,
    EndpointSlice,
    Ingress,
    IngressClass,
    NamespacedName,
    Pod,
    Secret,
    Service,
    ServiceCIDR,
    gateway_owner,
    is_gateway,
)
from kproxy.problems import Problem

T = TypeVar("T")

GatewayObject = GatewayClass | Gateway | Route | ReferenceGrant | Namespace
Object = (
    Service
    | EndpointSlice
    | Pod
    | EndedPod
    | ClusterNode
    | Ingress
    | IngressClass
    | Secret
    | ServiceCIDR
    | GatewayObject
)


_KINDS = {
    ("v1", "Service"): Kind(wire.Service, service.service, "Service"),
    ("v1", "Endpoints"): Kind(wire.Endpoints, endpoints.endpoints, "Endpoints"),
    ("v1", "Pod"): Kind(wire.Pod, endpoints.pod, "Pod"),
    ("v1", "Node"): Kind(wire.Node, node.node, "Node"),
    ("discovery.k8s.io/v1", "EndpointSlice"): Kind(
        wire.EndpointSlice, endpoints.endpoint_slice, "EndpointSlice"
    ),
    ("networking.k8s.io/v1", "ServiceCIDR"): Kind(wire.ServiceCIDR, servicecidr.service_cidr, ""),
}
GATEWAY_KINDS = frozenset(
    {"GatewayClass", "Gateway", "HTTPRoute", "TCPRoute", "UDPRoute", "ReferenceGrant", "Namespace"}
)
_ROUTED_KINDS = GATEWAY_KINDS | {"Ingress", "IngressClass", "Secret"}
"""The kinds of `routed.py`."""


CAUSES = 10
"""The maximum number of unreadable objects that are kept as the reason why a Service is protected."""


class Unreadable:
    """The Services of which a part may be missing, because some input could not be read, and that input.

    These Services are protected: kproxy removes nothing that it has programmed for them, because the
    absence of an object may be due to the error.
    """

    def __init__(self) -> None:
        self.services: dict[NamespacedName, list[Problem]] = {}
        self.namespaces: dict[str, list[Problem]] = {}
        self.gateways: list[Problem] = []
        """Input that may concern every Gateway, for example a route."""
        self.everything: list[Problem] = []
        self.empty: list[str] = []
        """`no objects in PATH`: input that may be missing altogether."""

    def __bool__(self) -> bool:
        return bool(self.services or self.namespaces or self.gateways or self.everything or self.empty)

    def covers(self, service: NamespacedName) -> bool:
        """Whether a part of this Service may be missing."""
        if self.everything or self.empty or (self.gateways and is_gateway(service)):
            return True
        return service in self.services or service.namespace in self.namespaces

    def causes(self, service: NamespacedName) -> list[Problem]:
        """Return the problems that may concern this Service; [] if it is not covered."""
        of_namespace = self.namespaces.get(service.namespace, [])
        of_gateways = self.gateways if is_gateway(service) else []
        return [*self.services.get(service, ()), *of_namespace, *of_gateways, *self.everything]

    def update(self, other: Unreadable) -> None:
        """Add what `other` covers."""
        for name, causes in other.services.items():
            _extend(self.services.setdefault(name, []), causes)
        for namespace, causes in other.namespaces.items():
            _extend(self.namespaces.setdefault(namespace, []), causes)
        _extend(self.gateways, other.gateways)
        _extend(self.everything, other.everything)

    def add(self, kind: str, content: Any, cause: Problem) -> None:
        """Add the Services to which the unreadable object `content` may belong; none for some kinds.

        A name that no Service can have is a mistake, so the object may be of any Service of the namespace.
        """
        if kind in ("Ingress", "IngressClass", "Node", "Secret", "ServiceCIDR"):
            return
        if kind in GATEWAY_KINDS:
            self._add_gateway(kind, content, cause)
            return
        if not isinstance(content, dict):
            self.everything.append(cause)
            return
        namespace = _look_up(content, "metadata", "namespace") or "default"
        name = _look_up(content, "metadata", "name")
        if kind == "EndpointSlice":
            name = _look_up(content, "metadata", "labels", SERVICE_NAME_LABEL)
        if not is_label(namespace) or kind not in ("Service", "Endpoints", "EndpointSlice", "Pod"):
            self.everything.append(cause)
        elif kind == "Pod" or not is_label(name):
            self.namespaces.setdefault(namespace, []).append(cause)
        else:
            self.services.setdefault(NamespacedName(namespace, name), []).append(cause)

    def _add_gateway(self, kind: str, content: Any, cause: Problem) -> None:
        """Add the Gateway; every Gateway for an object of another kind, or one without a name."""
        namespace = _look_up(content, "metadata", "namespace") or "default"
        name = _look_up(content, "metadata", "name")
        if kind == "Gateway" and is_label(namespace) and isinstance(name, str) and name:
            owner = gateway_owner(NamespacedName(namespace, name))
            self.services.setdefault(owner, []).append(cause)
        else:
            self.gateways.append(cause)


def _extend(causes: list[Problem], more: list[Problem]) -> None:
    """Add causes. A few are enough to name, and there are as many lists as Services that read them."""
    causes += more[: max(0, CAUSES - len(causes))]


class UndecodableError(ValueError):
    """An invalid object: the problem, and the Services to which the object may belong."""

    def __init__(self, source: str, subject: str, kind: str, content: Any, error: Exception) -> None:
        """`subject`: its name in the problem; `kind`: a known kind that it may be, or ""."""
        super().__init__()
        loaded = to_python(content)
        self.problem = Problem(source, subject, *describe(error, loaded))
        self.unreadable = Unreadable()
        self.unreadable.add(kind, loaded, self.problem)

    def __str__(self) -> str:
        return str(self.problem)


class DecodedObject(Struct, frozen=True):
    """A valid object, or one of which parts are invalid."""

    metadata: wire.Metadata
    models: list[Object]
    warnings: Sequence[Problem] = ()
    left_out: Sequence[Problem] = ()
    """Invalid parts, without which the models are."""
    unreadable: Unreadable | None = None
    """What these parts may belong to."""


def decode_object(
    source: str,
    meta: wire.TypeMeta,
    content: Any,
    place: str = "",
    manifest: bool = False,
    usual: Any = None,
) -> DecodedObject | None:
    """Decode an object; None if kproxy does not use its kind. Raises UndecodableError.

    `content` is JSON text (`Raw`), protobuf (`Encoded`), or a value loaded from YAML. `place` names its
    document, for errors in which the object itself may be unknown. Of a `manifest`, fields that have no
    effect are warnings: an API server stores no such fields, and a newer one has fields that are not known
    here. `usual` is the result of `strictly` for the object, if there is one already.
    """
    kind, version = meta.kind or "", meta.api_version or ""
    known = _known(version, kind)
    if known is None:
        _raise_if_meant(source, kind, version, content, place)
        return None
    if manifest and not known.schema:
        return None
    if has_too_many_values(content):
        raise _too_large(source, kind, content)
    notes = Notes()
    try:
        if manifest and usual is None:
            usual = strictly(content, known.wire, known.schema)
        obj = convert(content, known.wire) if usual is None else usual
        models = known.to_model(source, obj, notes)
        if manifest:
            notes.warnings += unknown_fields(known.schema, content) if usual is None else ()
            notes.warnings += misplaced_fields(obj)
    except Exception as error:  # of any type: no object may end the program
        loaded = to_python(content)
        raise UndecodableError(source, subject_of(kind, loaded), kind, loaded, error) from None
    if notes.warnings or notes.left_out:
        return _with_notes(DecodedObject(obj.metadata, models), notes, source, kind, to_python(content))
    return DecodedObject(obj.metadata, models)


def _too_large(source: str, kind: str, content: Raw) -> UndecodableError:
    """Return the error of an object of which only the metadata can be decoded in a short time."""
    named: Any
    try:
        named = {"metadata": to_builtins(convert(content, wire.Named).metadata)}
    except msgspec.DecodeError:
        named = UNSET
    error = FieldError("", f"has more than {OBJECT_VALUES:,} values")
    return UndecodableError(source, subject_of(kind, named), kind, named, error)


def _known(version: str, kind: str) -> Kind | None:
    if kind not in _ROUTED_KINDS:
        return _KINDS.get((version, kind))
    from kproxy.decode.routed import KINDS  # most input has no such objects

    return KINDS.get((version, kind))


def _raise_if_meant(source: str, kind: str, version: str, content: Any, place: str) -> None:
    """Raise UndecodableError if an object of an unknown kind is probably one of a known kind."""
    if not kind or not version:
        slip, meant = FieldError("kind" if not kind else "apiVersion", "is missing"), kind
    elif found := find_slip(kind, version):
        slip, meant = FieldError(found.field, found.message), found.kind
    else:
        return
    loaded = to_python(content)
    subject = subject_of(kind or "object", loaded) if kind or _look_up(loaded, "metadata", "name") else ""
    raise UndecodableError(source, ": ".join(filter(None, (place, subject))), meant, content, slip)


def _with_notes(decoded: DecodedObject, notes: Notes, source: str, kind: str, content: Any) -> DecodedObject:
    subject, unreadable = subject_of(kind, content), Unreadable()
    left_out = [Problem(source, subject, *note) for note in notes.left_out]
    for problem in left_out:
        unreadable.add(kind, content, problem)
    warnings = [Problem(source, subject, *note) for note in notes.warnings]
    if notes.more:
        warnings.append(Problem(source, subject, "", f"there are {notes.more:,} more warnings"))
    return replace(decoded, warnings=warnings, left_out=left_out, unreadable=unreadable)


def convert(content: Any, kind: type[T]) -> T:
    """Convert JSON text, protobuf or a loaded value to a type of `wire`. Raises msgspec.DecodeError."""
    if isinstance(content, Raw):
        return from_json(content, kind)
    if isinstance(content, Encoded):
        return content.convert(kind)
    return msgspec.convert(content, kind)


def _look_up(content: Any, *path: str) -> Any:
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def subject_of(kind: str, content: Any) -> str:
    """Return for example `Service default/kubia`, for an object whose fields may have wrong types."""
    namespace = _look_up(content, "metadata", "namespace") or "default"
    name = _look_up(content, "metadata", "name")
    if not isinstance(name, str | int | float) or not name:
        return f"{kind} (no name)"
    return f"{kind} {namespace}/{name}" if isinstance(namespace, str | int | float) else f"{kind} {name}"

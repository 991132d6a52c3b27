"""Kubernetes objects -> model. The only place that knows camelCase and API versions.

    documents (here) -> wire.py: types -> service.py, endpoints.py: values -> ClusterState (here)

An object with anything wrong is left out and reported as a `Problem`; the others are
not affected. What may be missing because of it is in `Doubt`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from kproxy.decode import endpoints, service, wire
from kproxy.decode.endpoints import SERVICE_NAME_LABEL
from kproxy.decode.fields import FieldError, object_name
from kproxy.model import ClusterNode, ClusterState, EndpointSlice, NamespacedName, Pod, Service
from kproxy.problems import Problem

T = TypeVar("T")


class Document(NamedTuple):
    """One top-level object of the input: JSON text (`Raw`), or a value as YAML loads it."""

    source: str
    content: Any


class Doubt:
    """What may be missing from the state because part of the input could not be read.

    Nothing that is programmed for a service in doubt may be removed: its absence may be an error.
    """

    def __init__(self) -> None:
        self.services: set[NamespacedName] = set()
        self.namespaces: set[str] = set()
        self.everything = False

    def covers(self, service: NamespacedName) -> bool:
        """Whether some of this service may be missing."""
        return self.everything or service in self.services or service.namespace in self.namespaces

    def add(self, kind: str, content: Any) -> None:
        """Note that the object `content` was left out."""
        namespace = _lookup(content, "metadata", "namespace") or "default"
        name = _lookup(content, "metadata", "name")
        if kind == "EndpointSlice":
            name = _lookup(content, "metadata", "labels", SERVICE_NAME_LABEL)
        if not isinstance(namespace, str) or kind not in ("Service", "Endpoints", "EndpointSlice", "Pod"):
            self.everything = True
        elif kind == "Pod" or not isinstance(name, str):
            self.namespaces.add(namespace)
        else:
            self.services.add(NamespacedName(namespace, name))


class Decoded(NamedTuple):
    """What came of a set of documents."""

    state: ClusterState
    problems: list[Problem]
    doubt: Doubt
    ignored: Counter[str]
    """Objects of kinds that kproxy has no use for, by kind."""


Object = Service | EndpointSlice | Pod | ClusterNode
NO_TYPE = wire.TypeMeta()

_KINDS: dict[tuple[str, str], tuple[type[Any], Callable[[str, Any], list[Any]]]] = {
    ("v1", "Service"): (wire.Service, service.service),
    ("v1", "Endpoints"): (wire.Endpoints, endpoints.endpoints),
    ("v1", "Pod"): (wire.Pod, endpoints.pod),
    ("v1", "Node"): (wire.Node, endpoints.node),
    ("discovery.k8s.io/v1", "EndpointSlice"): (wire.EndpointSlice, endpoints.endpoint_slice),
}


def _convert(content: Any, kind: type[T]) -> T:
    if isinstance(content, Raw):
        return msgspec.json.decode(content, type=kind)
    return msgspec.convert(content, kind)


def _describe(error: Exception) -> tuple[str, str]:
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


def _loaded(content: Any) -> Any:
    return msgspec.json.decode(content) if isinstance(content, Raw) else content


def _object_name(kind: str, content: Any) -> str:
    """`Service default/kubia`, from an object whose types cannot be relied on."""
    namespace = _lookup(content, "metadata", "namespace") or "default"
    name = _lookup(content, "metadata", "name")
    return f"{kind} {namespace}/{name}" if name else f"{kind} (no name)"


def _items(content: Any) -> list[Any]:
    if isinstance(content, Raw):
        return list(msgspec.json.decode(content, type=wire.RawList).items or ())
    return msgspec.convert(content, wire.LoadedList).items or []


def _item_type(meta: wire.TypeMeta) -> wire.TypeMeta:
    kind = (meta.kind or "").removesuffix("List")
    return wire.TypeMeta(kind, meta.api_version) if kind else NO_TYPE


def decode(documents: Iterable[Document]) -> Decoded:
    """Decode every object that can be; equal input in equal order gives equal output."""
    decoder = _Decoder()
    for document in documents:
        decoder.add(document)
    return Decoded(_assemble(decoder.objects), decoder.problems, decoder.doubt, decoder.ignored)


class _Decoder:
    """Takes documents one by one and sorts what comes of them."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.problems: list[Problem] = []
        self.doubt = Doubt()
        self.ignored: Counter[str] = Counter()
        self._seen: dict[tuple[str, NamespacedName], str] = {}

    def add(self, document: Document) -> None:
        """Take an object, or the items of a List; a List without end (a YAML alias) is a problem."""
        try:
            self._add(document, NO_TYPE)
        except RecursionError:
            self._broken(document.source, "", "is too deep, or part of itself")

    def _add(self, document: Document, inherited: wire.TypeMeta) -> None:
        """To any depth. Items of a typed list (ServiceList) may leave out kind and apiVersion."""
        try:
            own = _convert(document.content, wire.TypeMeta)
            meta = wire.TypeMeta(own.kind or inherited.kind, own.api_version or inherited.api_version)
            if meta.kind and meta.kind.endswith("List"):
                for item in _items(document.content):
                    self._add(Document(document.source, item), _item_type(meta))
            else:
                self._add_object(document, meta)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._broken(document.source, *_describe(error))

    def _broken(self, source: str, path: str, message: str) -> None:
        """Note that what objects there are cannot be said."""
        self.doubt.everything = True
        self.problems.append(Problem(source, "", path, message))

    def _add_object(self, document: Document, meta: wire.TypeMeta) -> None:
        source, content = document
        if not meta.kind or not meta.api_version:
            missing = "kind" if not meta.kind else "apiVersion"
            self._leave_out(document, meta.kind or "object", FieldError(missing, "is missing"))
            return
        known = _KINDS.get((meta.api_version, meta.kind))
        if known is None:
            self.ignored[meta.kind] += 1
            return
        wire_type, to_model = known
        try:
            given = _convert(content, wire_type)
            found: list[Object] = to_model(source, given)
        except (msgspec.ValidationError, FieldError) as error:
            self._leave_out(document, meta.kind, error)
            return
        key = (meta.kind, object_name(given.metadata))
        if key in self._seen:
            message = f"is given twice; the one in {self._seen[key]} is used"
            self.problems.append(Problem(source, f"{meta.kind} {key[1]}", "metadata.name", message))
            return
        self._seen[key] = source
        self.objects += found

    def _leave_out(self, document: Document, kind: str, error: Exception) -> None:
        content = _loaded(document.content)
        self.doubt.add(kind, content)
        self.problems.append(Problem(document.source, _object_name(kind, content), *_describe(error)))


def _assemble(found: Iterable[Object]) -> ClusterState:
    """Sort objects to what they belong to. Of one service, EndpointSlices win over its legacy Endpoints."""
    services: dict[NamespacedName, Service] = {}
    given: dict[NamespacedName, list[EndpointSlice]] = defaultdict(list)
    legacy: dict[NamespacedName, list[EndpointSlice]] = defaultdict(list)
    pods: list[Pod] = []
    nodes: dict[str, ClusterNode] = {}
    for item in found:
        match item:
            case Service():
                services[item.name] = item
            case EndpointSlice():
                (legacy if item.legacy else given)[item.service].append(item)
            case Pod():
                pods.append(item)
            case ClusterNode():
                nodes[item.name] = item
    slices = {name: tuple(members) for name, members in {**legacy, **given}.items()}
    return ClusterState(services, slices, tuple(pods), nodes)

"""Kubernetes objects -> model. No other folder knows camelCase names and API versions.

    documents (here) -> objects.py: one object -> kinds.py: is it a known one
                                               -> wire.py: types -> service.py, endpointslices.py, node.py,
                                                  ingress.py: values
                                                  gatewaywire.py: types -> gateways.py, routes.py: values
                                               -> schema.py, advice.py: fields without effect
                     -> ClusterState (here)

An invalid object is ignored and reported as a `Problem`. It does not affect the others.
`Unreadable` lists the Services of which a part may be missing for this reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from kproxy import model
from kproxy.decode import wire
from kproxy.decode.explain import describe
from kproxy.decode.fields import annotations_text, object_name
from kproxy.decode.kinds import API_VERSIONS, LIST, LISTS
from kproxy.decode.objects import Object, UndecodableError, Unreadable, convert, decode_object
from kproxy.decode.text import from_json, to_python
from kproxy.decode.workload import workload
from kproxy.gatewayapi import (
    NO_OBJECTS,
    Gateway,
    GatewayClass,
    GatewayObjects,
    Namespace,
    ReferenceGrant,
    Route,
)
from kproxy.limits import DOCUMENTS
from kproxy.problems import Problem, limited

__all__ = ["Decoded", "Document", "Unreadable", "decode", "gateway_objects"]


class Document(NamedTuple):
    """One top-level object of the input: JSON text (`Raw`), or a value loaded from YAML."""

    source: str
    content: Any
    number: int = 1
    """The first document of a file is 1."""
    line: int = 1
    """The line of the file on which it begins."""
    repeated: tuple[str, ...] = ()
    """Keys that a mapping of it has twice."""


class Decoded(NamedTuple):
    """The result of decoding documents."""

    state: model.ClusterState
    problems: list[Problem]
    unreadable: Unreadable
    ignored: Counter[str]
    """The number of objects of each kind that kproxy does not use."""
    warnings: list[Problem]
    """Objects that are used, but perhaps not as they were meant."""
    counts: Counter[str]
    """The number of objects in each source, valid or not, without Lists."""
    gateways: GatewayObjects = NO_OBJECTS

    @property
    def unused(self) -> Counter[str]:
        """The number of objects of each kind on which no Service depends."""
        state = self.state
        others = Counter(Secret=len(state.secrets), IngressClass=len(state.ingress_classes))
        return self.ignored + others + Counter(workload.kind for workload in state.workloads)

    @property
    def has_used(self) -> bool:
        """Whether a Service depends on an object, or would depend on one that is invalid."""
        return self.counts.total() > self.unused.total()


NO_TYPE = wire.TypeMeta()


def _items(content: Any) -> list[Any] | None:
    """Return the items of a List; None if it has no such field."""
    if isinstance(content, Raw):
        items: list[Any] | UnsetType | None = from_json(content, wire.RawList).items
    else:
        items = msgspec.convert(content, wire.LoadedList).items
    return None if items is UNSET else items or []


def _is_list(kind: str) -> bool:
    """Whether it is a List of any objects, or one of a known kind. Other kinds may have similar names."""
    return kind == LIST or kind in LISTS


def _item_type(meta: wire.TypeMeta) -> wire.TypeMeta:
    kind = (meta.kind or "").removesuffix(LIST)
    return wire.TypeMeta(kind, meta.api_version) if kind else NO_TYPE


def decode(documents: Iterable[Document]) -> Decoded:
    """Decode all valid objects. Equal input in equal order gives equal output."""
    decoder = _Decoder()
    for document in documents:
        decoder.add(document)
    return Decoded(
        replace(_assemble(decoder.objects), workloads=tuple(decoder.workloads)),
        limited(decoder.problems),
        decoder.unreadable,
        decoder.ignored,
        limited(decoder.warnings),
        decoder.counts,
        gateway_objects(decoder.objects),
    )


class _Decoder:
    """Decodes documents one by one and collects the results."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.workloads: list[model.Workload] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.unreadable = Unreadable()
        self.ignored: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._seen: dict[tuple[str, model.NamespacedName], str] = {}
        self._pods: dict[model.NamespacedName, int] = {}
        """Where each Pod is in `objects`."""

    def add(self, document: Document) -> None:
        """Decode an object or the items of a List. A List in itself (a YAML alias) is a problem."""
        place = f"document {document.number} (line {document.line})"
        before = len(self.objects)
        try:
            self._add(document.source, document.content, NO_TYPE, place)
        except RecursionError:
            self._broken(document.source, place, "", "is nested too deeply or contains itself")
        for key in document.repeated if len(self.objects) > before else ():
            message = f'has the key "{key}" twice: the last one is used'
            self.warnings.append(Problem(document.source, place, "", message))

    def _add(self, source: str, content: Any, inherited: wire.TypeMeta, place: str) -> None:
        """Decode nested lists, too. Items of a typed list (ServiceList) inherit kind and apiVersion."""
        try:
            own = convert(content, wire.TypeMeta)
            meta = wire.TypeMeta(own.kind or inherited.kind, own.api_version or inherited.api_version)
            items = _items(content) if meta.kind and meta.kind.endswith(LIST) else None
        except msgspec.DecodeError as error:
            self._broken(source, place, *_described(error, content))
            return
        if items is not None and self.counts[source] + len(items) > DOCUMENTS:
            self._broken(source, place, "items", f"more than {DOCUMENTS} objects in a file")
        elif items is not None:
            for index, item in enumerate(items):
                self._add(source, item, _item_type(meta), f"{place}, items[{index}]")
        elif _is_list(meta.kind or ""):
            self._broken(source, place, "items", "is missing")
        else:
            self._add_object(source, content, meta, place)

    def _broken(self, source: str, place: str, path: str, message: str) -> None:
        """Report a document whose objects are unknown."""
        problem = Problem(source, place, path, message)
        unreadable = Unreadable()
        unreadable.everything.append(problem)
        self.unreadable.update(unreadable)
        self.problems.append(problem)
        self.counts[source] += 1

    def _add_object(self, source: str, content: Any, meta: wire.TypeMeta, place: str) -> None:
        self.counts[source] += 1
        kind = meta.kind or ""
        try:
            decoded = decode_object(source, meta, content, place, manifest=True)
        except UndecodableError as undecodable:
            self.unreadable.update(undecodable.unreadable)
            self.problems.append(undecodable.problem)
            return
        if decoded is None:
            self._add_other(source, content, meta)
            return
        self.warnings += decoded.warnings
        key = (kind, object_name(decoded.metadata))
        models = _annotated(decoded.metadata, decoded.models)
        if key in self._seen:
            if self._is_one_pod(models):
                return
            message = f"is a duplicate; the object in {self._seen[key]} is used"
            self.problems.append(Problem(source, f"{kind} {key[1]}", "metadata.name", message))
            return
        self._seen[key] = source
        if kind == "Pod":
            self._pods[key[1]] = len(self.objects)
        self.problems += decoded.left_out
        if decoded.unreadable:
            self.unreadable.update(decoded.unreadable)
        self.objects += models

    def _is_one_pod(self, found: list[Object]) -> bool:
        """Whether it is a known Pod, and only one of the two has an address. That one is used."""
        match found:
            case [model.Pod() | model.EndedPod() as second]:
                first = self.objects[self._pods[second.name]]
                had, has = _has_address(first), _has_address(second)
                if has and not had:
                    self.objects[self._pods[second.name]] = second
                return had != has
        return False

    def _add_other(self, source: str, content: Any, meta: wire.TypeMeta) -> None:
        """Add an object that no Service depends on: a workload, or one of a kind that is ignored."""
        kind, found = meta.kind or "", workload(source, meta, content)
        if isinstance(found, model.Workload):
            subject, key = f"{kind} {found.name}", (kind, found.name)
            if key not in self._seen:
                self._seen[key] = source
                self.workloads.append(found)
                return
            message = f"is a duplicate; the object in {self._seen[key]} is shown"
            found = Problem(source, subject, "metadata.name", message)
        if found is not None:
            self.warnings.append(found)
        self.ignored[f"{kind} ({meta.api_version})" if kind in API_VERSIONS else kind] += 1


def _has_address(pod: Object) -> bool:
    return isinstance(pod, model.Pod) and bool(pod.addresses)


def _described(error: Exception, content: Any) -> tuple[str, str]:
    """Describe an error in the part of a document that is decoded before its kind is known."""
    if isinstance(error, msgspec.ValidationError):
        return describe(error, to_python(content))
    return "", f"not JSON: {error}"


def _annotated(metadata: wire.Metadata, found: list[Object]) -> list[Object]:
    """Add the annotations, for views. Objects of a cluster do not pass here, which saves memory."""
    text = annotations_text(metadata)
    return [replace(each, annotations=text) for each in found] if text else found


def _assemble(found: Iterable[Object]) -> model.ClusterState:
    """Sort objects by kind. If a Service has EndpointSlices, its legacy Endpoints object is ignored."""
    kinds: dict[type[Object], list[Any]] = defaultdict(list)
    for item in found:
        kinds[type(item)].append(item)
    return model.ClusterState(
        {service.name: service for service in kinds[model.Service]},
        _slices_by_service(kinds[model.EndpointSlice]),
        tuple(kinds[model.Pod]),
        {node.name: node for node in kinds[model.ClusterNode]},
        tuple(kinds[model.Ingress]),
        ingress_classes=tuple(kinds[model.IngressClass]),
        secrets={secret.name: secret for secret in kinds[model.Secret]},
        ended_pods=tuple(kinds[model.EndedPod]),
    )


def _slices_by_service(
    found: Iterable[model.EndpointSlice],
) -> dict[model.NamespacedName, tuple[model.EndpointSlice, ...]]:
    current: dict[model.NamespacedName, list[model.EndpointSlice]] = defaultdict(list)
    legacy: dict[model.NamespacedName, list[model.EndpointSlice]] = defaultdict(list)
    for each in found:
        (legacy if each.legacy else current)[each.service].append(each)
    return {name: tuple(members) for name, members in {**legacy, **current}.items()}


def gateway_objects(found: Iterable[Object]) -> GatewayObjects:
    """Sort the objects of the Gateway API by kind."""
    objects = GatewayObjects({}, {}, {}, {}, {}, {}, {}, {})
    for item in found:
        match item:
            case GatewayClass():
                objects.classes[item.name] = item
            case Gateway():
                objects.gateways[item.name] = item
            case Route():
                objects.routes[item.kind][item.name] = item
            case ReferenceGrant():
                objects.grants[item.name] = item
            case Namespace():
                objects.namespaces[item.name] = item
    return objects

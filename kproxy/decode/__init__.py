"""Kubernetes objects -> model. No other folder knows camelCase names and API versions.

    documents (here) -> objects.py: one object -> wire.py: types -> service.py, endpoints.py,
                        ingress.py: values
                     -> ClusterState (here)

An invalid object is ignored and reported as a `Problem`. It does not affect the others.
`Unreadable` lists the Services of which a part may be missing for this reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from kproxy.decode import wire
from kproxy.decode.fields import object_name, share
from kproxy.decode.objects import Object, UndecodableError, Unreadable, convert, decode_object, describe
from kproxy.model import ClusterNode, ClusterState, EndpointSlice, Ingress, NamespacedName, Pod, Service
from kproxy.problems import Problem

__all__ = ["Decoded", "Document", "Unreadable", "decode"]


class Document(NamedTuple):
    """One top-level object of the input: JSON text (`Raw`), or a value loaded from YAML."""

    source: str
    content: Any


class Decoded(NamedTuple):
    """The result of decoding documents."""

    state: ClusterState
    problems: list[Problem]
    unreadable: Unreadable
    ignored: Counter[str]
    """The number of objects of each kind that kproxy does not use."""


NO_TYPE = wire.TypeMeta()
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the manifest: as large as the object, and not shown by kubectl itself."""


def _items(content: Any) -> list[Any]:
    if isinstance(content, Raw):
        return list(msgspec.json.decode(content, type=wire.RawList).items or ())
    return msgspec.convert(content, wire.LoadedList).items or []


def _item_type(meta: wire.TypeMeta) -> wire.TypeMeta:
    kind = (meta.kind or "").removesuffix("List")
    return wire.TypeMeta(kind, meta.api_version) if kind else NO_TYPE


def decode(documents: Iterable[Document]) -> Decoded:
    """Decode all valid objects. Equal input in equal order gives equal output."""
    decoder = _Decoder()
    for document in documents:
        decoder.add(document)
    return Decoded(_assemble(decoder.objects), decoder.problems, decoder.unreadable, decoder.ignored)


class _Decoder:
    """Decodes documents one by one and collects the results."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.problems: list[Problem] = []
        self.unreadable = Unreadable()
        self.ignored: Counter[str] = Counter()
        self._seen: dict[tuple[str, NamespacedName], str] = {}

    def add(self, document: Document) -> None:
        """Decode an object or the items of a List. A List in itself (a YAML alias) is a problem."""
        try:
            self._add(document, NO_TYPE)
        except RecursionError:
            self._broken(document.source, "", "is nested too deeply or contains itself")

    def _add(self, document: Document, inherited: wire.TypeMeta) -> None:
        """Decode nested lists, too. Items of a typed list (ServiceList) inherit kind and apiVersion."""
        try:
            own = convert(document.content, wire.TypeMeta)
            meta = wire.TypeMeta(own.kind or inherited.kind, own.api_version or inherited.api_version)
            if meta.kind and meta.kind.endswith("List"):
                for item in _items(document.content):
                    self._add(Document(document.source, item), _item_type(meta))
            else:
                self._add_object(document, meta)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._broken(document.source, *describe(error))

    def _broken(self, source: str, path: str, message: str) -> None:
        """Report a document whose objects are unknown."""
        problem = Problem(source, "", path, message)
        self.unreadable.everything.append(problem)
        self.problems.append(problem)

    def _add_object(self, document: Document, meta: wire.TypeMeta) -> None:
        try:
            decoded = decode_object(document.source, meta, document.content)
        except UndecodableError as undecodable:
            self.unreadable.update(undecodable.unreadable)
            self.problems.append(undecodable.problem)
            return
        kind = meta.kind or ""
        if decoded is None:
            self.ignored[kind] += 1
            return
        metadata, found = decoded
        key = (kind, object_name(metadata))
        if key in self._seen:
            message = f"is a duplicate; the object in {self._seen[key]} is used"
            self.problems.append(Problem(document.source, f"{kind} {key[1]}", "metadata.name", message))
            return
        self._seen[key] = document.source
        self.objects += _annotated(metadata, found)


def _annotated(metadata: wire.Metadata, found: list[Object]) -> list[Object]:
    """Add the annotations, for views. Objects of a cluster do not pass here, which saves memory."""
    if not metadata.annotations:
        return found
    shown = {key: metadata.annotations[key] for key in sorted(metadata.annotations) if key != LAST_APPLIED}
    text = share(msgspec.json.encode(shown).decode()) if shown else ""
    return [replace(each, annotations=text) for each in found] if shown else found


def _assemble(found: Iterable[Object]) -> ClusterState:
    """Sort objects by kind. If a Service has EndpointSlices, its legacy Endpoints object is ignored."""
    services: dict[NamespacedName, Service] = {}
    current: dict[NamespacedName, list[EndpointSlice]] = defaultdict(list)
    legacy: dict[NamespacedName, list[EndpointSlice]] = defaultdict(list)
    pods: list[Pod] = []
    nodes: dict[str, ClusterNode] = {}
    ingresses: list[Ingress] = []
    for item in found:
        match item:
            case Service():
                services[item.name] = item
            case EndpointSlice():
                (legacy if item.legacy else current)[item.service].append(item)
            case Pod():
                pods.append(item)
            case ClusterNode():
                nodes[item.name] = item
            case Ingress():
                ingresses.append(item)
    slices = {name: tuple(members) for name, members in {**legacy, **current}.items()}
    return ClusterState(services, slices, tuple(pods), nodes, tuple(ingresses))

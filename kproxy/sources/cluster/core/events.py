"""Decodes the objects of lists and the events of watches to changes of single objects, within limits.

Each object is decoded separately. So an invalid object does not affect others, and only one of them is in
memory in another form than the model's.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from kproxy.decode import wire
from kproxy.decode.fields import FieldError, object_name
from kproxy.decode.objects import GatewayObject, UndecodableError, convert, decode_object
from kproxy.decode.text import Encoded
from kproxy.limits import (
    API_INVALID,
    API_OBJECT,
    API_OBJECTS,
    API_PAGES_WITHOUT_NEWS,
    API_TEXT,
    MIB,
)
from kproxy.model import ClusterNode, EndpointSlice, NamespacedName, Service, ServiceCIDR
from kproxy.problems import InvalidResponseError, LimitError, Problem
from kproxy.sources.cluster.core.resources import ApiResource

Content: TypeAlias = Raw | Encoded
"""An undecoded object: JSON or protobuf."""
Followed: TypeAlias = Service | EndpointSlice | ClusterNode | ServiceCIDR | GatewayObject
SOURCE = "cluster"
"""The name that origins and problems contain instead of a file's name."""
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
END_OF_LIST = "k8s.io/initial-events-end"
"""The annotation of the bookmark that ends a streamed list."""
ERROR = "ERROR"
"""The type of an event whose object is a Status."""
UNNAMED = NamespacedName("", "")
NAME = 253
"""The maximum length of a name in Kubernetes."""


class ObjectChange(NamedTuple):
    """The present state of one object, as the server sends it."""

    kind: str
    key: NamespacedName
    model: Followed | None
    """None: it was deleted, kproxy does not use it, or it cannot be decoded."""
    undecodable: UndecodableError | None = None
    trigger: str = ""
    """Of an EndpointSlice: the time of the event that caused the change (RFC 3339); "" if unknown."""
    version: str = ""
    """The object's resourceVersion; "" if it was deleted."""
    warnings: tuple[Problem, ...] = ()
    """Parts of the object that are not used, or read in another way."""
    size: int = 0
    """The length of the object's text in bytes; 0 if it was deleted."""


class Event(NamedTuple):
    """An event of a watch: a change, a bookmark, or a status that ends the watch."""

    version: str
    """The resourceVersion to resume after; "" in a status."""
    change: ObjectChange | None = None
    status: wire.Status | None = None
    ends_list: bool = False
    """Whether it is the bookmark that ends a streamed list."""


def event_of(resource: ApiResource, type_: str, content: Content) -> Event:
    """Decode an event of a watch. Raises InvalidResponseError."""
    try:
        if type_ == ERROR:
            return Event("", status=convert(content, wire.Status))
        if type_ == "BOOKMARK":
            marks = convert(content, wire.Bookmark).metadata
            ends_list = (marks.annotations or {}).get(END_OF_LIST) == "true"
            return Event(marks.resource_version or "", ends_list=ends_list)
        if type_ == "DELETED":
            identity = convert(content, wire.Identified).metadata
            return Event(identity.resource_version or "", ObjectChange(resource.kind, _key(identity), None))
        if type_ not in ("ADDED", "MODIFIED"):
            raise InvalidResponseError(f"unknown type of watch event: {type_!r}")
    except msgspec.DecodeError as error:
        raise InvalidResponseError(f"invalid watch event: {error}") from None
    change = change_of(resource, content)
    return Event(change.version, change)


def change_of(resource: ApiResource, content: Content) -> ObjectChange:
    """Decode an object."""
    kind, size = resource.kind, len(memoryview(content) if isinstance(content, Raw) else content.data)
    if size > API_OBJECT:
        return _too_long(resource, content)
    try:
        decoded = decode_object(SOURCE, wire.TypeMeta(kind, resource.api_version), content)
    except UndecodableError as undecodable:
        identity = _identity(content)
        version = identity.resource_version or ""
        return ObjectChange(kind, _key(identity), None, undecodable, version=version, size=size)
    assert decoded is not None  # `decode_object` knows the kinds of all resources
    metadata = decoded.metadata
    trigger = (metadata.annotations or {}).get(TRIGGER) or ""
    model = decoded.models[0] if decoded.models else None
    assert model is None or isinstance(model, Followed)
    key = model.name if isinstance(model, Service) else object_name(metadata)
    warnings = (*decoded.left_out, *decoded.warnings)
    return ObjectChange(kind, key, model, None, trigger, metadata.resource_version or "", warnings, size)


def _too_long(resource: ApiResource, content: Content) -> ObjectChange:
    key = _key(identity := _identity(content))
    named = {"metadata": {"namespace": key.namespace, "name": key.name}}
    error = FieldError("", f"is longer than {API_OBJECT // MIB} MiB")
    problem = UndecodableError(SOURCE, f"{resource.kind} {key}", resource.kind, named, error)
    version = (identity.resource_version or "")[:NAME]
    return ObjectChange(resource.kind, key, None, problem, version=version, size=API_OBJECT)


def _identity(content: Content) -> wire.Identity:
    try:
        return convert(content, wire.Identified).metadata
    except msgspec.DecodeError:
        return wire.Identity()


def _key(identity: wire.Identity) -> NamespacedName:
    """Return the name of an object that may be invalid; UNNAMED if it has no name, or a very long one."""
    namespace, name = identity.namespace or "default", identity.name or ""
    return NamespacedName(namespace, name) if 0 < len(name) <= NAME and len(namespace) <= NAME else UNNAMED


def decimal(text: str) -> int | None:
    """Return the number that a server sent as text; None if it is none, or too large for 64 bits."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


class Stock:
    """The sizes of the objects of a kind that the server has sent, so that it cannot fill the memory.

    A list that never ends and a watch that always adds objects look the same to the memory: there are too
    many objects, or their text is too long.
    """

    def __init__(self) -> None:
        self._sizes: dict[NamespacedName, int] = {}
        self._invalid: set[NamespacedName] = set()
        self._total = self._pages_without_news = self._unnamed = 0

    def names(self) -> set[NamespacedName]:
        """Return the names of the objects."""
        return set(self._sizes)

    def update(self, change: ObjectChange) -> None:
        """Count an object. Raises LimitError if there are too many, or they are too long together."""
        self._total += change.size - self._sizes.pop(change.key, 0)
        if change.size:
            self._sizes[change.key] = change.size
        self._count_invalid(change)
        if len(self._sizes) > API_OBJECTS:
            raise LimitError(f"there are more than {API_OBJECTS:,}")
        if self._total > API_TEXT:
            raise LimitError(f"together they are longer than {API_TEXT // MIB} MiB")

    def _count_invalid(self, change: ObjectChange) -> None:
        self._invalid.discard(change.key)
        if change.undecodable:
            self._invalid.add(change.key)
            self._unnamed += change.key == UNNAMED
        if len(self._invalid) + self._unnamed > API_INVALID:
            raise LimitError(f"more than {API_INVALID:,} are invalid")

    def end_page(self, before: int) -> None:
        """Count a page of a list, before which there were so many objects. Raises LimitError."""
        self._pages_without_news += len(self._sizes) == before
        if self._pages_without_news > API_PAGES_WITHOUT_NEWS:
            raise LimitError(f"the list has more than {API_PAGES_WITHOUT_NEWS} pages without a new object")

    def __len__(self) -> int:
        return len(self._sizes)

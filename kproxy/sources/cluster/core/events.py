"""What the API server sends -> changes of single objects.

A page of a list and a line of a watch are decoded object by object, from the bytes that came
to the model, so that one that is wrong costs only itself and nothing is held twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec import Raw

from kproxy.decode import wire
from kproxy.decode.endpointslices import HEADLESS_LABEL
from kproxy.decode.fields import object_name
from kproxy.decode.objects import UndecodableError, decode_object
from kproxy.decode.service import PROXY_NAME_LABEL
from kproxy.model import ClusterNode, EndpointSlice, NamespacedName, Service

SOURCE = "cluster"
"""What stands for a file's name in origins and problems."""
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
UNNAMED = NamespacedName("", "")
LONGEST_LINE = 32 << 20
"""Bytes; etcd holds objects of up to 1.5 MiB, so that what is longer is no event."""


class ApiResource(NamedTuple):
    """A kind, where the API serves it, and which of its objects are asked for."""

    kind: str
    api_version: str
    path: str
    selector: dict[str, str]

    def alone(self, key: NamespacedName) -> tuple[str, dict[str, str]]:
        """Path and query of a list of one object at most, the one of this name."""
        if "fieldSelector" in self.selector:
            return self.path, self.selector
        group, _, plural = self.path.rpartition("/")
        path = f"{group}/namespaces/{key.namespace}/{plural}"
        return path, {**self.selector, "fieldSelector": f"metadata.name={key.name}"}


SERVICES = ApiResource("Service", "v1", "/api/v1/services", {"labelSelector": f"!{PROXY_NAME_LABEL}"})
SLICES = ApiResource(
    "EndpointSlice",
    "discovery.k8s.io/v1",
    "/apis/discovery.k8s.io/v1/endpointslices",
    {"labelSelector": f"!{HEADLESS_LABEL}"},
)


def node_resource(name: str) -> ApiResource:
    """The Node of one name."""
    return ApiResource("Node", "v1", "/api/v1/nodes", {"fieldSelector": f"metadata.name={name}"})


class ObjectChange(NamedTuple):
    """What the server says of one object."""

    kind: str
    key: NamespacedName
    model: Service | EndpointSlice | ClusterNode | None
    """None: it is gone, of no use to kproxy, or cannot be decoded."""
    undecodable: UndecodableError | None = None
    trigger: str = ""
    """EndpointSlices: when what they follow from happened (RFC 3339), "" if it does not say."""
    version: str = ""
    """The resourceVersion of the object as it is now; "" if it is gone."""


class Event(NamedTuple):
    """One line of a watch: a change, or a bookmark, or an end with a status."""

    version: str
    """The resourceVersion to resume after; "" in a status."""
    change: ObjectChange | None = None
    status: wire.Status | None = None


class GarbageError(ValueError):
    """What came is not what the API sends: cut off, or from something else that answers there."""


def read_page(resource: ApiResource, body: bytes) -> tuple[wire.ListMeta, list[ObjectChange]]:
    """One page of a list. Raises GarbageError."""
    try:
        page = msgspec.json.decode(body, type=wire.Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError(f"an answer that is no list: {error}") from None
    return page.metadata, [_change(resource, item) for item in page.items or ()]


def read_line(resource: ApiResource, line: bytes) -> Event:
    """One line of a watch. Raises GarbageError."""
    try:
        given = msgspec.json.decode(line, type=wire.WatchEvent)
        if given.type == "ERROR":
            return Event("", status=msgspec.json.decode(given.object, type=wire.Status))
        if given.type in ("BOOKMARK", "DELETED"):
            identity = msgspec.json.decode(given.object, type=wire.Identified).metadata
            gone = ObjectChange(resource.kind, _key(identity), None) if given.type == "DELETED" else None
            return Event(identity.resource_version or "", gone)
        if given.type not in ("ADDED", "MODIFIED"):
            raise GarbageError(f"an event of type {given.type!r}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError(f"a line that is no event: {error}") from None
    change = _change(resource, given.object)
    return Event(change.version, change)


def read_status(body: bytes) -> wire.Status:
    """What an answer other than 200 says; nothing, if it is not the API server's."""
    try:
        return msgspec.json.decode(body, type=wire.Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return wire.Status()


def _change(resource: ApiResource, text: Raw) -> ObjectChange:
    """An object as it is now."""
    kind = resource.kind
    try:
        decoded = decode_object(SOURCE, wire.TypeMeta(kind, resource.api_version), text)
    except UndecodableError as undecodable:
        identity = _identity(text)
        version = identity.resource_version or ""
        return ObjectChange(kind, _key(identity), None, undecodable, version=version)
    assert decoded is not None  # the kinds of resources are known ones
    metadata, models = decoded
    trigger = (metadata.annotations or {}).get(TRIGGER, "")
    model = models[0] if models else None
    assert model is None or isinstance(model, Service | EndpointSlice | ClusterNode)
    key = model.name if isinstance(model, Service) else object_name(metadata)
    return ObjectChange(kind, key, model, None, trigger, metadata.resource_version or "")


def _identity(text: Raw) -> wire.Identity:
    try:
        return msgspec.json.decode(text, type=wire.Identified).metadata
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return wire.Identity()


def _key(identity: wire.Identity) -> NamespacedName:
    """The name of an object that may be wrong in any way, UNNAMED if it has none."""
    return NamespacedName(identity.namespace or "default", identity.name) if identity.name else UNNAMED


class Lines:
    """Bytes as they arrive -> lines; what is behind the last line end waits for the rest."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that `data` completes, without empty ones. Raises GarbageError."""
        self._rest += data
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            yield from (line for line in lines if line.strip())
        if len(self._rest) > LONGEST_LINE:
            raise GarbageError(f"a line of more than {LONGEST_LINE} bytes")

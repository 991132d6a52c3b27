"""The formats in which an API server sends objects: how to request and how to read them.

kproxy requests protobuf for the kinds that have it, as kube-proxy does: to encode it costs the server about
half as much CPU time as JSON. A server may respond with either. Custom resources, such as those of the
Gateway API, exist only in JSON.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec
from msgspec import Raw

from kproxy.decode import wire
from kproxy.decode.kinds import LIST
from kproxy.decode.text import from_json
from kproxy.limits import API_OBJECT, API_VALUES, MIB
from kproxy.problems import InvalidResponseError, LimitError
from kproxy.sources.cluster.core.events import ERROR, NAME, Content, Event, ObjectChange, change_of, event_of
from kproxy.sources.cluster.core.resources import ApiResource

JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
EVENT_OVERHEAD = 1 << 10
"""More bytes than a watch has around the object of an event."""
LENGTH = 4
"""The bytes before an event in protobuf, which contain its length."""

BEGIN = 200
"""The bytes at the begin of an event in JSON in which kind and version of the object usually are."""

Page = tuple[wire.ListMeta, Iterator[ObjectChange]]
"""The metadata of a list, and its objects, which are decoded as the iterator advances."""


class Splitter(ABC):
    """Splits received bytes into events. An incomplete one at the end waits for its rest."""

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the events that `data` completes. Raises LimitError."""


class Format(ABC):
    """Reads the responses of one format. What the formats have in common is here."""

    item: bytes
    """The byte between items, or before them. Other bytes of a page may have this value, too."""

    @abstractmethod
    def splitter(self) -> Splitter:
        """Return a splitter for a watch."""

    def read_event(self, resource: ApiResource, data: bytes) -> Event:
        """Decode an event. Raises InvalidResponseError."""
        try:
            type_, content = self._event(data, resource)
        except msgspec.DecodeError as error:
            raise InvalidResponseError(f"invalid watch event: {error}") from None
        return event_of(resource, type_, content)

    def read_page(self, resource: ApiResource, body: bytes | bytearray) -> Page:
        """Decode a page of a list. Raises InvalidResponseError and LimitError, before objects are decoded."""
        if body.count(self.item) > API_VALUES:
            raise LimitError(f"the response has more than {API_VALUES:,} values")
        try:
            metadata, items = self._page(body, resource)
        except msgspec.DecodeError as error:
            raise InvalidResponseError(f"the response is not a list: {error}") from None
        return metadata, (change_of(resource, item) for item in items)

    def read_status(self, body: bytes) -> wire.Status:
        """Decode the body of an error response. Returns an empty status if it is none of the API server."""
        try:
            return self._status(body)
        except msgspec.DecodeError:
            return wire.Status()

    # Each of these raises msgspec.DecodeError, and InvalidResponseError if the objects are of another kind.

    @abstractmethod
    def _event(self, data: bytes, resource: ApiResource) -> tuple[str, Content]:
        """Return the type and the object of an event."""

    @abstractmethod
    def _page(
        self, body: bytes | bytearray, resource: ApiResource
    ) -> tuple[wire.ListMeta, Iterable[Content]]:
        """Return the metadata and the items of a list."""

    @abstractmethod
    def _status(self, body: bytes) -> wire.Status: ...


class Json(Format):
    """JSON; a watch has one event per line."""

    item = b","

    def splitter(self) -> Splitter:
        return Lines()

    def _event(self, data: bytes, resource: ApiResource) -> tuple[str, Content]:
        event = from_json(data, wire.WatchEvent)
        of_builtin, of_custom = _begins(resource.kind, resource.api_version)
        if data.find(of_builtin, 0, BEGIN) < 0 and data.find(of_custom, 0, BEGIN) < 0 and event.type != ERROR:
            _require(resource.kind, resource.api_version, _type_of(event.object))
        return event.type, event.object

    def _page(
        self, body: bytes | bytearray, resource: ApiResource
    ) -> tuple[wire.ListMeta, Iterable[Content]]:
        page = from_json(body, wire.Page)
        _require(f"{resource.kind}{LIST}", resource.api_version, page)
        return page.metadata, page.items or ()

    def _status(self, body: bytes) -> wire.Status:
        return from_json(body, wire.Status)


class ProtobufFormat(Format):
    """Kubernetes' protobuf; in a watch, the length of an event comes before it."""

    item = b"\x12"

    def __init__(self) -> None:
        from kproxy.decode import protobuf  # not at the top: the library takes 10 ms to import

        self._decode = protobuf

    def splitter(self) -> Splitter:
        return Frames()

    def _event(self, data: bytes, resource: ApiResource) -> tuple[str, Content]:
        type_, around = self._decode.event(data)
        if type_ != ERROR:
            self._check(resource.kind, resource.api_version, around)
        return type_, self._decode.opened(around)

    def _page(
        self, body: bytes | bytearray, resource: ApiResource
    ) -> tuple[wire.ListMeta, Iterable[Content]]:
        self._check(f"{resource.kind}{LIST}", resource.api_version, body)
        return self._decode.page(body)

    def _check(self, kind: str, version: str, data: bytes | bytearray) -> None:
        """Raise InvalidResponseError if data are of another kind. Usually their first bytes tell."""
        if not data.startswith(self._decode.begin_of(kind, version)):
            _require(kind, version, self._decode.type_of(data))

    def _status(self, body: bytes) -> wire.Status:
        return self._decode.opened(body).convert(wire.Status)


@lru_cache(None)
def _begins(kind: str, version: str) -> tuple[bytes, bytes]:
    """Return how the object of an event begins: one of a built-in kind, and a custom resource."""
    kind, version = f'"kind":"{kind}"', f'"apiVersion":"{version}"'
    return f'"object":{{{kind},{version}'.encode(), f'"object":{{{version},{kind}'.encode()


def _type_of(content: Raw) -> wire.TypeMeta:
    """Return what an object is. Of an invalid one it is unknown, and a problem later."""
    try:
        return from_json(content, wire.TypeMeta)
    except msgspec.DecodeError:
        return wire.TypeMeta()


def _require(kind: str, version: str, found: wire.TypeMeta) -> None:
    """Raise InvalidResponseError if something is of another kind or version. Either may be absent."""
    if found.kind in (None, "", kind) and found.api_version in (None, "", version):
        return
    other, of = (found.kind or kind)[:NAME], (found.api_version or version)[:NAME]
    raise InvalidResponseError(f"expected {kind} of {version}, got {other} of {of}")


def check_length(size: int) -> None:
    """Raise LimitError if an event of a watch has too many bytes."""
    if size > API_OBJECT + EVENT_OVERHEAD:
        raise LimitError(f"a watch event is longer than {API_OBJECT // MIB} MiB")


class Lines(Splitter):
    """Splits received bytes into lines. An incomplete line at the end waits for its rest."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the lines that `data` completes, without empty ones."""
        self._rest += data
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            yield from (line for line in lines if line.strip())
        check_length(len(self._rest))


class Frames(Splitter):
    """Splits a watch into events. Before each there are four bytes with its length."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the events that `data` completes."""
        self._rest += data
        begin = 0
        while len(self._rest) >= begin + LENGTH:
            end = begin + LENGTH + int.from_bytes(self._rest[begin : begin + LENGTH], "big")
            check_length(end - begin - LENGTH)
            if end > len(self._rest):
                break
            yield bytes(self._rest[begin + LENGTH : end])
            begin = end
        del self._rest[:begin]


def accepted(resource: ApiResource, wanted: str) -> str:
    """Return the value of the header Accept, if `wanted` is the format to request."""
    return f"{PROTOBUF},{JSON}" if wanted == PROTOBUF and resource.has_protobuf else JSON


def format_of(content_type: str | None) -> Format:
    """Return the format of a response from its header Content-Type. Any other type is read as JSON."""
    if (content_type or "").partition(";")[0].strip().lower() != PROTOBUF:
        return Json()
    return ProtobufFormat()

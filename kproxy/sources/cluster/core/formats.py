"""The formats in which an API server sends objects: how to request and how to read them.

kproxy requests protobuf for the kinds that have it, as kube-proxy does: to encode it costs the server about
half as much CPU time as JSON. A server may respond with either. Custom resources, such as those of the
Gateway API, exist only in JSON.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import msgspec

from kproxy.decode import wire
from kproxy.decode.text import from_json
from kproxy.limits import API_OBJECT, API_VALUES, MIB
from kproxy.problems import InvalidResponseError, LimitError
from kproxy.sources.cluster.core.events import ApiResource, Event, ObjectChange, change_of, event_of

JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
EVENT_OVERHEAD = 1 << 10
"""More bytes than a watch has around the object of an event."""

Page = tuple[wire.ListMeta, Iterator[ObjectChange]]
"""The metadata of a list, and its objects, which are decoded as the iterator advances."""


class Splitter(ABC):
    """Splits received bytes into events. An incomplete one at the end waits for its rest."""

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the events that `data` completes. Raises LimitError."""


class Format(ABC):
    """Reads the responses of one format. Each method raises InvalidResponseError or LimitError."""

    @abstractmethod
    def splitter(self) -> Splitter:
        """Return a splitter for a watch."""

    @abstractmethod
    def read_event(self, resource: ApiResource, data: bytes) -> Event:
        """Decode an event."""

    @abstractmethod
    def read_page(self, resource: ApiResource, body: bytes | bytearray) -> Page:
        """Decode a page of a list."""

    @abstractmethod
    def read_status(self, body: bytes) -> wire.Status:
        """Decode the body of an error response. Returns an empty status if it is none of the API server."""


class Json(Format):
    """JSON; a watch has one event per line."""

    def splitter(self) -> Splitter:
        return Lines()

    def read_event(self, resource: ApiResource, data: bytes) -> Event:
        try:
            event = from_json(data, wire.WatchEvent)
        except msgspec.DecodeError as error:
            raise InvalidResponseError(f"invalid watch event: {error}") from None
        return event_of(resource, event.type, event.object)

    def read_page(self, resource: ApiResource, body: bytes | bytearray) -> Page:
        if body.count(b",") > API_VALUES:
            raise LimitError(f"the response has more than {API_VALUES:,} values")
        try:
            page = from_json(body, wire.Page)
        except msgspec.DecodeError as error:
            raise InvalidResponseError(f"the response is not a list: {error}") from None
        return page.metadata, (change_of(resource, item) for item in page.items or ())

    def read_status(self, body: bytes) -> wire.Status:
        try:
            return from_json(body, wire.Status)
        except msgspec.DecodeError:
            return wire.Status()


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
        if len(self._rest) > API_OBJECT + EVENT_OVERHEAD:
            raise LimitError(f"a watch event is longer than {API_OBJECT // MIB} MiB")


def accepted(resource: ApiResource, wanted: str) -> str:
    """Return the value of the header Accept, if `wanted` is the format to request."""
    return f"{PROTOBUF},{JSON}" if wanted == PROTOBUF and resource.has_protobuf else JSON


def format_of(content_type: str | None) -> Format:
    """Return the format of a response from its header Content-Type. Any other type is read as JSON."""
    if (content_type or "").partition(";")[0].strip().lower() != PROTOBUF:
        return Json()
    from kproxy.sources.cluster.core.protobuf import ProtobufFormat  # the library takes 10 ms to import

    return ProtobufFormat()

"""Reads the responses of an API server in protobuf."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kproxy.decode import wire
from kproxy.decode.protobuf import event, opened, page
from kproxy.limits import API_OBJECT, API_VALUES, MIB
from kproxy.problems import InvalidResponseError, LimitError
from kproxy.sources.cluster.core.events import ApiResource, Event, change_of, event_of
from kproxy.sources.cluster.core.formats import EVENT_OVERHEAD, Format, Page, Splitter

LENGTH = 4
"""The bytes before an event, which contain its length."""
ITEM = b"\x12"
"""The byte before each item of a list. Other bytes have this value, too."""


class ProtobufFormat(Format):
    """Kubernetes' protobuf; in a watch, the length of an event comes before it."""

    def splitter(self) -> Splitter:
        return Frames()

    def read_event(self, resource: ApiResource, data: bytes) -> Event:
        try:
            type_, content = event(data)
        except msgspec.DecodeError as error:
            raise InvalidResponseError(f"invalid watch event: {error}") from None
        return event_of(resource, type_, content)

    def read_page(self, resource: ApiResource, body: bytes | bytearray) -> Page:
        if body.count(ITEM) > API_VALUES:
            raise LimitError(f"the response has more than {API_VALUES:,} values")
        try:
            metadata, items = page(body)
        except msgspec.DecodeError as error:
            raise InvalidResponseError(f"the response is not a list: {error}") from None
        return metadata, (change_of(resource, item) for item in items)

    def read_status(self, body: bytes) -> wire.Status:
        try:
            return opened(body).convert(wire.Status)
        except msgspec.DecodeError:
            return wire.Status()


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
            if end - begin > LENGTH + API_OBJECT + EVENT_OVERHEAD:
                raise LimitError(f"a watch event is longer than {API_OBJECT // MIB} MiB")
            if end > len(self._rest):
                break
            yield bytes(self._rest[begin + LENGTH : end])
            begin = end
        del self._rest[:begin]

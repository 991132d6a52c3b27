"""Reads the responses of an API server in protobuf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kproxy.decode import wire
from kproxy.decode.protobuf import event, opened, page
from kproxy.sources.cluster.core.events import Content
from kproxy.sources.cluster.core.formats import Format, Splitter, check_length

LENGTH = 4
"""The bytes before an event, which contain its length."""


class ProtobufFormat(Format):
    """Kubernetes' protobuf; in a watch, the length of an event comes before it."""

    item = b"\x12"

    def splitter(self) -> Splitter:
        return Frames()

    def _event(self, data: bytes) -> tuple[str, Content]:
        return event(data)

    def _page(self, body: bytes | bytearray) -> tuple[wire.ListMeta, Iterable[Content]]:
        return page(body)

    def _status(self, body: bytes) -> wire.Status:
        return opened(body).convert(wire.Status)


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

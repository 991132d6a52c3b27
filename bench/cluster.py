"""`python -m bench.cluster [SERVICES]`: the cost of receiving the objects of a cluster.

It decodes and caches pages of a list and events of a watch, as an API server sends them, without a network.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any, NamedTuple

import msgspec

from bench.manifests import manifests
from bench.process import memory_of
from bench.samples import samples
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.formats import Format, Json, ProtobufFormat
from kproxy.sources.cluster.core.resources import SERVICES, SLICES, ApiResource
from tests.apiserver import protobuf

PAGE = 500


class Sent(NamedTuple):
    """What a server sends in one format."""

    name: str
    form: Format
    pages: list[bytes]
    """Responses to requests for lists."""
    events: list[bytes]
    """Events of a watch, one for each object."""


def in_both_formats(resource: ApiResource, items: list[Any]) -> tuple[Sent, Sent]:
    """Return the same objects as JSON and as protobuf."""
    about = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    without = [{name: item[name] for name in item if name not in ("kind", "apiVersion")} for item in items]
    parts = (without[start : start + PAGE] for start in range(0, len(items), PAGE))
    pages = [
        msgspec.json.encode({**about, "metadata": {"resourceVersion": "9"}, "items": part}) for part in parts
    ]
    lines = [msgspec.json.encode({"type": "MODIFIED", "object": item}) for item in items]
    frames = [protobuf.event(line)[4:] for line in lines]
    return (
        Sent("JSON", Json(), pages, lines),
        Sent("protobuf", ProtobufFormat(), [protobuf.response(page) for page in pages], frames),
    )


def main() -> None:
    """Print a line for each kind and format."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    found: dict[str, list[Any]] = {SERVICES.kind: [], SLICES.kind: []}
    for item in manifests(samples(count))["items"]:
        found[item["kind"]].append(item)
    for resource in (SERVICES, SLICES):
        for sent in in_both_formats(resource, found[resource.kind]):
            measure(resource, sent)


def measure(resource: ApiResource, sent: Sent) -> None:
    """Print what it costs to receive a list, and then each event."""
    cache = Cache()
    gc.collect()
    before, begun = memory_of(), time.process_time()
    for page in sent.pages:
        for change in sent.form.read_page(resource, page)[1]:
            cache.apply(change)
    seconds, size = time.process_time() - begun, sum(map(len, sent.pages)) / 1e6
    grown = (memory_of() - before) / 1e6
    print(
        f"{len(sent.events)} {resource.kind}s, {size:.0f} MB of {sent.name}: {seconds:.2f} s of CPU, "
        f"{grown:.0f} MB; {watch(resource, sent, cache):.0f} µs for each event of a watch"
    )


def watch(resource: ApiResource, sent: Sent, cache: Cache) -> float:
    """Return the CPU time for each event, in microseconds."""
    begun = time.process_time()
    for data in sent.events:
        event = sent.form.read_event(resource, data)
        assert event.change is not None
        cache.apply(event.change)
    return (time.process_time() - begun) / len(sent.events) * 1e6


if __name__ == "__main__":
    main()

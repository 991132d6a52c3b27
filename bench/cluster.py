"""`python -m bench.cluster [SERVICES]`: the cost of receiving the objects of a cluster.

It decodes and caches pages of a list and lines of a watch, as an API server sends them, without a network.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.manifests import manifests
from bench.samples import samples
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import SERVICES, SLICES, ApiResource
from kproxy.sources.cluster.core.formats import Json

PAGE = 500


def pages(items: list[Any]) -> list[bytes]:
    """Return answers to list requests."""
    parts = (items[start : start + PAGE] for start in range(0, len(items), PAGE))
    return [msgspec.json.encode({"metadata": {"resourceVersion": "9"}, "items": part}) for part in parts]


def lines(items: list[Any]) -> Iterator[bytes]:
    """Yield events of a watch, one for each object."""
    return (msgspec.json.encode({"type": "MODIFIED", "object": item}) for item in items)


def resident() -> float:
    """Return the resident memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    """Print a line for each kind."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    found: dict[str, list[Any]] = {SERVICES.kind: [], SLICES.kind: []}
    for item in manifests(samples(count))["items"]:
        found[item["kind"]].append(item)
    cache = Cache()
    for resource in (SERVICES, SLICES):
        listed, watched = pages(found[resource.kind]), list(lines(found[resource.kind]))
        gc.collect()
        before, begun = resident(), time.process_time()
        for body in listed:
            for change in Json().read_page(resource, body)[1]:
                cache.apply(change)
        seconds, size = time.process_time() - begun, sum(map(len, listed)) / 1e6
        print(
            f"{len(watched)} {resource.kind}s, {size:.0f} MB of JSON: {seconds:.2f} s of CPU, "
            f"{resident() - before:.0f} MB; {watch(resource, watched, cache):.0f} µs for each line of a watch"
        )


def watch(resource: ApiResource, watched: list[bytes], cache: Cache) -> float:
    """Return the CPU time for each line, in microseconds."""
    begun = time.process_time()
    for line in watched:
        change = Json().read_event(resource, line).change
        assert change is not None
        cache.apply(change)
    return (time.process_time() - begun) / len(watched) * 1e6


if __name__ == "__main__":
    main()

"""`python -m bench.objects`: what the most costly objects of an API server cost, for docs/security.md.

While an object is decoded, the event loop does nothing else. Each object is decoded in a process of its own,
whose memory is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from bench.process import memory_of, peak_of
from kproxy.limits import API_OBJECT, MIB, OBJECT_ITEMS
from kproxy.sources.cluster.core.events import Content, change_of
from tests.large_objects import LARGE, Large

CLEAR_PEAK = b"5"
"""What resets the peak of a process (proc(5), clear_refs)."""


class Cost(NamedTuple):
    """What an object costs: CPU seconds, and MiB at the peak."""

    seconds: float
    memory: float


def size(content: Content) -> int:
    """Return the bytes of an object."""
    return len(memoryview(content) if not hasattr(content, "data") else content.data)


def largest(make: Callable[[int], Content]) -> int:
    """Return with how many items an object has as many bytes as allowed."""
    each = (size(make(200_000)) - size(make(100_000))) / 100_000
    return int(API_OBJECT / each * 0.98)


def measured(large: Large, content: Content) -> Cost:
    """Decode an object in this process."""
    change_of(large.resource, large.json(1))
    if large.resource.has_protobuf:
        change_of(large.resource, large.protobuf(1))
    Path("/proc/self/clear_refs").write_bytes(CLEAR_PEAK)
    before, begun = memory_of(), time.process_time()
    change_of(large.resource, content)
    return Cost(time.process_time() - begun, (peak_of() - before) / MIB)


def costs() -> Iterator[tuple[str, str, Cost]]:
    """Yield kind, format and cost of each object: with as many items as allowed, and with as many bytes."""
    for large in LARGE:
        formats = {
            "JSON": large.json,
            **({"protobuf": large.protobuf} if large.resource.has_protobuf else {}),
        }
        for name, make in formats.items():
            for items in (OBJECT_ITEMS, largest(make)):
                with get_context("fork").Pool(1) as pool:
                    yield large.kind, name, pool.apply(measured_with, (LARGE.index(large), name, items))


def measured_with(index: int, form: str, items: int) -> Cost:
    """Make an object, and decode it."""
    large = LARGE[index]
    return measured(large, large.json(items) if form == "JSON" else large.protobuf(items))


def main() -> None:
    """Print the highest costs of each kind."""
    worst: dict[tuple[str, str], Cost] = {}
    for kind, form, cost in costs():
        before = worst.get((kind, form), Cost(0, 0))
        worst[kind, form] = Cost(max(cost.seconds, before.seconds), max(cost.memory, before.memory))
    print(f"Objects of {API_OBJECT // MIB} MiB, or with {OBJECT_ITEMS:,} items, on {os.cpu_count()} CPUs:\n")
    print("| kind | format | CPU time | memory |\n|---|---|---|---|")
    for (kind, form), cost in worst.items():
        print(f"| {kind} | {form} | {cost.seconds:.2f} s | {cost.memory:.0f} MiB |")


if __name__ == "__main__":
    main()

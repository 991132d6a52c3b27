"""`python -m bench.files`: what a changed file costs among many Services.

It is the CPU time of `FollowedManifests.take`: reading, decoding, allocating and selecting. The tables and
the names are not part of it. Each Service has a Pod or an EndpointSlice, whose address changes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from statistics import median
from typing import Any

from bench.arguments import Arguments
from bench.manifests import as_yaml
from kproxy.controlplane.ranges import Ranges
from kproxy.model import Node, Pod
from kproxy.probes.core.readiness import ProbeResult
from kproxy.sources.followed import FollowedManifests
from kproxy.state.store import ReadOnlyStore

RANGES = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
CHANGES = 12
CHANGED = 5
"""The number of the Service that changes."""
Parts = Callable[[int, int], list[Any]]
"""Returns objects of a Service, by its number and the number of changes."""
Form = Callable[[Parts, int, int], Iterator[tuple[str, str]]]
"""Returns names of files and their contents, by the amount of Services and the number of changes."""


def with_slice(number: int, version: int) -> list[Any]:
    """Return a Service and its EndpointSlice."""
    metadata = {"name": f"web-{number}", "labels": {"kubernetes.io/service-name": f"web-{number}"}}
    ports, endpoints = [{"name": "http", "port": 8080}], [{"addresses": [_address(number, version)]}]
    found = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    return [_service(number), {**found, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}]


def with_pod(number: int, version: int) -> list[Any]:
    """Return a Service and its Pod."""
    metadata = {"name": f"web-{number}", "labels": {"app": f"web-{number}"}}
    status = {"podIP": _address(number, version), "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": "web"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    return [_service(number), pod]


def _service(number: int) -> Any:
    metadata = {"name": f"web-{number}"}
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    address = f"10.96.{1 + number // 250}.{1 + number % 250}"
    spec = {"selector": {"app": f"web-{number}"}, "clusterIP": address, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _address(number: int, version: int) -> str:
    return f"10.{100 + version}.{number // 250}.{1 + number % 250}"


def files(parts: Parts, count: int, version: int) -> Iterator[tuple[str, str]]:
    """Yield a file for each Service; of a later version, only the changed file."""
    for number in range(count) if not version else [CHANGED]:
        yield f"{number}.yaml", _yaml(parts, number, version)


def one_file(parts: Parts, count: int, version: int) -> Iterator[tuple[str, str]]:
    """Yield a file of YAML documents."""
    numbers = ((number, version if number == CHANGED else 0) for number in range(count))
    yield "all.yaml", "---\n".join(_yaml(parts, *each) for each in numbers)


@cache
def _yaml(parts: Parts, number: int, version: int) -> str:
    return "---\n".join(map(as_yaml, parts(number, version)))


def one_list(parts: Parts, count: int, version: int) -> Iterator[tuple[str, str]]:
    """Yield a file with a List, as JSON."""
    numbers = ((number, version if number == CHANGED else 0) for number in range(count))
    items = [part for each in numbers for part in parts(*each)]
    yield "all.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _write(folder: Path, contents: Iterator[tuple[str, str]]) -> frozenset[Path]:
    written = {folder / name: text for name, text in contents}
    for path, text in written.items():
        path.with_name(".new").write_text(text)
        path.with_name(".new").rename(path)
    return frozenset(written)


class _NoCommands:
    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> ProbeResult:
        raise NotImplementedError


async def measure(form: Form, parts: Parts, count: int) -> str:
    """Return a row: the CPU time of the first `take`, and of those after changes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = ReadOnlyStore(folder / "state")
        source = FollowedManifests([name], store, RANGES, lambda _: Node("n1"), _NoCommands())
        first, *changes = [
            await _take(source, folder, form(parts, count, version)) for version in range(CHANGES + 1)
        ]
    cells = (f"{1000 * each:.1f} ms" for each in (changes[0], median(changes[1:]), max(changes[1:])))
    form_name, what = form.__name__.replace("_", " "), parts.__name__.removeprefix("with_")
    return f"| {form_name} | {what} | {first:.2f} s | {' | '.join(cells)} |"


async def _take(source: FollowedManifests, folder: Path, contents: Iterator[tuple[str, str]]) -> float:
    """Write files, and return the CPU time to take them."""
    named = _write(folder, contents)
    source.changed(named)
    begun = time.process_time()
    await source.take()
    return time.process_time() - begun


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.files", __doc__)
    parser.number("--services", 10_000)
    count = parser.parse_args().services
    print("| in | changed | first read | first change | other changes (p50) | slowest |")
    print("|---|---|---|---|---|---|")
    for form in (files, one_file, one_list):
        for parts in (with_slice, with_pod):
            print(asyncio.run(measure(form, parts, count)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

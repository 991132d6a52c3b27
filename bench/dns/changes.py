"""Replaces an endpoint of a headless Service again and again, while another process asks for it.

The time of a replacement begins when its file is renamed, and ends with the first answer that has the new
endpoint. It contains what `kproxy run` does with a changed file: it waits until the files are quiet,
reads the file, and settles what changed. The cost of the names alone is measured here (`in_memory`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from bench.dns.asker import NAMES, Counts
from kproxy.decode import Document, decode
from kproxy.dns.core.respond import respond
from kproxy.dns.core.zone import Zone
from kproxy.model import EndpointSlice, NamespacedName, parse_address

SLICE = 100
"""Endpoints in a slice."""
RATE = 10_000
"""Questions in a second."""
DB = NamespacedName("default", "db")


class Changes(NamedTuple):
    """The result of replacing an endpoint."""

    of: str
    """`file` or `memory`."""
    services: int
    endpoints: int
    seconds: list[float]
    """Until the first answer, for each replacement."""
    counts: Counts

    @property
    def percentiles(self) -> tuple[float, float]:
        """The 50th and the 99th percentile, in milliseconds."""
        cuts = quantiles(self.seconds, n=100, method="inclusive")
        return cuts[49] * 1000, cuts[98] * 1000


def headless(endpoints: int, number: int) -> list[dict[str, Any]]:
    """Return the Service `db` with its slices. The first endpoint is `db-0`, whose address has a number."""
    addresses = [
        numbered(number),
        *(f"10.199.{place // SLICE}.{place % SLICE}" for place in range(1, endpoints)),
    ]
    found = [{"addresses": [address]} for address in addresses]
    found[0]["hostname"] = "db-0"  # type: ignore[assignment]
    slices = (found[start : start + SLICE] for start in range(0, endpoints, SLICE))
    spec = {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": spec},
        *(_slice(place, each) for place, each in enumerate(slices)),
    ]


def numbered(number: int) -> str:
    """Return the address of the endpoint after so many replacements."""
    return f"10.200.{number >> 8}.{number & 255}"


def _slice(place: int, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"db-{place}", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "ports": [{"name": "sql", "port": 5432}],
        "endpoints": endpoints,
    }


def _list(endpoints: int, number: int) -> bytes:
    return msgspec.json.encode({"kind": "List", "apiVersion": "v1", "items": headless(endpoints, number)})


def write(folder: Path, endpoints: int, number: int) -> float:
    """Write the file of the Service, or replace it. Returns the time of that."""
    new = folder / ".db"
    new.write_bytes(_list(endpoints, number))
    begun = time.monotonic()
    new.rename(folder / "db.json")
    return begun


def replacing(folder: Path, port: int, endpoints: int, count: int) -> tuple[list[float], Counts]:
    """Replace the endpoint in a folder that a server follows. Returns the seconds of each, and the counts."""
    command = [sys.executable, "-m", "bench.dns.asker", str(port), str(RATE)]
    seconds = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdin
        assert asker.stdout
        assert asker.stdout.readline().split()[0] == "0"
        for number in range(1, count + 1):
            begun = write(folder, endpoints, number)
            seen, when = asker.stdout.readline().split()
            assert int(seen) == number
            seconds.append(float(when) - begun)
        asker.stdin.close()
        counts = msgspec.convert(json.loads(asker.stdout.read()), Counts)
    return seconds, counts


def in_memory(manifests: str, endpoints: int, count: int) -> Changes:
    """Replace an endpoint in a zone. The time begins with the new slice, and ends with the answer."""
    found = decode([Document("services", msgspec.Raw(manifests.encode()))]).state
    zone = Zone("cluster.local")
    for name, service in found.services.items():
        zone.update(name, service)
    of_db = decode([Document("db", msgspec.Raw(_list(endpoints, 0)))]).state
    service, slices = of_db.services[DB], of_db.slices[DB]
    zone.update(DB, service, slices)
    seconds, counts = [], Counts()
    for number, changed in enumerate(_replaced(slices, count), 1):
        begun = time.monotonic()
        zone.update(DB, service, changed)
        replies = [respond(zone, b"\0\0\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1") for name in NAMES]
        seconds.append(time.monotonic() - begun)
        counts.asked += len(replies)
        counts.answered += len(replies)
        counts.slowest = max(counts.slowest, seconds[-1])
        counts.wrong += not (isinstance(replies[1], bytes) and replies[1].endswith(number.to_bytes(2, "big")))
    return Changes("memory", len(found.services), endpoints, seconds, counts)


def _replaced(slices: tuple[EndpointSlice, ...], count: int) -> Iterator[tuple[EndpointSlice, ...]]:
    first, *others = slices
    for number in range(1, count + 1):
        endpoint = replace(first.endpoints[0], address=parse_address(numbered(number)))
        yield replace(first, endpoints=(endpoint, *first.endpoints[1:])), *others

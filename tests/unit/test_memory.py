"""What other parties send does not stay in memory after its use, and freed memory goes back to the kernel."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from base64 import encodebytes
from collections.abc import Callable
from typing import Any

import pytest

from kproxy.decode import Document, decode
from kproxy.gateway.core.plan import fingerprint
from kproxy.kernel.netlink.core.elements import pack_elements
from kproxy.model import Family, NamespacedName, ServicePortName
from kproxy.nft.elements import Verdict
from kproxy.observe import kernel_counters
from kproxy.observe.core.counters import Connections, forget_unused
from kproxy.table.layout import EndpointScope

MIB = 1 << 20
TURNS = 40
LONG = 100_000
"""The characters of a text."""


def read(**content: Any) -> None:
    """Decode an object, and use nothing of it."""
    decode([Document("in.yaml", {"apiVersion": "v1", **content})])


def of_slice(text: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": text, "port": 80}],
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": text, "hints": {"forZones": [{"name": text}]}}],
    }


def read_service(text: str, ports: int = 1, **metadata: Any) -> None:
    many = [{"name": f"p{n}-{text[:8]}", "port": n + 1} for n in range(ports)]
    read(kind="Service", metadata={"name": "web", **metadata}, spec={"ports": many})


def scrape(text: str) -> None:
    """Read 200 frontends of other Services than before."""
    owners = [ServicePortName(NamespacedName(text[:9], f"web-{number}"), "") for number in range(200)]
    counted = []
    for number, owner in enumerate(owners):
        members = {number.to_bytes(8, "big"): Verdict("goto random-1", str(owner))}
        (element,) = pack_elements(members)
        counted.append(kernel_counters.read_frontend(memoryview(element)[4:]))
    connections = Connections()
    connections.take_frontends(Family.IPV4, EndpointScope.ALL, counted)
    connections.retain(frozenset(owners))
    forget_unused(kernel_counters._parsed, len(counted))


INPUTS: dict[str, Callable[[str], Any]] = {
    "an annotation": lambda text: read_service(text, annotations={"a": text}),
    "a creation time": lambda text: read_service(text, creationTimestamp=text),
    "the ports of a Service": lambda text: read_service(text, ports=400),
    "ports, nodes and zones of a slice": lambda text: read(**of_slice(text)),
    "a kind": lambda text: read(kind=f"Servicf{text}", metadata={"name": "a"}),
    "an apiVersion": lambda text: read(kind="v1", apiVersion=text, metadata={"name": "a"}),
    "a certificate": lambda text: fingerprint(
        b"-----BEGIN CERTIFICATE-----\n" + encodebytes(text.encode()) + b"-----END CERTIFICATE-----\n"
    ),
}


@pytest.mark.parametrize("of", INPUTS)
def test_long_inputs_are_forgotten(of: str) -> None:
    def turn(number: int) -> None:
        INPUTS[of](f"{number:08} ".ljust(LONG, "x"))

    assert kept_by(turn, TURNS) < MIB


def test_the_names_of_removed_services_are_forgotten() -> None:
    assert kept_by(lambda number: scrape(f"n{number:08}"), 40) < 2 * MIB


def kept_by(turn: Callable[[int], None], turns: int) -> int:
    """Return the bytes that are in use after `turns` more than after the first one."""
    turn(0)
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, turns):
            turn(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


RETURNED = """
import asyncio, sys
from kproxy.intake.memory import resident, return_memory

async def main():
    begun = resident()
    blocks = [bytes(1000) for _ in range(60_000)]
    kept = blocks[::100]  # between them, 60 MB are free then
    del blocks
    grown = resident() - begun
    assert grown > 50_000_000, grown
    task = asyncio.create_task(return_memory(0.01))
    async with asyncio.timeout(30):
        while resident() - begun > grown // 4:
            await asyncio.sleep(0.01)
    assert len(kept) == 600

asyncio.run(main())
"""


def test_free_pages_between_blocks_are_returned() -> None:
    subprocess.run([sys.executable, "-c", RETURNED], check=True, timeout=60)

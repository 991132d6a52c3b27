"""Whom clients stay with while endpoints, policies and other clients come and go."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import many, udp_ask
from netns_lab.topology import Family, multi

from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, service, slices, sticky

pytestmark = pytest.mark.lab

HTTP = {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}
ECHO = {"name": "echo", "port": 53, "targetPort": 5353, "protocol": "UDP", "nodePort": 30053}
PODS = ("pod-1", "pod-2", "pod-3")


def web(lab: Lab, pods: Iterable[str], **spec: Any) -> list[Manifest]:
    """A sticky service of a TCP and a UDP port, with these pods."""
    found = slices(lab, pods, {"http": 8080})
    for slice_ in found:
        slice_["ports"].append({"name": "echo", "port": 5353, "protocol": "UDP"})
    return [service("web", HTTP, ECHO, type="NodePort", **sticky(), **spec), *found]


def remembered(kproxy: Kproxy, family: Family, protocol: str) -> dict[str, str]:
    """Client -> endpoint, as the kernel has it."""
    table = "ip" if family == 4 else "ip6"
    listed = kproxy.nft(f"list map {table} kproxy affinity-{protocol}")
    return dict(
        re.findall(r"([\da-f:.]+) \. [\da-f:.]+ \. [\w-]+ [^:]*expires \w+ : ([\da-f:.]+) \.", listed)
    )


def stays_with(client: Handle, address: str, port: int) -> str:
    """The one pod that answers a client over and over, one connection after another."""
    (pod,) = many(client, address, port, 15, concurrency=1)
    return pod


@contextmanager
def hammering(clients: Iterable[Handle], family: Family) -> Iterator[None]:
    """Each client opens connections and sends datagrams from new ports, one after another."""
    stop = threading.Event()

    def connect(client: Handle) -> None:
        while not stop.is_set():
            many(client, SERVICE_IP[family], 80, 50, concurrency=2)

    def send(client: Handle) -> None:
        while not stop.is_set():
            udp_ask(client, SERVICE_IP[family], 53, timeout=0.2)

    threads = [threading.Thread(target=work, args=[client]) for client in clients for work in (connect, send)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("family", FAMILIES)
def test_entries_of_a_removed_endpoint_are_gone_and_those_written_meanwhile(
    lab: Lab, kproxy: Kproxy, family: Family
) -> None:
    clients = [lab.client("outside"), lab.pod("pod-3"), lab.node("n1")]
    kproxy.sync(*web(lab, ["pod-1"]))
    with hammering(clients, family):
        for gone, left in [("pod-1", "pod-2"), ("pod-2", "pod-1")] * 2:
            kproxy.sync(*web(lab, [left]))
            for protocol in ("tcp", "udp"):
                endpoints = set(remembered(kproxy, family, protocol).values())
                assert lab.pod(gone).address(family) not in endpoints, protocol
            assert {udp_ask(client, SERVICE_IP[family], 53).pod for client in clients} == {left}
    assert len(remembered(kproxy, family, "tcp")) == len(remembered(kproxy, family, "udp")) == len(clients)


@pytest.mark.parametrize("family", FAMILIES)
def test_removing_one_of_three_moves_its_own_clients_only(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    clients = [*(lab.pod(name) for name in PODS), lab.client("outside"), lab.node("n1")]

    def places() -> list[str]:
        return [udp_ask(client, SERVICE_IP[family], 53).pod for client in clients]

    # 1. Five clients of a UDP port, each with a pod of its own.
    kproxy.sync(*web(lab, PODS[:2]))
    first = places()
    assert places() == first
    # 2. A third pod moves nobody.
    kproxy.sync(*web(lab, PODS))
    assert [places() for _ in range(3)] == [first] * 3
    # 3. One that has clients goes: they move, and stay where they got to; the others stay.
    gone = first[3]
    kproxy.sync(*web(lab, [name for name in PODS if name != gone]))
    second = places()
    assert gone not in second
    assert [new for new, old in zip(second, first, strict=True) if old != gone] == [
        old for old in first if old != gone
    ]
    assert places() == second
    # 4. It comes back: nobody goes back to it.
    kproxy.sync(*web(lab, PODS))
    assert [places() for _ in range(3)] == [second] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_local_moves_clients_from_outside_to_local_endpoints(tmp_path: Path, family: Family) -> None:
    with Lab(multi(2, 2)) as lab:
        kproxy = Kproxy(lab.node("n1"), tmp_path / "state")
        here, there = ["n1-pod-1", "n1-pod-2"], ["n2-pod-1", "n2-pod-2"]
        outside, node = lab.client("outside"), lab.node("n1")
        at, port = node.address(family), 30080
        inside = [node, lab.pod("n1-pod-1"), lab.pod("n1-pod-2")]
        # 1. Only the other node has endpoints: every client is remembered with one of those.
        kproxy.sync(*web(lab, there))
        before = {client.name: stays_with(client, at, port) for client in (outside, *inside)}
        assert set(before.values()) <= set(there)
        # 2. This node gets endpoints, too: nobody moves.
        kproxy.sync(*web(lab, here + there))
        for client in (outside, *inside):
            assert stays_with(client, at, port) == before[client.name]
        # 3. The policy becomes Local: clients from outside move here.
        kproxy.sync(*web(lab, here + there, externalTrafficPolicy="Local"))
        moved = stays_with(outside, at, port)
        assert moved in here
        # 4. The node and its pods may use any endpoint still: they stay.
        after = {client.name: stays_with(client, at, port) for client in inside}
        assert after == {client.name: before[client.name] for client in inside}
        # 5. Back to Cluster: everyone stays.
        kproxy.sync(*web(lab, here + there))
        assert stays_with(outside, at, port) == moved
        for client in inside:
            assert stays_with(client, at, port) == after[client.name]

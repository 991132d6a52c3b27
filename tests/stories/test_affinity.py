"""Session affinity while endpoints, policies and other clients change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import many, udp_ask
from netns_lab.topology import Family, Pod, Port, multi

from tests.repeating import repeating
from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, Running, eventually, service, slices, sticky

pytestmark = pytest.mark.lab

HTTP = {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}
ECHO = {"name": "echo", "port": 53, "targetPort": 5353, "protocol": "UDP", "nodePort": 30053}
PODS = ("pod-1", "pod-2", "pod-3")


def web(lab: Lab, pods: Iterable[str], **spec: Any) -> list[Manifest]:
    """A sticky Service with a TCP and a UDP port, with these pods."""
    found = slices(lab, pods, {"http": 8080})
    for slice_ in found:
        slice_["ports"].append({"name": "echo", "port": 5353, "protocol": "UDP"})
    return [service("web", HTTP, ECHO, type="NodePort", **sticky(), **spec), *found]


def remembered(kproxy: Kproxy, family: Family, protocol: str) -> dict[str, str]:
    """Return the entries of an affinity map in the kernel, as client -> endpoint."""
    table = "ip" if family == 4 else "ip6"
    listed = kproxy.nft(f"list map {table} kproxy affinity-{protocol}")
    return dict(
        re.findall(r"([\da-f:.]+) \. [\da-f:.]+ \. [\w-]+ [^:]*expires \w+ : ([\da-f:.]+) \.", listed)
    )


def stays_with(client: Handle, address: str, port: int) -> str:
    """Return the one pod that answers a client on several sequential connections."""
    (pod,) = many(client, address, port, 15, concurrency=1)
    return pod


def sending(clients: Iterable[Handle], family: Family) -> AbstractContextManager[None]:
    """Clients open connections and send datagrams from new ports without pause."""

    def connect(client: Handle) -> None:
        many(client, SERVICE_IP[family], 80, 50, concurrency=2)

    def send(client: Handle) -> None:
        udp_ask(client, SERVICE_IP[family], 53, timeout=0.2)

    return repeating(*(partial(work, client) for client in clients for work in (connect, send)))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_entries_of_a_removed_endpoint_are_deleted(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    clients = [lab.client("outside"), lab.pod("pod-3"), lab.node("n1")]
    kproxy.sync(*web(lab, ["pod-1"]))
    with sending(clients, family):
        for removed, left in [("pod-1", "pod-2"), ("pod-2", "pod-1")] * 2:
            kproxy.sync(*web(lab, [left]))
            for protocol in ("tcp", "udp"):
                endpoints = set(remembered(kproxy, family, protocol).values())
                assert lab.pod(removed).address(family) not in endpoints, protocol
            assert {udp_ask(client, SERVICE_IP[family], 53).pod for client in clients} == {left}
    assert len(remembered(kproxy, family, "tcp")) == len(remembered(kproxy, family, "udp")) == len(clients)


@pytest.mark.parametrize("family", FAMILIES)
def test_removing_an_endpoint_moves_only_its_clients(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    clients = [*(lab.pod(name) for name in PODS), lab.client("outside"), lab.node("n1")]

    def pods_of_clients() -> list[str]:
        return [udp_ask(client, SERVICE_IP[family], 53).pod for client in clients]

    # 1. Five clients of a UDP port. Each stays with one pod.
    kproxy.sync(*web(lab, PODS[:2]))
    first = pods_of_clients()
    assert pods_of_clients() == first
    # 2. A third pod moves no client.
    kproxy.sync(*web(lab, PODS))
    assert [pods_of_clients() for _ in range(3)] == [first] * 3
    # 3. A pod with clients is removed: its clients move to other pods and stay there. Other clients stay.
    removed = first[3]
    kproxy.sync(*web(lab, [name for name in PODS if name != removed]))
    second = pods_of_clients()
    assert removed not in second
    assert [new for new, old in zip(second, first, strict=True) if old != removed] == [
        old for old in first if old != removed
    ]
    assert pods_of_clients() == second
    # 4. The pod is added again: no client returns to it.
    kproxy.sync(*web(lab, PODS))
    assert [pods_of_clients() for _ in range(3)] == [second] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_local_moves_external_clients_to_local_endpoints(tmp_path: Path, family: Family) -> None:
    with Lab(multi(2, 2)) as lab:
        kproxy = Kproxy(lab.node("n1"), tmp_path / "state")
        here, there = ["n1-pod-1", "n1-pod-2"], ["n2-pod-1", "n2-pod-2"]
        outside, node = lab.client("outside"), lab.node("n1")
        at, port = node.address(family), 30080
        inside = [node, lab.pod("n1-pod-1"), lab.pod("n1-pod-2")]
        # 1. Only the other node has endpoints: every client is assigned to one of these.
        kproxy.sync(*web(lab, there))
        before = {client.name: stays_with(client, at, port) for client in (outside, *inside)}
        assert set(before.values()) <= set(there)
        # 2. This node gets endpoints: no client moves.
        kproxy.sync(*web(lab, here + there))
        for client in (outside, *inside):
            assert stays_with(client, at, port) == before[client.name]
        # 3. The policy becomes Local: external clients move to this node.
        kproxy.sync(*web(lab, here + there, externalTrafficPolicy="Local"))
        moved = stays_with(outside, at, port)
        assert moved in here
        # 4. The node and its pods may still use any endpoint: they stay.
        after = {client.name: stays_with(client, at, port) for client in inside}
        assert after == {client.name: before[client.name] for client in inside}
        # 5. The policy becomes Cluster: all clients stay.
        kproxy.sync(*web(lab, here + there))
        assert stays_with(outside, at, port) == moved
        for client in inside:
            assert stays_with(client, at, port) == after[client.name]


def test_a_daemon_moves_external_clients_when_the_policy_becomes_local(tmp_path: Path) -> None:
    with Lab(multi(2, 1)) as lab, Running(lab.node("n1"), tmp_path) as running:
        outside, at, port = lab.client("outside"), lab.node("n1").address(4), 30080
        # 1. Only the other node has an endpoint. This node gets one, too, and the client stays.
        running.write("web", *web(lab, ["n2-pod-1"]))
        eventually(lambda: many(outside, at, port, 1) == {"n2-pod-1": 1}, running.logged)
        running.write("web", *web(lab, ["n1-pod-1", "n2-pod-1"]))
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        assert stays_with(outside, at, port) == "n2-pod-1"
        # 2. The policy becomes Local: the client moves to this node.
        running.write("web", *web(lab, ["n1-pod-1", "n2-pod-1"], externalTrafficPolicy="Local"))
        eventually(lambda: "(from outside) -> 1 endpoint" in running.logged(), running.logged)
        assert stays_with(outside, at, port) == "n1-pod-1"


# --- other programs that replace sources ---

FOREIGN = (100, 99, 95, 0, -198)
"""Priorities of their chains. The first is that of most programs, srcnat."""


def replaces_sources(lab: Lab, family: Family, priority: int) -> str:
    """Return a table that another program adds later. It replaces the source of every connection."""
    table, own = "ip" if family == 4 else "ip6", lab.node("n1").address(family)
    return (
        f"table {table} foreign\ndelete table {table} foreign\n"
        f"table {table} foreign {{\n"
        f"chain out {{ type nat hook postrouting priority {priority}; masquerade; }}\n"
        f"chain in {{ type nat hook input priority {priority}; snat to {own}; }}\n}}\n"
    )


def on_the_node(lab: Lab, family: Family) -> list[Manifest]:
    """Return slices with two endpoints in the node's own network namespace, on two ports."""
    found = []
    for number in (9090, 9091):
        lab.add_pod(Pod(f"agent-{number}", "n1", ports=(Port("http", number),), host_network=True))
        found += [each for each in slices(lab, ["pod-1"], number) if each["addressType"] == f"IPv{family}"]
        found[-1]["metadata"]["name"] += f"-{number}"
        found[-1]["endpoints"][0]["addresses"] = [lab.node("n1").address(family)]
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["pods", "node"])
def test_clients_are_remembered_although_source_nat_replaces_their_address(
    lab: Lab, kproxy: Kproxy, family: Family, where: str
) -> None:
    client = lab.pod("pod-3")
    endpoints = slices(lab, PODS[:2]) if where == "pods" else on_the_node(lab, family)
    kproxy.sync(service("web", **sticky()), *endpoints)
    for priority in FOREIGN:
        kproxy.nft(replaces_sources(lab, family, priority))
        kproxy.nft(f"flush map {'ip' if family == 4 else 'ip6'} kproxy affinity-tcp")
        stays_with(client, SERVICE_IP[family], 80)
        assert len(remembered(kproxy, family, "tcp")) == 1, priority

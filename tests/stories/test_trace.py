"""`kproxy trace`: what the kernel reports of one packet, while other packets pass."""

from __future__ import annotations

import json
import re
import signal
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import http_get, many, udp_ask
from netns_lab.topology import Family

from tests import forkserver
from tests.repeating import repeating
from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, eventually, service, slices

pytestmark = pytest.mark.lab

ECHO = {"name": "echo", "port": 53, "targetPort": 5353, "protocol": "UDP"}


@pytest.fixture
def web(lab: Lab, kproxy: Kproxy) -> list[Manifest]:
    """Sync a Service with two pods. Return its manifests."""
    objects = [service("web"), *slices(lab, ["pod-1", "pod-2"])]
    kproxy.sync(*objects)
    return objects


class Tracing:
    """`kproxy trace` that waits for a packet."""

    def __init__(self, kproxy: Kproxy, folder: Path, manifests: list[Manifest], *question: str) -> None:
        path = folder / "traced.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        self.out, self.err = folder / "out", folder / "err"
        flags = (
            "-f",
            str(path),
            "--state-dir",
            str(kproxy.state),
            *kproxy.flags,
            "-o",
            "json",
            "--timeout",
            "60s",
        )
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = forkserver.popen(kproxy.node, ["trace", *question, *flags], stdout=out, stderr=err)
        eventually(lambda: "waiting 60 s" in self.err.read_text(), self.err.read_text)

    def result(self) -> dict[str, Any]:
        """Wait for the end. Return what it printed."""
        assert self.process.wait(60) == 0, self.err.read_text()
        return dict(json.loads(self.out.read_text()))


def traces(kproxy: Kproxy) -> list[str]:
    """Return the names of the tables that start traces."""
    return re.findall(r"kproxy-trace-\d+", kproxy.nft("list tables"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_of_the_node(lab: Lab, kproxy: Kproxy, web: list[Manifest], family: Family) -> None:
    to = f"[{SERVICE_IP[family]}]"
    # 1. The rules, the endpoint, and whether it replied.
    done = kproxy.run("trace", *web, flags=["node", f"{to}:80", "--send"])
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"kproxy services +goto lb-4 +ip6? daddr \. meta l4proto \. th dport vmap @services", done.stdout
    )
    assert re.search(r"Translated to \S+:8080\. It left through \S+\. A reply came\.$", done.stdout.strip())
    # 2. A port that the ClusterIP does not have.
    done = kproxy.run("trace", *web, flags=["node", f"{to}:81", "--send"])
    assert done.stdout.endswith("Refused: the address does not have the port.\n")
    # 3. Another program drops the translated packet.
    table = "ip" if family == 4 else "ip6"
    kproxy.nft(f"add table {table} firewall")
    kproxy.nft(f"add chain {table} firewall out {{ type filter hook output priority 0; }}")
    kproxy.nft(f"add rule {table} firewall out tcp dport 8080 drop")
    done = kproxy.run("trace", *web, flags=["node", f"{to}:80", "--send"])
    assert re.search(r"firewall out +drop +rule with handle \d+", done.stdout)
    assert done.stdout.endswith("Dropped: table firewall, chain out.\n")
    assert traces(kproxy) == []


def other_connections(lab: Lab) -> AbstractContextManager[None]:
    """Another pod connects to the same Service without pause."""
    return repeating(lambda: many(lab.pod("pod-1"), SERVICE_IP[4], 80, 20, concurrency=4))


def test_only_the_packets_of_the_client_are_traced(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], tmp_path: Path
) -> None:
    client = lab.pod("pod-3")
    with other_connections(lab):
        tracing = Tracing(kproxy, tmp_path, web, client.address(4), f"{SERVICE_IP[4]}:80")
        pod = http_get(client, SERVICE_IP[4], 80).pod
        found = tracing.result()
    assert {hit["source"].split(":")[0] for hit in found["hits"]} == {client.address(4)}
    assert found["answered"] is True
    assert found["summary"].startswith(f"Translated to {lab.pod(pod).address(4)}:8080.")
    assert traces(kproxy) == []


LOAD_RATE = 10_000
"""Packets a second, of both senders together."""
LOAD = f"""
import itertools, socket, sys, time
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
begun = time.monotonic()
for number in itertools.count(1):
    for each in sockets:
        each.sendto(b"load", (sys.argv[1], int(sys.argv[2])))
    time.sleep(max(0, begun + number * len(sockets) / {LOAD_RATE // 2} - time.monotonic()))
"""
"""Sends datagrams from 64 ports."""


def sent_packets(pod: Handle) -> int:
    """Return how many packets the interface of a pod has sent."""
    (line,) = re.findall(r"eth0: *(.*)", pod.inside(Path("/proc/thread-self/net/dev").read_text))
    return int(line.split()[9])


@pytest.mark.long
def test_ten_thousand_packets_a_second_do_not_disturb_a_trace(
    lab: Lab, kproxy: Kproxy, tmp_path: Path
) -> None:
    """One sender uses the same destination as the traced connection, the other one the same source."""
    other = {**ECHO, "name": "other", "port": 54}
    objects = [
        service("dns", ECHO, other),
        *slices(lab, ["pod-2"], {"echo": 5353, "other": 9}, name="dns", protocol="UDP"),
    ]
    kproxy.sync(*objects)
    client, before = lab.pod("pod-3"), kproxy.nft("list tables")
    question = client.address(4), f"{SERVICE_IP[4]}:53/udp"
    senders = (lab.pod("pod-1"), "53"), (client, "54")
    processes = [
        pod.popen([sys.executable, "-c", LOAD, SERVICE_IP[4], port]) for pod, port in senders
    ]  # fmt: skip

    def wait_for_load() -> None:
        """Wait for as many packets of each sender as it sends in a second."""
        for pod, _ in senders:
            end = sent_packets(pod) + LOAD_RATE // 2
            eventually(partial(lambda pod, end: sent_packets(pod) >= end, pod, end))

    try:
        # 1. A packet of the connection comes after ten thousand others.
        tracing = Tracing(kproxy, tmp_path, objects, *question)
        wait_for_load()
        eventually(lambda: udp_ask(client, SERVICE_IP[4], 53).pod == "pod-2" or tracing.process.poll() == 0)
        found = tracing.result()
        assert {hit["source"].split(":")[0] for hit in found["hits"]} == {client.address(4)}
        assert len({hit["source"] for hit in found["hits"]}) == 1
        assert {hit["destination"].split(":")[1] for hit in found["hits"]} == {"53", "5353"}
        assert found["summary"].startswith(f"Translated to {lab.pod('pod-2').address(4)}:5353.")
        # 2. A trace is killed while the packets come.
        tracing = Tracing(kproxy, tmp_path, objects, *question)
        eventually(lambda: len(traces(kproxy)) == 1)
        tracing.process.send_signal(signal.SIGKILL)
        wait_for_load()
        assert kproxy.nft("list tables") == before
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_datagram_and_a_packet_that_is_not_for_a_service(lab: Lab, kproxy: Kproxy, tmp_path: Path) -> None:
    objects = [service("dns", ECHO), *slices(lab, ["pod-1"], {"echo": 5353}, name="dns", protocol="UDP")]
    kproxy.sync(*objects)
    client = lab.pod("pod-3")
    tracing = Tracing(kproxy, tmp_path, objects, client.address(4), f"{SERVICE_IP[4]}:53/udp")
    udp_ask(client, SERVICE_IP[4], 53)
    summary = tracing.result()["summary"]
    assert summary.startswith(f"Translated to {lab.pod('pod-1').address(4)}:5353.")
    tracing = Tracing(kproxy, tmp_path, objects, client.address(4), f"{lab.pod('pod-1').address(4)}:8080")
    http_get(client, lab.pod("pod-1").address(4), 8080)
    assert tracing.result()["summary"].startswith("Not translated: the destination stays ")


def test_nothing_is_left_after_kill(lab: Lab, kproxy: Kproxy, web: list[Manifest], tmp_path: Path) -> None:
    before = kproxy.ruleset()
    tracing = Tracing(kproxy, tmp_path, web, lab.pod("pod-3").address(4), f"{SERVICE_IP[4]}:80")
    eventually(lambda: len(traces(kproxy)) == 1)
    tracing.process.send_signal(signal.SIGKILL)
    eventually(lambda: traces(kproxy) == [])
    assert kproxy.ruleset() == before


def test_no_packet_is_exit_status_1(lab: Lab, kproxy: Kproxy, web: list[Manifest]) -> None:
    web[0]["spec"]["clusterIPP"] = "10.96.10.10"
    question = lab.pod("pod-3").address(4), f"{SERVICE_IP[4]}:80", "--timeout", "100ms"
    done = kproxy.run("trace", *web, flags=question)
    assert (done.returncode, done.stdout) == (1, "No packet of this connection came to this node.\n")
    assert "warning: " in done.stderr
    assert "spec.clusterIPP" in done.stderr  # as explain reports it

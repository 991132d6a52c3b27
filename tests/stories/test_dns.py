"""The name server of `kproxy run`: its address on `lo`, and queries that are not tracked."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.topology import Family

from kproxy.limits import DNS_RECEIVE_BUFFER
from tests.support import FAMILIES, SERVICE_IP, Running, eventually, service, slices

pytestmark = pytest.mark.lab

SERVER: dict[Family, str] = {4: "10.96.0.10", 6: "fd00:96::a"}
WEB = "web.default.svc.cluster.local"
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
SECONDS = 4.0
"""Less than the five seconds for which resolvers wait before they ask again."""


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path) as found:
        found.write("web", service(), *slices(lab, ["pod-1"]))
        eventually(lambda: ask(lab.node("n1"), WEB) == [SERVICE_IP[4]], found.logged)
        yield found


def query(
    handle: Handle, name: str, kind: str, family: Family, over_tcp: bool = False
) -> dns.message.Message:
    """Ask from a host of the lab. Raises OSError, TimeoutError after `SECONDS`."""
    wire = dns.message.make_query(name, kind).to_wire()

    def there() -> bytes:
        kind = socket.SOCK_STREAM if over_tcp else socket.SOCK_DGRAM
        with socket.socket(AF[family], kind) as client:
            client.settimeout(SECONDS)
            client.connect((SERVER[family], 53))
            client.sendall(len(wire).to_bytes(2, "big") + wire if over_tcp else wire)
            return client.recv(65535)[2 if over_tcp else 0 :]

    return dns.message.from_wire(handle.inside(there))


def ask(handle: Handle, name: str, kind: str = "A", family: Family = 4) -> list[str]:
    """The answer, as text; [] without one."""
    try:
        reply = query(handle, name, kind, family)
    except OSError:
        return []
    return [str(data) for rrset in reply.answer for data in rrset]


def stalls(handle: Handle, family: Family, pairs: int) -> int:
    """Send queries for A and AAAA from one socket for each pair. Returns the number of pairs that stall."""
    queries = [dns.message.make_query(WEB, kind).to_wire() for kind in ("A", "AAAA")]

    def pair() -> bool:
        with socket.socket(AF[family], socket.SOCK_DGRAM) as client:
            client.settimeout(SECONDS)
            client.connect((SERVER[family], 53))
            try:
                for each in queries:
                    client.send(each)
                return {client.recv(512)[:2] for _ in queries} != {each[:2] for each in queries}
            except OSError:
                return True

    return handle.inside(lambda: sum(pair() for _ in range(pairs)))


def tracked(node: Handle) -> int:
    """The number of entries of conntrack on a node."""
    path = "/proc/sys/net/netfilter/nf_conntrack_count"
    return int(node.run(["cat", path], capture_output=True, check=True).stdout)


def on_loopback(node: Handle) -> set[str]:
    text = node.run(["ip", "-j", "address", "show", "dev", "lo"], capture_output=True, check=True).stdout
    return {entry["local"] for entry in json.loads(text)[0]["addr_info"]} - {"127.0.0.1", "::1"}


def chains(node: Handle, family: str = "ip") -> set[str]:
    text = node.run(["nft", "-j", "list", "table", family, "kproxy"], capture_output=True, check=True).stdout
    return {entry["chain"]["name"] for entry in json.loads(text)["nftables"] if "chain" in entry}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("host", ["pod-2", "n1"])
def test_queries_are_answered_and_not_tracked(lab: Lab, running: Running, host: str, family: Family) -> None:
    handle = lab.node(host) if host == "n1" else lab.pod(host)
    before = tracked(lab.node("n1"))
    assert stalls(handle, family, 100) == 0
    for kind, address in zip(("A", "AAAA"), SERVICE_IP.values(), strict=True):
        reply = query(handle, WEB, kind, family, over_tcp=True)
        assert [str(data) for rrset in reply.answer for data in rrset] == [address]
    assert tracked(lab.node("n1")) <= before


def test_queries_wait_in_the_kernel_while_kproxy_is_busy(lab: Lab, running: Running) -> None:
    command = ["ss", "-Hlunm", "sport = :53"]
    text = lab.node("n1").run(command, capture_output=True, check=True).stdout
    sizes = [int(size) for size in re.findall(r"rb(\d+)", text)]
    assert sizes == [2 * DNS_RECEIVE_BUFFER] * 2, text  # the kernel doubles the number


def test_metrics_and_descriptions(lab: Lab, running: Running) -> None:
    node = lab.node("n1")
    before = metrics(node)
    query(lab.pod("pod-2"), WEB, "A", 6, over_tcp=True)
    assert query(lab.pod("pod-2"), "nothing.default.svc.cluster.local", "A", 4).rcode() == dns.rcode.NXDOMAIN
    after = metrics(node)
    for name in ('requests_total{family="2",proto="tcp"}', 'responses_total{rcode="NXDOMAIN"}'):
        assert after[f"coredns_dns_{name}"] == before.get(f"coredns_dns_{name}", 0) + 1
    assert [line.split() for line in running.view("get", "componentstatuses").splitlines()] == [
        ["NAME", "STATUS", "MESSAGE", "ERROR"],
        ["table-ip", "Healthy", "table", "ip", "kproxy"],
        ["table-ip6", "Healthy", "table", "ip6", "kproxy"],
        ["dns", "Healthy", "10.96.0.10:53,[fd00:96::a]:53"],
    ]
    lines = [line.split() for line in running.view("describe", "svc", "web").splitlines()]
    assert [WEB, "A", SERVICE_IP[4]] in lines
    assert [WEB, "AAAA", SERVICE_IP[6]] in lines


def metrics(node: Handle) -> dict[str, float]:
    """The metrics of the name server."""
    text = node.run(["curl", "-s", "http://127.0.0.1:10249/metrics"], capture_output=True, check=True).stdout
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if "_dns_" in line and line[0] != "#")
    return {name: float(value) for name, value in lines}


@pytest.mark.long
def test_a_hundred_thousand_pairs(lab: Lab, running: Running) -> None:
    before = tracked(lab.node("n1"))
    assert stalls(lab.pod("pod-2"), 4, 50_000) == 0
    assert stalls(lab.node("n1"), 6, 50_000) == 0
    assert tracked(lab.node("n1")) <= before


def test_the_next_question_sees_what_a_round_has_programmed(lab: Lab, running: Running) -> None:
    for number in range(30, 36):
        address = f"10.96.10.{number}"
        running.write("web", service(families=[4], cluster_ips={4: address}), *slices(lab, ["pod-1"]))
        eventually(lambda address=address: f"{address}:80" in running.logged(), running.logged)  # type: ignore[misc]
        assert ask(lab.pod("pod-2"), WEB) == [address]


def test_the_address_is_added_and_removed_as_those_of_load_balancers(lab: Lab, running: Running) -> None:
    node = lab.node("n1")
    both = set(SERVER.values())
    assert on_loopback(node) == both
    # 1. A killed kproxy leaves it, and the next one finds it.
    running.stop(signal.SIGKILL)
    assert on_loopback(node) == both
    running.start()
    assert on_loopback(node) == both
    # 2. Another program removes it: kproxy adds it again.
    node.run(["ip", "address", "del", f"{SERVER[4]}/32", "dev", "lo"], check=True)
    eventually(lambda: on_loopback(node) == both, running.logged)
    eventually(lambda: ask(lab.pod("pod-2"), WEB) == [SERVICE_IP[4]], running.logged)
    # 3. Without DNS, neither the address nor the rules remain.
    assert running.stop() == 0
    assert "dns-output" in chains(node)
    running.flags = ["--no-dns"]
    running.start()
    assert on_loopback(node) == set()
    assert not {"dns-output", "dns-prerouting"} & chains(node)
    # 4. cleanup removes it.
    running.stop()
    running.flags = []
    running.start()
    assert on_loopback(node) == both
    running.stop()
    removed = running.kproxy.cleanup().stdout.splitlines()
    assert {f"removed address {address} on lo" for address in both} <= set(removed)
    assert on_loopback(node) == set()


def test_a_service_may_have_the_address(lab: Lab, running: Running) -> None:
    node = lab.node("n1")
    own = {4: SERVER[4], 6: "fd00:96::35"}
    port = {"port": 53, "targetPort": 8080, "protocol": "UDP"}
    running.write("dns", service("kube-dns", port, cluster_ips=own))  # type: ignore[arg-type]
    eventually(lambda: on_loopback(node) == {SERVER[6]}, running.logged)
    said = "10.96.0.10 is the ClusterIP of Service default/kube-dns"
    eventually(lambda: said in running.logged(), running.logged)
    assert ask(lab.pod("pod-2"), WEB, "AAAA", 6) == [SERVICE_IP[6]]
    assert ask(lab.pod("pod-2"), WEB) == []
    (running.manifests / "dns.json").unlink()
    eventually(lambda: on_loopback(node) == set(SERVER.values()), running.logged)
    eventually(lambda: ask(lab.pod("pod-2"), WEB) == [SERVICE_IP[4]], running.logged)


def test_a_port_in_use_does_not_stop_kproxy(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("n1")
    other = node.socket(socket.AF_INET, socket.SOCK_DGRAM)
    node.inside(partial(other.bind, ("0.0.0.0", 53)))
    with other, Running(node, tmp_path) as running:
        eventually(lambda: "cannot serve DNS on 10.96.0.10:53: Address already in use" in running.logged())
        health = node.run(["curl", "-s", "http://127.0.0.1:10256/healthz"], capture_output=True).stdout
        failure = "DNS on 10.96.0.10:53: Address already in use"
        assert json.loads(health)["warnings"] == [failure]
        assert running.view("get", "cs", "dns").splitlines()[1].split(maxsplit=3) == [
            *("dns", "Unhealthy", "[fd00:96::a]:53", failure)
        ]
        running.write("web", service(), *slices(lab, ["pod-1"]))
        eventually(lambda: ask(lab.pod("pod-2"), WEB, "AAAA", 6) == [SERVICE_IP[6]], running.logged)

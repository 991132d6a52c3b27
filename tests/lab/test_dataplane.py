"""Each property of the dataplane, tested with packets through a kernel in both families."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections import Counter
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import Outcome, echo, http_get, many, udp_ask
from netns_lab.topology import Family, multi, single
from netns_lab.wire import AF

from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, eventually, service, slices, sticky

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("family", FAMILIES)]

PODS = ("pod-1", "pod-2", "pod-3")
ECHO = {"name": "echo", "port": 53, "targetPort": 5353, "protocol": "UDP"}
HTTP = {"name": "http", "port": 80, "targetPort": 8080}
ROUNDING = 0.03
"""Seconds by which the kernel may round the time until an element expires."""


def one_by_one(client: Handle, address: str, port: int, n: int) -> Counter[str]:
    """Count the pods that answer sequential connections. With parallel ones, several would be the first."""
    return many(client, address, port, n, concurrency=1)


def udp_slices(lab: Lab, pods: tuple[str, ...] = PODS) -> list[dict[str, object]]:
    return slices(lab, pods, {"echo": 5353}, protocol="UDP")


def test_cluster_ip_reaches_every_endpoint_from_a_pod_and_from_the_node(
    lab: Lab, kproxy: Kproxy, family: Family
) -> None:
    kproxy.sync(service(), *slices(lab, PODS))
    for client in (lab.pod("pod-1"), lab.node("n1")):
        assert set(many(client, SERVICE_IP[family], 80, 60)) == set(PODS)


def test_clients_that_are_not_pods_are_masqueraded(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-2"]))
    pod, outside = lab.pod("pod-1"), lab.client("outside")
    assert http_get(pod, SERVICE_IP[family], 80).client == pod.address(family)
    seen = http_get(outside, SERVICE_IP[family], 80).client
    assert seen not in ("", outside.address(family))


def test_without_a_cluster_cidr_no_client_is_masqueraded(lab: Lab, tmp_path: Path, family: Family) -> None:
    kproxy = Kproxy(lab.node("n1"), tmp_path / "state", cluster_cidr=False)
    kproxy.sync(service(), *slices(lab, ["pod-2"]))
    for client in (lab.pod("pod-1"), lab.client("outside")):
        assert http_get(client, SERVICE_IP[family], 80).client == client.address(family)


def test_masquerade_all_masquerades_pods_too(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-2"]), flags=["--masquerade-all"])
    pod = lab.pod("pod-1")
    assert http_get(pod, SERVICE_IP[family], 80).client not in ("", pod.address(family))


def test_hairpin_a_pod_reaches_itself_through_its_service(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    pod = lab.pod("pod-1")
    reply = http_get(pod, SERVICE_IP[family], 80)
    assert (reply.pod, reply.outcome) == ("pod-1", Outcome.ANSWERED)
    assert reply.client != pod.address(family)


def test_each_byte_of_an_address_decides_whether_a_connection_is_a_hairpin(
    family: Family, tmp_path: Path
) -> None:
    own = ip_address({4: "198.51.100.7", 6: "2001:db8:5::7"}[family]).packed
    endpoints = [own, *(bytes([*own[:at], own[at] ^ 1, *own[at + 1 :]]) for at in range(len(own)))]
    texts = [str(ip_address(endpoint)) for endpoint in endpoints]
    cluster_ips = [str(ip_address(SERVICE_IP[family]) + number) for number in range(len(texts))]
    with Lab(single()) as lab:
        node = lab.node("n1")
        for text in texts:
            node.run(["ip", "address", "add", f"{text}/{len(own) * 8}", "dev", "lo"], check=True)
        manifests = [
            made
            for ip, text in zip(cluster_ips, texts, strict=True)
            for made in single_endpoint(f"web-{texts.index(text)}", family, ip, text)
        ]
        Kproxy(node, tmp_path / "state", cluster_cidr=False).sync(*manifests)
        with node.socket(AF[family], socket.SOCK_STREAM) as server:
            server.bind(("", 8080))
            server.listen()
            masqueraded = [is_masqueraded(node, server, texts[0], ip) for ip in cluster_ips]
    assert masqueraded == [True, *[False] * len(own)]


def single_endpoint(name: str, family: Family, cluster_ip: str, endpoint: str) -> list[Manifest]:
    """A Service of one family and its slice."""
    made = service(name, families=[family], cluster_ips={family: cluster_ip})
    metadata = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    return [
        made,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": f"IPv{family}",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": [endpoint]}],
        },
    ]


def is_masqueraded(node: Handle, server: socket.socket, source: str, address: str) -> bool:
    """Whether the server sees another source than that of a client on the same node.

    The client has the same address in both cases, so the port decides. Masquerading selects the same port
    one time in 64,512.
    """

    def kept_its_port() -> bool:
        with node.socket(server.family, socket.SOCK_STREAM) as client:
            client.bind((source, 0))
            client.connect((address, 80))
            accepted, peer = server.accept()
            accepted.close()
            return bool(peer[:2] == client.getsockname()[:2])

    return not all(kept_its_port() for _ in range(2))


def test_node_port_answers_from_outside_and_is_masqueraded(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30123}
    kproxy.sync(service("web", port, type="NodePort"), *slices(lab, PODS))
    node, outside = lab.node("n1"), lab.client("outside")
    assert set(many(outside, node.address(family), 30123, 60)) == set(PODS)
    assert http_get(outside, node.address(family), 30123).client != outside.address(family)
    assert set(many(node, node.address(family), 30123, 60)) == set(PODS)
    assert http_get(outside, node.address(family), 30124).outcome is Outcome.REFUSED


def test_node_ports_are_open_on_the_addresses_in_the_flag(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    port = {"port": 80, "targetPort": 8080, "nodePort": 30123}
    node, outside = lab.node("n1"), lab.client("outside")
    flags = ["--nodeport-addresses", "10.0.0.0/8,fd00::/16"]
    kproxy.sync(service("web", port, type="NodePort"), *slices(lab, PODS), flags=flags)
    assert http_get(outside, node.address(family), 30123).outcome is Outcome.REFUSED
    flags = ["--nodeport-addresses", "192.168.77.0/24,fd77::/64"]
    kproxy.sync(service("web", port, type="NodePort"), *slices(lab, PODS), flags=flags)
    assert http_get(outside, node.address(family), 30123).outcome is Outcome.ANSWERED


def test_an_endpoint_on_another_node(family: Family, tmp_path: Path) -> None:
    with Lab(multi(2, 1)) as lab:
        kproxy = Kproxy(lab.node("n1"), tmp_path / "state")
        port = {"port": 80, "targetPort": 8080, "nodePort": 30123}
        kproxy.sync(service("web", port, type="NodePort"), *slices(lab, ["n2-pod-1"]))
        reply = http_get(lab.client("outside"), lab.node("n1").address(family), 30123)
        assert (reply.pod, reply.client) == ("n2-pod-1", lab.node("n1").address(family))
        pod = lab.pod("n1-pod-1")
        reply = http_get(pod, SERVICE_IP[family], 80)
        assert (reply.pod, reply.client) == ("n2-pod-1", pod.address(family))


def test_udp(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service("web", ECHO), *udp_slices(lab))
    replies = [udp_ask(lab.pod("pod-1"), SERVICE_IP[family], 53, "hello") for _ in range(40)]
    assert {reply.pod for reply in replies} == set(PODS)
    assert {reply.body for reply in replies} == {"hello"}


def test_one_port_number_with_two_protocols_is_two_frontends(
    lab: Lab, kproxy: Kproxy, family: Family
) -> None:
    both = service("web", {**ECHO, "port": 80}, HTTP)
    endpoints = slices(lab, ["pod-1"], {"http": 8080})
    done = kproxy.run("sync", both, *endpoints)
    assert (done.returncode, "its endpoints have no port named echo" in done.stderr) == (0, True)
    assert http_get(lab.pod("pod-2"), SERVICE_IP[family], 80).pod == "pod-1"
    assert udp_ask(lab.pod("pod-2"), SERVICE_IP[family], 80).outcome is Outcome.REFUSED


def retransmits() -> int:
    """Return the number of TCP segments that this network namespace retransmitted."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def test_without_endpoints_connections_are_refused_immediately(
    lab: Lab, kproxy: Kproxy, family: Family
) -> None:
    node_port = {**HTTP, "nodePort": 30123}
    kproxy.sync(service("web", node_port, {**ECHO, "nodePort": 30124}, type="NodePort"))
    address, node = SERVICE_IP[family], lab.node("n1")
    for client in (lab.pod("pod-1"), node, lab.client("outside")):
        sent_again = client.inside(retransmits)
        for port in (80, 81):  # no endpoint; no such port
            for _ in range(3):  # an ICMP error could be rate-limited, a reset is not
                assert http_get(client, address, port).outcome is Outcome.REFUSED
        assert udp_ask(client, address, 53).outcome is Outcome.REFUSED
        assert http_get(client, node.address(family), 30123).outcome is Outcome.REFUSED
        assert udp_ask(client, node.address(family), 30124).outcome is Outcome.REFUSED
        assert client.inside(retransmits) == sent_again


def test_a_cluster_ip_does_not_answer_ping(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    lan = ["ip", "-n", f"nl-{lab.id}-lan", "address", "add"]
    subprocess.run([*lan, SERVICE_IP[family], "dev", "lo", *(["nodad"] if family == 6 else [])], check=True)
    clients = (lab.node("n1"), lab.client("outside"))
    for client in clients:  # without kproxy, the host on the LAN answers
        eventually(partial(echo, client, SERVICE_IP[family], timeout=1))
    kproxy.sync(service(), *slices(lab, PODS))
    for client in (*clients, lab.pod("pod-1")):
        assert not echo(client, SERVICE_IP[family], timeout=0.3)
    assert echo(lab.pod("pod-1"), lab.pod("pod-2").address(family))
    assert echo(lab.client("outside"), lab.node("n1").address(family))


def test_unused_service_addresses_do_not_answer(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service(), *slices(lab, PODS))
    other = {4: "10.96.10.11", 6: "fd00:96::11"}[family]
    assert http_get(lab.pod("pod-1"), other, 80, timeout=0.3).outcome is Outcome.TIMEOUT


def test_an_endpoint_in_the_nodes_own_namespace(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    from netns_lab.topology import Pod, Port

    host_pod = Pod("host-pod", node="n1", ports=(Port("http", 8888),), host_network=True)
    lab.add_pod(host_pod)
    kproxy.sync(service("web", **sticky()), *slices(lab, ["host-pod"], 8888))
    pod = lab.pod("pod-1")
    for client in (pod, lab.client("outside"), lab.node("n1")):
        assert http_get(client, SERVICE_IP[family], 80).pod == "host-pod"
    listed = kproxy.nft(f"list map {'ip' if family == 4 else 'ip6'} kproxy affinity-tcp")
    assert pod.address(family) in listed


class TestAffinity:
    def test_a_client_stays_with_its_endpoint(self, lab: Lab, kproxy: Kproxy, family: Family) -> None:
        kproxy.sync(service("web", HTTP, **sticky()), *slices(lab, PODS, {"http": 8080}))
        answers = {
            name: one_by_one(client, SERVICE_IP[family], 80, 30)
            for name, client in [("pod-1", lab.pod("pod-1")), ("outside", lab.client("outside"))]
        }
        assert all(len(pods) == 1 for pods in answers.values()), answers

    def test_a_udp_client_stays_with_its_endpoint(self, lab: Lab, kproxy: Kproxy, family: Family) -> None:
        kproxy.sync(service("web", ECHO, **sticky()), *udp_slices(lab))
        pods = {udp_ask(lab.pod("pod-1"), SERVICE_IP[family], 53).pod for _ in range(30)}
        assert len(pods) == 1

    def test_a_new_endpoint_moves_no_clients(self, lab: Lab, kproxy: Kproxy, family: Family) -> None:
        client = lab.pod("pod-1")
        kproxy.sync(service("web", **sticky()), *slices(lab, ["pod-2"]))
        assert set(one_by_one(client, SERVICE_IP[family], 80, 5)) == {"pod-2"}
        kproxy.sync(service("web", **sticky()), *slices(lab, PODS))
        assert set(one_by_one(client, SERVICE_IP[family], 80, 30)) == {"pod-2"}

    def test_removing_an_endpoint_moves_only_its_clients(
        self, lab: Lab, kproxy: Kproxy, family: Family
    ) -> None:
        clients = [lab.pod(name) for name in PODS] + [lab.client("outside"), lab.node("n1")]
        kproxy.sync(service("web", **sticky()), *slices(lab, PODS))
        before = {c.name: http_get(c, SERVICE_IP[family], 80).pod for c in clients}
        removed = before["outside"]
        left = [name for name in PODS if name != removed]
        kproxy.sync(service("web", **sticky()), *slices(lab, left))
        for client in clients:
            after = set(one_by_one(client, SERVICE_IP[family], 80, 10))
            assert len(after) == 1
            assert after <= set(left)
            if before[client.name] != removed:
                assert after == {before[client.name]}

    def test_a_returning_endpoint_does_not_get_its_old_clients(
        self, lab: Lab, kproxy: Kproxy, family: Family
    ) -> None:
        client = lab.client("outside")
        kproxy.sync(service("web", **sticky()), *slices(lab, ["pod-1"]))
        assert http_get(client, SERVICE_IP[family], 80).pod == "pod-1"
        kproxy.sync(service("web", **sticky()), *slices(lab, ["pod-2"]))
        assert http_get(client, SERVICE_IP[family], 80).pod == "pod-2"
        kproxy.sync(service("web", **sticky()), *slices(lab, ["pod-1", "pod-2"]))
        assert set(one_by_one(client, SERVICE_IP[family], 80, 20)) == {"pod-2"}

    def test_affinity_ends_with_its_timeout(self, lab: Lab, kproxy: Kproxy, family: Family) -> None:
        kproxy.sync(service("web", **sticky(timeout=1)), *slices(lab, PODS))
        get = partial(http_get, lab.client("outside"), SERVICE_IP[family], 80)
        begun, first = time.monotonic(), get().pod
        assert {get().pod for _ in range(20)} == {first} or time.monotonic() - begun > 1
        seen = set()
        for _ in range(12):  # the probability of the same pod each time is 1 in 3^12
            time.sleep(1.1)
            seen.add(get().pod)
            if seen != {first}:
                return
        pytest.fail(f"the client stayed with {first} long after the timeout")

    def test_each_connection_renews_affinity(self, lab: Lab, kproxy: Kproxy, family: Family) -> None:
        kproxy.sync(service("web", **sticky(timeout=100)), *slices(lab, PODS))
        table = "ip" if family == 4 else "ip6"

        def left() -> float:
            """Seconds until the entry of the client expires."""
            (found,) = re.findall(r"expires (\w+)", kproxy.nft(f"list map {table} kproxy affinity-tcp"))
            units = {"m": 60, "s": 1, "ms": 0.001}
            return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([a-z]+)", found))

        get = partial(http_get, lab.client("outside"), SERVICE_IP[family], 80)
        pod = get().pod
        for _ in range(3):
            eventually(lambda: left() < 99.9)
            renewed = time.monotonic()
            assert get().pod == pod
            seconds = left()
            assert seconds + (time.monotonic() - renewed) > 100 - ROUNDING
            assert seconds <= 100

    def test_ports_are_independent_of_each_other(self, lab: Lab, kproxy: Kproxy, family: Family) -> None:
        ports = [{"name": f"p{n}", "port": 80 + n, "targetPort": 8080} for n in range(16)]
        endpoints = slices(lab, PODS, {f"p{n}": 8080 for n in range(16)})
        kproxy.sync(service("web", *ports, **sticky()), *endpoints)
        pods = [http_get(lab.pod("pod-1"), SERVICE_IP[family], 80 + n).pod for n in range(16)]
        assert len(set(pods)) > 1  # the probability of equal pods is 1 in 3^15


def test_a_connection_outlives_the_removal_of_its_endpoint(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with lab.client("outside").socket(kind, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.connect((SERVICE_IP[family], 80))
        kproxy.sync(service(), *slices(lab, ["pod-2"]))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        assert b"pod-1" in sock.recv(65536)
    assert set(many(lab.client("outside"), SERVICE_IP[family], 80, 10)) == {"pod-2"}

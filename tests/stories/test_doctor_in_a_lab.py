"""The doctor on a node of a lab with a running kproxy: each row breaks the node in one way.

The rows of tests/breaks.py break the input, and facts that a lab cannot break.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from netns_lab.lab import Lab
from netns_lab.manifests import pod_manifests
from netns_lab.topology import LAN_GATEWAY, single

from tests import forkserver
from tests.support import Manifest, Running, eventually, service, slices

pytestmark = pytest.mark.lab


class Ward(NamedTuple):
    """A node with a running kproxy, and the Services of `SERVICES`."""

    lab: Lab
    running: Running

    def ids(self, *arguments: str) -> set[str]:
        """Return the ids that the doctor finds, or cannot see."""
        kproxy = self.running.kproxy
        command = ["doctor", "-o", "json", "--state-dir", str(kproxy.state), *arguments]
        done = forkserver.run(kproxy.node, command)
        return {each["id"] for each in json.loads(done.stdout)["findings"]}

    def of_manifests(self) -> set[str]:
        """Return the ids from the manifests, the kernel and the host, without the running kproxy."""
        return self.ids("-f", str(self.running.manifests), "--kernel", *self.running.kproxy.flags)

    def shell(self, script: str) -> None:
        """Run commands on the node."""
        node = self.lab.node("n1")
        done = node.run(["sh", "-ec", script], capture_output=True)
        assert done.returncode == 0, done.stderr


DNS = "10.96.0.10"
"""The address on which kproxy answers DNS queries."""
HEALTHY_CONF = f"""\
search default.svc.cluster.local svc.cluster.local cluster.local
nameserver {DNS}
options ndots:5
"""
MUTE = "10.96.10.13"
"""The ClusterIP of a Service whose only endpoint is pod-3."""


def services(lab: Lab) -> list[Manifest]:
    """Return the Services: web, one with an endpoint on another node, one on a bridge, and `MUTE`."""
    port = {"port": 80, "targetPort": 8080, "nodePort": 30080}

    def of_address(name: str, cluster_ip: str, address: str, node: str) -> list[Manifest]:
        found = slices(lab, ["pod-3"], name=name)[:1]
        found[0]["endpoints"] = [{"addresses": [address], "nodeName": node}]
        return [service(name, families=(4,), cluster_ips={4: cluster_ip}), *found]

    return [
        *(service("web", port, type="NodePort"), *slices(lab, ["pod-1", "pod-2"])),
        *of_address("far", "10.96.10.11", "192.168.77.50", "n2"),
        *of_address("bridged", "10.96.10.12", "10.244.7.2", "n1"),
        *of_address("mute", MUTE, lab.pod("pod-3").address(4), "n1"),
    ]


@pytest.fixture(name="ward", scope="module")
def _ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    topology = single(3)
    pods = tuple(replace(pod, resolv_conf=HEALTHY_CONF) for pod in topology.pods)
    with Lab(replace(topology, pods=pods)) as lab:
        running = Running(lab.node("n1"), tmp_path_factory.mktemp("doctor"), ["--no-table-owner"])
        running.write("web", *services(lab))
        running.write("pods", *pod_manifests(lab.topology))
        with running:
            yield Ward(lab, running)


class NodeBreak(NamedTuple):
    """Commands on the node that break it, and that mend it."""

    id: str
    breaks: str
    mends: str
    question: str = ""
    prepares: str = "true"
    """Commands after which the node is still healthy; `mends` also undoes them."""


GATEWAY = LAN_GATEWAY[4]
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
BRIDGE = """
ip link add br0 type bridge
ip addr add 10.244.7.1/24 dev br0
ip link set br0 up
for n in 1 2; do
    ip link add port$n type veth peer name pod$n
    ip link set port$n master br0 up
    ip link set port$n type bridge_slave hairpin on
    ip link set pod$n up
done
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
"""
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
FORWARDING_6 = "/proc/sys/net/ipv6/conf/all/forwarding"
NO_BRIDGE = "ip link del br0; ip link del port1; ip link del port2"
NAT = "iptables -t nat -A PREROUTING -p tcp --dport 9999 -j DNAT --to-destination 10.0.0.1:80"
"""As Docker publishes a port. No Service has it."""
UNTRACKED = """
nft add table ip f
nft "add chain ip f c { type filter hook prerouting priority raw; }"
nft "add chain ip f d { type filter hook output priority raw; }"
nft "add rule ip f c iifname lo notrack; add rule ip f c ip saddr 203.0.113.0/24 notrack"
nft "add rule ip f c meta l4proto udp ip daddr 10.96.10.10 notrack; add rule ip f d udp dport 51820 notrack"
nft "add rule ip f c ip daddr 10.96.0.10-10.96.0.12 notrack; add rule ip f d udp sport { 1, 123 } notrack"
nft "add set ip f others { type ipv4_addr; elements = { 203.0.113.7, 203.0.113.8 }; }"
nft "add rule ip f c ip daddr @others notrack; add rule ip f c iif lo notrack"
nft "add chain ip f e { type filter hook input priority 0; }; add rule ip f e notrack"
"""
"""Rules that exempt no packets of Services."""
BREAKS = (
    NodeBreak("KP050", f"echo 0 >{FORWARDING}", f"echo 1 >{FORWARDING}"),
    NodeBreak("KP050", f"echo 0 >{FORWARDING_6}", f"echo 1 >{FORWARDING_6}"),
    NodeBreak("KP053", "ip route del default", f"ip route add default via {GATEWAY}", "web"),
    NodeBreak(
        "KP053", "ip route add unreachable 10.96.0.0/16", "ip route del unreachable 10.96.0.0/16", "web"
    ),
    NodeBreak("KP054", "ip rule add to 10.244.1.0/24 unreachable pref 1", "ip rule del pref 1"),
    NodeBreak(
        "KP055",
        "nft 'add table ip f; add chain ip f c { type filter hook forward priority 0; policy drop; }'",
        "nft delete table ip f",
        prepares="nft 'add table ip f; add chain ip f d { type filter hook forward priority 0; }'",
    ),
    NodeBreak(
        "KP055",
        "nft 'add table inet f; add chain inet f c { type filter hook forward priority 9; policy drop; }'",
        "nft delete table inet f",
        "web",
    ),
    NodeBreak(
        "KP056",
        "nft 'add rule ip nat KUBE-SERVICES counter'",
        "nft delete table ip nat",
        prepares="nft 'add table ip nat; add chain ip nat KUBE-SERVICES'",
    ),
    NodeBreak(
        "KP056",
        "nft 'add table ip6 kube-proxy; add chain ip6 kube-proxy c; add rule ip6 kube-proxy c counter'",
        "nft delete table ip6 kube-proxy",
    ),
    NodeBreak("KP057", NAT.replace("9999", "30080"), "nft delete table ip nat", prepares=NAT),
    NodeBreak(
        "KP057",
        "nft 'add rule ip n c tcp dport 30080 redirect to :9'",
        "nft delete table ip n",
        "web",
        prepares="nft 'add table ip n; add chain ip n c { type nat hook prerouting priority -110; }'",
    ),
    NodeBreak("KP059", "ip link set port1 type bridge_slave hairpin off", NO_BRIDGE, prepares=BRIDGE),
    NodeBreak("KP060", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500"),
    *(
        NodeBreak(
            "KP061", f"nft 'add rule ip f c {rule} notrack'", "nft delete table ip f", prepares=UNTRACKED
        )
        for rule in (
            "",
            "iifname != lo",
            "ip daddr 10.96.0.0/12",
            "ip daddr { 192.0.2.1, 10.96.10.0/24 } tcp dport 80",
            "tcp dport 30080-30090",
            "ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16",
            "ip daddr != 192.0.2.0/24 meta l4proto tcp",
        )
    ),
    NodeBreak(
        "KP061",
        "nft 'add rule inet f d ip6 saddr fd00:10:244::/48 notrack'",
        "nft delete table inet f",
        "web",
        prepares=UNTRACKED.replace("ip f", "inet f"),
    ),
    NodeBreak(
        "KP061",
        "iptables -t raw -A PREROUTING -d 10.96.10.10/32 -p tcp --dport 80 -j CT --notrack",
        "nft delete table ip raw",
        prepares="iptables -t raw -A PREROUTING -d 10.96.10.10/32 -j CT --zone 0",
    ),
    NodeBreak(
        "KP080",
        f"nft 'add rule ip f c ip daddr {DNS} udp dport 53 drop'",
        "nft delete table ip f",
        "web --from pod/pod-1",
        prepares="nft 'add table ip f; add chain ip f c { type filter hook input priority 0; }'",
    ),
)


@pytest.mark.parametrize("row", BREAKS, ids=lambda row: f"{row.id} {row.breaks}")
def test_a_break_of_the_node_is_named_and_nothing_else(ward: Ward, row: NodeBreak) -> None:
    if "iptables" in row.breaks.split() and not shutil.which("iptables", path=SBIN):
        pytest.skip("needs iptables")
    question = row.question.split()
    ward.shell(row.prepares)
    try:
        assert ward.ids(*question) == set()
        ward.shell(row.breaks)
        assert ward.ids(*question) == {row.id}
    finally:
        ward.shell(row.mends)
    assert ward.ids(*question) == set()


CONF_BREAKS = [
    ("KP081", HEALTHY_CONF.replace(DNS, "192.0.2.53"), "web --from pod/pod-1"),
    ("KP082", HEALTHY_CONF.replace("default.", ""), ""),
    ("KP083", HEALTHY_CONF.replace("ndots:5", "ndots:1"), ""),
]
"""What is in the resolv.conf of a pod."""


@pytest.mark.parametrize(("id_", "content", "question"), CONF_BREAKS)
def test_a_break_of_a_pods_resolver_is_named_and_nothing_else(
    ward: Ward, id_: str, content: str, question: str
) -> None:
    conf = Path("/etc/resolv.conf")
    pod = ward.lab.pod("pod-1")
    program = pod.popen(["sleep", "600"])  # the doctor finds the files of a pod by a process in it
    try:
        assert ward.ids(*question.split()) == set()
        pod.inside(partial(conf.write_text, content))
        assert ward.ids(*question.split()) == {id_}
    finally:
        pod.inside(partial(conf.write_text, HEALTHY_CONF))
        program.kill()
        program.wait()


def test_a_host_whose_resolver_does_not_know_services_is_named(ward: Ward, tmp_path: Path) -> None:
    question = "web", "--from", "node", "--resolv-conf"
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {DNS}\n")
    assert ward.ids(*question, str(conf)) == set()
    conf.write_text("nameserver 127.0.0.1\n")  # no resolver listens there
    assert ward.ids(*question, str(conf)) == {"KP084"}
    assert ward.ids("web", "--resolv-conf", str(conf)) == set()  # the client is not this host


TABLE_BREAKS = {
    "KP041": "delete table ip kproxy",
    "KP044": "delete element ip kproxy services { 10.96.10.10 . tcp . 80 }",
    "KP045": "add rule ip kproxy translated counter",
}
"""What another program does to kproxy's table. kproxy repairs it at once, unless it is stopped."""


@pytest.mark.parametrize("id_", TABLE_BREAKS)
def test_a_break_of_the_table_is_named_and_nothing_else(ward: Ward, id_: str) -> None:
    assert ward.of_manifests() == set()
    ward.running.process.send_signal(signal.SIGSTOP)
    try:
        ward.shell(f"nft '{TABLE_BREAKS[id_]}'")
        assert ward.of_manifests() == {id_}
    finally:
        ward.running.process.send_signal(signal.SIGCONT)
    eventually(lambda: ward.ids() == set(), ward.running.logged)


def test_an_endpoint_that_swallows_connections_is_named(ward: Ward) -> None:
    pod, node = ward.lab.pod("pod-3"), ward.lab.node("n1")
    drop = "add table ip f; add chain ip f c { type filter hook input priority 0; policy drop; }"
    pod.run(["nft", drop], check=True)
    clients = [node.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(3)]
    for client in clients:
        client.setblocking(False)
        assert client.connect_ex((MUTE, 80)) == errno.EINPROGRESS
    assert ward.ids() == {"KP070"}
    pod.run(["nft", "delete table ip f"], check=True)
    eventually(lambda: ward.ids("mute") == set())  # TCP sends its first packets again
    for client in clients:
        client.close()


def test_an_application_that_listens_elsewhere_is_named(ward: Ward) -> None:
    pod = ward.lab.pod("pod-3")
    # 1. Nothing listens.
    ward.lab.stop_pod("pod-3")
    assert ward.ids("mute") == ward.ids() == {"KP074"}
    # 2. An application listens, but on loopback.
    server = pod.popen([sys.executable, "-m", "http.server", "8080", "--bind", "127.0.0.1"])
    eventually(lambda: ward.ids("mute") == {"KP073"})
    server.kill()
    server.wait()
    ward.lab.start_pod("pod-3")
    assert ward.ids("mute") == set()


def test_a_program_of_the_node_on_a_node_port_is_named(ward: Ward) -> None:
    node = ward.lab.node("n1")
    with node.socket(socket.AF_INET, socket.SOCK_STREAM) as program:
        program.bind(("127.0.0.1", 30080))
        program.listen()
        assert ward.ids() == set()
    with node.socket(socket.AF_INET, socket.SOCK_STREAM) as program:
        program.bind(("0.0.0.0", 30080))
        program.listen()
        assert ward.ids() == ward.ids("web") == ward.of_manifests() == {"KP062"}
        assert ward.ids("far") == {"KP075"}
    assert ward.ids() == set()


def test_only_a_question_about_a_service_connects_to_endpoints(ward: Ward) -> None:
    """No host has the endpoint of this Service. Its sockets are unknown, so the doctor connects to it."""
    assert ward.ids() == set()
    assert ward.ids("far") == {"KP075"}


def test_another_host_with_a_load_balancer_address_is_named(lab: Lab, tmp_path: Path) -> None:
    addresses = {4: "192.168.77.100", 6: "fd77::100"}
    running = Running(lab.node("n1"), tmp_path, ["--load-balancer-pool", ",".join(addresses.values())])
    running.write("web", service("web", type="LoadBalancer"), *slices(lab, ["pod-1"]))
    with running:
        ward = Ward(lab, running)
        eventually(lambda: ward.ids() == set(), running.logged)
        other = lab.client("outside")
        for address, mask in ((addresses[4], "/32"), (addresses[6], "/128 nodad")):
            other.run(f"ip address add {address}{mask} dev eth0".split(), check=True)
            assert ward.ids() == {"KP048"}
            other.run(f"ip address del {address}{mask.split()[0]} dev eth0".split(), check=True)
            assert ward.ids() == set()


def test_a_stopped_kproxy_is_named(ward: Ward) -> None:
    ward.running.stop()
    try:
        done = forkserver.run(ward.lab.node("n1"), ["doctor", "--state-dir", str(ward.running.kproxy.state)])
        assert done.returncode == 1
        assert "KP040 sure: this node: kproxy run does not answer" in done.stdout
        assert "cannot see: kproxy run does not answer (KP002, KP003, KP004, KP005, KP006 and " in done.stdout
    finally:
        ward.running.start()

"""Load-balancer addresses out of a pool: clients outside find them, on one node at a time."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns_lab
import pytest
import yaml
from netns_lab.lab import Handle, Lab
from netns_lab.manifests import pod_manifests
from netns_lab.probe import Outcome, echo, http_get, many
from netns_lab.topology import Family, chapter, multi

from tests import forkserver
from tests.support import FAMILIES, Kproxy, Manifest, Running, changes, eventually, service, slices

pytestmark = pytest.mark.lab

CHAPTER = Path(netns_lab.__file__).parent / "chapter"
VIP: dict[Family, str] = {4: "192.168.77.100", 6: "fd77::100"}
POOL = ["--load-balancer-pool", ",".join(VIP.values())]
RTMGRP_IPV4_ADDRESS = 0x10
WEB = service(type="LoadBalancer")


def addresses(node: Handle) -> set[str]:
    """Those of the pool that its eth0 has."""
    text = node.run(["ip", "-j", "address", "show", "dev", "eth0"], capture_output=True, check=True).stdout
    return {entry["local"] for entry in json.loads(text)[0]["addr_info"]} & set(VIP.values())


def nodes_of(lab: Lab, tmp_path: Path, *flags: str) -> list[Kproxy]:
    """kproxy on each node, with allocations of its own."""
    handles = [lab.node(node.name) for node in lab.topology.nodes]
    return [Kproxy(handle, tmp_path / handle.name, flags=[*POOL, *flags]) for handle in handles]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Lab, list[Kproxy]]]:
    """Two nodes that share the pool, with two pods each."""
    with Lab(multi(2, 2)) as lab:
        yield lab, nodes_of(lab, tmp_path, "--nodes", "n1,n2")


@pytest.fixture
def one(lab: Lab, tmp_path: Path) -> Kproxy:
    (kproxy,) = nodes_of(lab, tmp_path)
    return kproxy


@pytest.fixture
def web(lab: Lab) -> list[Manifest]:
    return [WEB, *slices(lab, ["pod-1", "pod-2"])]


def cleanup(kproxy: Kproxy) -> list[str]:
    done = kproxy.cleanup()
    assert done.returncode == 0
    return done.stdout.splitlines()


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_chapters_transcript(tmp_path: Path) -> None:
    with Lab(chapter()) as lab:
        pool = "192.168.77.100-192.168.77.119"
        kproxy = Kproxy(lab.node("n1"), tmp_path / "state", flags=["--load-balancer-pool", pool])
        loadbalancer = yaml.safe_load((CHAPTER / "kubia-svc-loadbalancer.yaml").read_text())
        manifests = [loadbalancer, *pod_manifests(lab.topology)]
        kproxy.sync(*manifests)
        outside, kubia = lab.client("outside"), [pod for pod in lab.topology.pods if "kubia" in pod.name]
        # $ kubectl get svc kubia-loadbalancer
        got_by = kproxy.arguments("get", "svc", "kubia-loadbalancer")
        flags = [flag for flag in got_by if flag not in ("--node-name", "n1")]
        del flags[flags.index("--cluster-cidr") : flags.index("--cluster-cidr") + 2]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        got = forkserver.run(kproxy.node, flags, input=text).stdout
        row = dict(zip(*(line.split() for line in got.splitlines()), strict=True))
        assert (row["NAME"], row["TYPE"]) == ("kubia-loadbalancer", "LoadBalancer")
        external = row["EXTERNAL-IP"]
        assert 100 <= int(external.removeprefix("192.168.77.")) <= 119
        found = re.fullmatch(r"80:(3\d{4})/TCP", row["PORT(S)"])
        assert found
        # $ ping 35.221.253.22
        assert echo(outside, external)
        # $ http 35.221.253.22
        seen = many(outside, external, 80, 60)
        assert set(seen) == {pod.name for pod in kubia}
        reply = http_get(outside, external, 80)
        assert (reply.status, reply.body.strip()) == (200, f"You've hit {reply.pod} on default mux")
        # The node port that was allocated leads there, too.
        assert http_get(outside, lab.node("n1").address(4), int(found[1])).outcome is Outcome.ANSWERED
        # $ kubectl describe svc kubia-loadbalancer
        place = flags.index("get")
        flags[place] = "describe"
        described = words(forkserver.run(kproxy.node, flags, input=text).stdout)
        endpoints = ",".join(sorted(f"{pod.v4}:8080" for pod in kubia))
        for line in (
            "Name: kubia-loadbalancer",
            "Namespace: default",
            "Selector: app=kubia",
            "Type: LoadBalancer",
            f"LoadBalancer Ingress: {external}",
            "Port: <unset> 80/TCP",
            "TargetPort: 8080/TCP",
            f"NodePort: <unset> {found[1]}/TCP",
            f"Endpoints: {endpoints}",
            "Session Affinity: None",
            "External Traffic Policy: Cluster",
        ):
            assert line in described, described


def test_it_comes_is_served_and_goes(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    client = lab.client("outside")
    # 1. A service: its addresses are put on the uplink, answer ping, and lead to its pods.
    output = one.sync(*web)
    assert [line for line in changes(output, "+") if " on " in line] == [
        "+ address 192.168.77.100 on eth0",
        "+ address fd77::100 on eth0",
    ]
    assert output.splitlines()[-1].endswith("; uplink: 2 addresses in, 0 out")
    for family in FAMILIES:
        assert echo(client, VIP[family])
        assert set(many(client, VIP[family], 80, 30)) == {"pod-1", "pod-2"}
        assert set(many(lab.pod("pod-3"), VIP[family], 80, 30)) == {"pod-1", "pod-2"}
        assert set(many(one.node, VIP[family], 80, 30)) == {"pod-1", "pod-2"}
    # 2. Nothing changes: nothing is done.
    assert "nothing to change" in one.sync(*web)
    # 3. The service goes: so do they. No answer, not even a refusal of the node.
    output = one.sync()
    assert [line for line in changes(output, "-") if " on " in line] == [
        "- address 192.168.77.100 on eth0",
        "- address fd77::100 on eth0",
    ]
    assert addresses(one.node) == set()
    for family in FAMILIES:
        assert not echo(client, VIP[family], timeout=0.3)
        reply = http_get(client, VIP[family], 80, timeout=0.3)
        assert reply.outcome in (Outcome.TIMEOUT, Outcome.UNREACHABLE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nodes_own_ports_are_not_the_addresss(
    lab: Lab, one: Kproxy, web: list[Manifest], family: Family
) -> None:
    """What listens on all of the node's addresses is not reached by one of the pool."""
    one.sync(*web)
    with one.node.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM) as ssh:
        ssh.bind(("", 22))
        ssh.listen()
        client = lab.client("outside")
        with client.socket(ssh.family, socket.SOCK_STREAM) as probe:
            probe.connect((one.node.address(family), 22))
        for who in (client, lab.pod("pod-3"), one.node):
            assert http_get(who, VIP[family], 22).outcome is Outcome.REFUSED, who.name


def test_it_is_no_address_for_node_ports(one: Kproxy, web: list[Manifest]) -> None:
    ranges = ["--nodeport-addresses", "192.168.77.0/24,fd77::/64"]
    one.sync(*web, flags=ranges)
    assert "nothing to change" in one.sync(*web, flags=ranges)


@pytest.mark.parametrize("family", FAMILIES)
def test_pods_see_the_nodes_own_address(lab: Lab, one: Kproxy, web: list[Manifest], family: Family) -> None:
    """Masquerading takes none of the pool, though the interface had it before its own address."""
    one.sync(*web)
    own = one.node.address(family)
    where = [f"{own}/{24 if family == 4 else 64}", "dev", "eth0", *(["nodad"] if family == 6 else [])]
    one.node.run(["ip", "address", "del", *where[:3]], check=True)
    one.node.run(["ip", "address", "add", *where], check=True)
    assert http_get(lab.client("outside"), VIP[family], 80).client == own


def test_one_of_two_nodes_has_it_and_it_moves(two: tuple[Lab, list[Kproxy]]) -> None:
    lab, (n1, n2) = two
    client = lab.client("outside")
    manifests = [WEB, *slices(lab, ["n1-pod-1", "n2-pod-1"])]

    def sync(nodes: str) -> dict[str, str]:
        """Who has each of the addresses."""
        for kproxy in (n1, n2):
            if kproxy.node.name in nodes.split(","):
                kproxy.sync(*manifests, flags=["--nodes", nodes])
        shown = [(address, k.node.name) for k in (n1, n2) for address in addresses(k.node)]
        assert sorted(address for address, _ in shown) == sorted(VIP.values()), "each on one node"
        return dict(shown)

    # 1. Each node knows by itself which one it is.
    first = sync("n1,n2")
    for address in VIP.values():
        assert echo(client, address)
        assert set(many(client, address, 80, 30)) == {"n1-pod-1", "n2-pod-1"}
    # 2. The other node alone: it comes there, and the client, which knew the first one, goes there at once.
    (loser,) = [k for k in (n1, n2) if k.node.name == first[VIP[4]]]
    (heir,) = [k for k in (n1, n2) if k is not loser]
    cleanup(loser)
    assert set(sync(heir.node.name).values()) == {heir.node.name}
    assert echo(client, VIP[4])
    assert set(many(client, VIP[4], 80, 30)) == {"n1-pod-1", "n2-pod-1"}
    # 3. Both again: as it was.
    for kproxy in (heir, loser):
        kproxy.sync(*manifests)
    assert sync("n1,n2") == first
    assert echo(client, VIP[4])


@pytest.mark.parametrize("where", ["n1", "n2"])
def test_with_policy_local_it_is_where_an_endpoint_is(two: tuple[Lab, list[Kproxy]], where: str) -> None:
    lab, nodes = two
    local = service(type="LoadBalancer", externalTrafficPolicy="Local")
    manifests = [local, *slices(lab, [f"{where}-pod-1"])]
    for kproxy in nodes:
        kproxy.sync(*manifests)
    assert {k.node.name: addresses(k.node) for k in nodes if addresses(k.node)} == {where: set(VIP.values())}
    for family in FAMILIES:
        reply = http_get(lab.client("outside"), VIP[family], 80)
        assert (reply.pod, reply.client) == (f"{where}-pod-1", lab.client("outside").address(family))


def test_cleanup_takes_it_back(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.sync(*web)
    assert cleanup(one)[:2] == ["removed address 192.168.77.100 on eth0", "removed address fd77::100 on eth0"]
    assert addresses(one.node) == set()
    assert not echo(lab.client("outside"), VIP[4], timeout=0.3)
    assert cleanup(one) == ["nothing to remove"]


def test_without_the_pool_it_is_taken_back(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.sync(*web)
    without = Kproxy(one.node, one.state)
    assert len([line for line in changes(without.sync(*web), "-") if " on eth0" in line]) == 2
    assert addresses(one.node) == set()


def test_somebody_elses_address_is_left_alone(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.node.run(["ip", "address", "add", f"{VIP[4]}/24", "dev", "eth0"], check=True)
    done = one.run("sync", *web)
    assert done.returncode == 1
    assert f"kproxy: {VIP[4]} is already configured by another program" in done.stderr
    assert addresses(one.node) == set(VIP.values())
    # It is served all the same; when the service goes, it stays, and only ours is taken back.
    assert set(many(lab.client("outside"), VIP[4], 80, 30)) == {"pod-1", "pod-2"}
    one.sync()
    assert addresses(one.node) == {VIP[4]}
    cleanup(one)
    assert addresses(one.node) == {VIP[4]}


def test_what_cannot_be_read_loses_nothing(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.sync(*web)
    broken = {**WEB, "spec": {**WEB["spec"], "ports": [{"port": 800000}]}}
    done = one.run("sync", broken, *web[1:])
    assert done.returncode == 1
    assert addresses(one.node) == set(VIP.values())
    assert set(many(lab.client("outside"), VIP[4], 80, 30)) == {"pod-1", "pod-2"}


def test_a_node_that_is_none_of_the_nodes(one: Kproxy) -> None:
    done = one.run("sync", flags=["--nodes", "n2,n3"])
    assert done.returncode == 2
    assert "--nodes n2,n3 does not contain this node, n1." in done.stderr


def kill_at_the_first_address(kproxy: Kproxy, *manifests: Manifest) -> None:
    """Run a sync until the kernel says that an IPv4 address came or went."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    with kproxy.node.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as listener:
        listener.bind((0, RTMGRP_IPV4_ADDRESS))
        listener.settimeout(30)
        # The slower one of the two, so that it does not get far between being told on and being killed.
        command = ["nice", "-n", "19", *kproxy.command("sync")]
        process: subprocess.Popen[Any] = kproxy.node.popen(command, stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(text)
        process.stdin.close()
        listener.recv(65536)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_sync_that_is_killed_between(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    """An address comes after its service and leaves before it; what is left undone, the next sync does."""
    client = lab.client("outside")
    # 1. Killed when it has put the first address there: its service is there.
    kill_at_the_first_address(one, *web)
    assert VIP[4] in addresses(one.node)
    assert set(many(client, VIP[4], 80, 30)) == {"pod-1", "pod-2"}
    one.sync(*web)
    assert addresses(one.node) == set(VIP.values())
    # 2. Killed when it has taken the first one back: its service is still there.
    kill_at_the_first_address(one)
    assert VIP[4] not in addresses(one.node)
    for family in FAMILIES:
        assert set(many(one.node, VIP[family], 80, 30)) == {"pod-1", "pod-2"}
    one.sync()
    assert addresses(one.node) == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_daemon_keeps_the_addresses(lab: Lab, tmp_path: Path, web: list[Manifest], family: Family) -> None:
    """With the service they come and go, and are put back where somebody takes them away."""
    node, outside = lab.node("n1"), lab.client("outside")

    def served() -> bool:
        answered = http_get(outside, VIP[family], 80, timeout=0.5).outcome is Outcome.ANSWERED
        return answered and echo(outside, VIP[family])

    with Running(node, tmp_path, POOL) as running:
        assert addresses(node) == set()
        running.write("web", *web)
        eventually(lambda: addresses(node) == set(VIP.values()) and served(), running.said)
        node.run(["ip", "address", "del", VIP[family], "dev", "eth0"], check=True)
        eventually(lambda: addresses(node) == set(VIP.values()) and served(), running.said)
        assert running.stop() == 0
        assert served()
        running.start()
        running.write("web")
        eventually(lambda: addresses(node) == set(), running.said)

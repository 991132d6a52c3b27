"""Load-balancer addresses from a pool: external clients reach each on one node at a time."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

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
WEB = service(type="LoadBalancer")


def addresses(node: Handle) -> set[str]:
    """The addresses of the pool on eth0 of a node."""
    text = node.run(["ip", "-j", "address", "show", "dev", "eth0"], capture_output=True, check=True).stdout
    return {entry["local"] for entry in json.loads(text)[0]["addr_info"]} & set(VIP.values())


def nodes_of(lab: Lab, tmp_path: Path, *flags: str) -> list[Kproxy]:
    """kproxy on each node, each with its own state directory."""
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


def test_the_chapters_commands(tmp_path: Path) -> None:
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
        # The allocated node port leads to the pods, too.
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


def test_addresses_follow_their_service(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    client = lab.client("outside")
    # 1. A new Service: its addresses are added to the uplink, answer ping, and lead to its pods.
    output = one.sync(*web)
    assert [line for line in changes(output, "+") if " on " in line] == [
        "+ address 192.168.77.100 on eth0",
        "+ address fd77::100 on eth0",
    ]
    assert output.splitlines()[-1].endswith("; eth0: 2 addresses added, 0 removed")
    for family in FAMILIES:
        assert echo(client, VIP[family])
        assert set(many(client, VIP[family], 80, 30)) == {"pod-1", "pod-2"}
        assert set(many(lab.pod("pod-3"), VIP[family], 80, 30)) == {"pod-1", "pod-2"}
        assert set(many(one.node, VIP[family], 80, 30)) == {"pod-1", "pod-2"}
    # 2. A sync without changes.
    assert "nothing to change" in one.sync(*web)
    # 3. The Service is removed with its addresses. There is no answer, and no reject by the node.
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
def test_ports_of_the_node_are_not_reachable_on_the_address(
    lab: Lab, one: Kproxy, web: list[Manifest], family: Family
) -> None:
    """A program that listens on all addresses of the node is not reachable on an address of the pool."""
    one.sync(*web)
    with one.node.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM) as ssh:
        ssh.bind(("", 22))
        ssh.listen()
        client = lab.client("outside")
        with client.socket(ssh.family, socket.SOCK_STREAM) as probe:
            probe.connect((one.node.address(family), 22))
        for asking in (client, lab.pod("pod-3"), one.node):
            assert http_get(asking, VIP[family], 22).outcome is Outcome.REFUSED, asking.name


def test_node_ports_are_not_served_on_the_address(one: Kproxy, web: list[Manifest]) -> None:
    ranges = ["--nodeport-addresses", "192.168.77.0/24,fd77::/64"]
    one.sync(*web, flags=ranges)
    assert "nothing to change" in one.sync(*web, flags=ranges)


@pytest.mark.parametrize("family", FAMILIES)
def test_pods_see_the_nodes_own_address(lab: Lab, one: Kproxy, web: list[Manifest], family: Family) -> None:
    """Masquerading does not use an address of the pool, even if it is the first one of the interface."""
    one.sync(*web)
    own = one.node.address(family)
    where = [f"{own}/{24 if family == 4 else 64}", "dev", "eth0", *(["nodad"] if family == 6 else [])]
    one.node.run(["ip", "address", "del", *where[:3]], check=True)
    one.node.run(["ip", "address", "add", *where], check=True)
    assert http_get(lab.client("outside"), VIP[family], 80).client == own


def test_one_of_two_nodes_has_an_address_and_it_moves(two: tuple[Lab, list[Kproxy]]) -> None:
    lab, (n1, n2) = two
    client = lab.client("outside")
    manifests = [WEB, *slices(lab, ["n1-pod-1", "n2-pod-1"])]

    def sync(nodes: str) -> dict[str, str]:
        """Sync both nodes. Returns the node of each address."""
        for kproxy in (n1, n2):
            if kproxy.node.name in nodes.split(","):
                kproxy.sync(*manifests, flags=["--nodes", nodes])
        shown = [(address, k.node.name) for k in (n1, n2) for address in addresses(k.node)]
        assert sorted(address for address, _ in shown) == sorted(VIP.values()), "each on one node"
        return dict(shown)

    # 1. Each node decides alone.
    first = sync("n1,n2")
    for address in VIP.values():
        assert echo(client, address)
        assert set(many(client, address, 80, 30)) == {"n1-pod-1", "n2-pod-1"}
    # 2. Only the other node: the address moves, and the client follows immediately.
    (first_owner,) = [k for k in (n1, n2) if k.node.name == first[VIP[4]]]
    (other,) = [k for k in (n1, n2) if k is not first_owner]
    cleanup(first_owner)
    assert set(sync(other.node.name).values()) == {other.node.name}
    assert echo(client, VIP[4])
    assert set(many(client, VIP[4], 80, 30)) == {"n1-pod-1", "n2-pod-1"}
    # 3. Both nodes again: the address moves back.
    for kproxy in (other, first_owner):
        kproxy.sync(*manifests)
    assert sync("n1,n2") == first
    assert echo(client, VIP[4])


@pytest.mark.parametrize("where", ["n1", "n2"])
def test_with_policy_local_a_node_with_an_endpoint_has_the_address(
    two: tuple[Lab, list[Kproxy]], where: str
) -> None:
    lab, nodes = two
    local = service(type="LoadBalancer", externalTrafficPolicy="Local")
    manifests = [local, *slices(lab, [f"{where}-pod-1"])]
    for kproxy in nodes:
        done = kproxy.run("sync", *manifests)
        assert done.returncode == 0, done.stderr
        assert ("no endpoint is on this node" in done.stderr) == (kproxy.node.name != where)
    assert {k.node.name: addresses(k.node) for k in nodes if addresses(k.node)} == {where: set(VIP.values())}
    for family in FAMILIES:
        reply = http_get(lab.client("outside"), VIP[family], 80)
        assert (reply.pod, reply.client) == (f"{where}-pod-1", lab.client("outside").address(family))


def test_cleanup_removes_the_addresses(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.sync(*web)
    assert cleanup(one)[:2] == ["removed address 192.168.77.100 on eth0", "removed address fd77::100 on eth0"]
    assert addresses(one.node) == set()
    assert not echo(lab.client("outside"), VIP[4], timeout=0.3)
    assert cleanup(one) == ["nothing to remove"]


def test_without_the_pool_the_addresses_are_removed(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.sync(*web)
    without = Kproxy(one.node, one.state)
    assert len([line for line in changes(without.sync(*web), "-") if " on eth0" in line]) == 2
    assert addresses(one.node) == set()


def test_an_address_of_another_program_is_not_changed(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.node.run(["ip", "address", "add", f"{VIP[4]}/24", "dev", "eth0"], check=True)
    done = one.run("sync", *web)
    assert done.returncode == 1
    assert f"kproxy: {VIP[4]} is already configured by another program" in done.stderr
    assert addresses(one.node) == set(VIP.values())
    # It is served anyway. When the Service is removed, the address stays; only kproxy's own is removed.
    assert set(many(lab.client("outside"), VIP[4], 80, 30)) == {"pod-1", "pod-2"}
    one.sync()
    assert addresses(one.node) == {VIP[4]}
    cleanup(one)
    assert addresses(one.node) == {VIP[4]}


def test_an_unreadable_service_keeps_its_addresses(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    one.sync(*web)
    broken = {**WEB, "spec": {**WEB["spec"], "ports": [{"port": 800000}]}}
    done = one.run("sync", broken, *web[1:])
    assert done.returncode == 1
    assert addresses(one.node) == set(VIP.values())
    assert set(many(lab.client("outside"), VIP[4], 80, 30)) == {"pod-1", "pod-2"}


def test_the_error_if_nodes_lack_this_node(one: Kproxy) -> None:
    done = one.run("sync", flags=["--nodes", "n2,n3"])
    assert done.returncode == 2
    assert "--nodes n2,n3 does not contain this node, n1." in done.stderr


KILLED = """
import os, signal, sys
from kproxy.cli import main
from kproxy.kernel import uplink

change = uplink._change

def change_and_die(*arguments, **options):
    change(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

uplink._change = change_and_die
sys.exit(main())
"""


def kill_at_the_first_address(kproxy: Kproxy, *manifests: Manifest) -> None:
    """Run a sync that is killed when it has added or removed one address; IPv4 comes first."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    command = [sys.executable, "-c", KILLED, *kproxy.arguments("sync", "--allow-empty")]
    assert kproxy.node.run(command, input=text, capture_output=True).returncode == -signal.SIGKILL


def test_a_sync_that_is_killed_between_its_steps(lab: Lab, one: Kproxy, web: list[Manifest]) -> None:
    """An address is added after its Service, and removed before it. The next sync completes the change."""
    client = lab.client("outside")
    # 1. Killed after it has added the first address: its Service is programmed.
    kill_at_the_first_address(one, *web)
    assert VIP[4] in addresses(one.node)
    assert set(many(client, VIP[4], 80, 30)) == {"pod-1", "pod-2"}
    one.sync(*web)
    assert addresses(one.node) == set(VIP.values())
    # 2. Killed after it has removed the first address: its Service is still programmed.
    kill_at_the_first_address(one)
    assert VIP[4] not in addresses(one.node)
    for family in FAMILIES:
        assert set(many(one.node, VIP[family], 80, 30)) == {"pod-1", "pod-2"}
    one.sync()
    assert addresses(one.node) == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_running_kproxy_maintains_the_addresses(
    lab: Lab, tmp_path: Path, web: list[Manifest], family: Family
) -> None:
    """Addresses follow their Service, and are restored if another program removes them."""
    node, outside = lab.node("n1"), lab.client("outside")

    def served() -> bool:
        answered = http_get(outside, VIP[family], 80, timeout=0.5).outcome is Outcome.ANSWERED
        return answered and echo(outside, VIP[family])

    with Running(node, tmp_path, POOL) as running:
        assert addresses(node) == set()
        running.write("web", *web)
        eventually(lambda: addresses(node) == set(VIP.values()) and served(), running.logged)
        node.run(["ip", "address", "del", VIP[family], "dev", "eth0"], check=True)
        eventually(lambda: addresses(node) == set(VIP.values()) and served(), running.logged)
        assert running.stop() == 0
        assert served()
        running.start()
        running.write("web")
        eventually(lambda: addresses(node) == set(), running.logged)

"""Pods behind one bridge of the node reach themselves and each other through a Service."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get
from netns_lab.topology import Family

from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, Running, eventually, service, slices

pytestmark = pytest.mark.lab

FILTERS = {
    4: "/proc/sys/net/bridge/bridge-nf-call-iptables",
    6: "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
}
PREFIX = {4: 24, 6: 64}
NODAD: dict[Family, list[str]] = {4: [], 6: ["nodad"]}
HAIRPIN = ("--bridge-hairpin", "br0")
SEEN: list[tuple[str, tuple[str, ...], str, str]] = [
    ("0", (), "pod-2", "the bridge"),
    ("0", (), "pod-1", "the bridge"),
    ("0", ("--masquerade-all",), "pod-2", "the bridge"),
    ("1", (), "pod-2", "pod-1"),
    ("1", (), "pod-1", "no answer"),
    ("1", ("--masquerade-all",), "pod-1", "no answer"),
    ("1", HAIRPIN, "pod-2", "pod-1"),
    ("1", HAIRPIN, "pod-1", "the bridge"),
]
"""Whether br_netfilter filters, flags, the endpoint, and which client it sees if pod-1 connects."""


def router(lab: Lab, family: Family) -> str:
    """Return the address of the bridge, in one network with the pods."""
    network = ip_network(f"{lab.pod('pod-1').address(family)}/{PREFIX[family]}", strict=False)
    return str(network[254])


def add_bridge(lab: Lab) -> None:
    node = lab.node("n1")
    node.run(["ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"], check=True)
    for family in FAMILIES:
        own = f"{router(lab, family)}/{PREFIX[family]}"
        node.run(["ip", "addr", "add", own, "dev", "br0", *NODAD[family]], check=True)
    node.run(["ip", "link", "set", "br0", "up"], check=True)


def connect(lab: Lab, pod: str) -> None:
    """Connect a pod to the bridge, with its addresses, and not to the node as before."""
    node, handle, port = lab.node("n1"), lab.pod(pod), f"port-{pod}"
    handle.run(["ip", "link", "del", "eth0"], check=True)
    veth = ["type", "veth", "peer", "name", "eth0", "netns", handle.netns]
    node.run(["ip", "link", "add", port, *veth], check=True)
    node.run(["ip", "link", "set", port, "master", "br0", "up"], check=True)
    handle.run(["ip", "link", "set", "eth0", "up"], check=True)
    for family in FAMILIES:
        own = f"{handle.address(family)}/{PREFIX[family]}"
        handle.run(["ip", "addr", "add", own, "dev", "eth0", *NODAD[family]], check=True)
        handle.run(["ip", "route", "add", "default", "via", router(lab, family)], check=True)


@pytest.fixture
def filters(lab: Lab) -> Callable[[str], None]:
    """Return a function that sets whether br_netfilter filters the packets of bridges."""

    def set_to(wanted: str) -> None:
        for path in FILTERS.values():
            node.inside(lambda path=path: Path(path).write_text(wanted))  # type: ignore[misc]

    node = lab.node("n1")
    if not node.inside(Path(FILTERS[4]).exists):
        pytest.skip("needs the kernel's module br_netfilter")
    return set_to


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_reaches_the_pods_behind_its_bridge(
    lab: Lab, tmp_path: Path, filters: Callable[[str], None], family: Family
) -> None:
    add_bridge(lab)
    for pod in ("pod-1", "pod-2"):
        connect(lab, pod)
    kproxy = Kproxy(lab.node("n1"), tmp_path / "state", cluster_cidr=False)
    clients = {router(lab, family): "the bridge", lab.pod("pod-1").address(family): "pod-1"}
    for filtered, flags, pod, expected in SEEN:
        filters(filtered)
        kproxy.sync(service(), *slices(lab, [pod]), flags=flags)
        timeout = 1 if expected == "no answer" else 10
        found = http_get(lab.pod("pod-1"), SERVICE_IP[family], 80, timeout)
        seen = "no answer" if found.outcome is Outcome.TIMEOUT else clients[found.client]
        assert (filtered, flags, pod, seen) == (filtered, flags, pod, expected)
        assert says(kproxy, lab.pod("pod-1").address(family), *slices(lab, [pod]), flags=flags) is (
            expected == "the bridge" or pod == "pod-1"
        )


def test_a_node_port_with_policy_local(lab: Lab, tmp_path: Path, filters: Callable[[str], None]) -> None:
    add_bridge(lab)
    for pod in ("pod-1", "pod-2"):
        connect(lab, pod)
    filters("0")
    web = service("web", {"port": 80, "targetPort": 8080, "nodePort": 30080}, type="NodePort")
    web["spec"]["externalTrafficPolicy"] = "Local"
    kproxy = Kproxy(lab.node("n1"), tmp_path / "state")
    kproxy.sync(web, *slices(lab, ["pod-2"]))
    before = kproxy.generation()
    kproxy.sync(web, *slices(lab, ["pod-2"]))
    assert kproxy.generation() == before
    for family in FAMILIES:
        found = http_get(lab.pod("pod-1"), lab.node("n1").address(family), 30080)
        assert (found.pod, found.client) == ("pod-2", router(lab, family))


def says(kproxy: Kproxy, client: str, *manifests: Manifest, flags: tuple[str, ...]) -> bool:
    """Return whether `explain` says that the packet of pod-1 is masqueraded."""
    rules = [flag for flag in flags if flag == "--masquerade-all"]
    command = "explain", client, "web:80", "--interface", "br0", "-o", "json", *rules
    done = kproxy.run(command[0], service(), *manifests, flags=command[1:])
    return json.loads(done.stdout)["endpoints"][0]["masquerade"] is not None


def test_a_bridge_and_its_ports_may_come_later(
    lab: Lab, tmp_path: Path, filters: Callable[[str], None]
) -> None:
    filters("0")
    with Running(lab.node("n1"), tmp_path, HAIRPIN, cluster_cidr=False) as running:
        running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
        eventually(lambda: "there is no bridge br0" in running.logged(), running.logged)
        add_bridge(lab)
        for pod in ("pod-1", "pod-2"):
            connect(lab, pod)

        def reached() -> set[str]:
            return {http_get(lab.pod("pod-1"), SERVICE_IP[4], 80, timeout=1).pod for _ in range(8)}

        eventually(lambda: reached() == {"pod-1", "pod-2"}, running.logged)
        filters("1")
        eventually(lambda: reached() == {"pod-1", "pod-2"}, running.logged)


def test_hairpin_is_turned_on_only_for_ports_to_pods(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("n1")
    add_bridge(lab)
    connect(lab, "pod-1")
    node.run(["ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789"], check=True)
    node.run(["ip", "link", "set", "vx0", "master", "br0"], check=True)
    Kproxy(node, tmp_path / "state").sync(service(), *slices(lab, ["pod-1"]), flags=HAIRPIN)
    shown = node.run(["ip", "-d", "-j", "link"], capture_output=True).stdout
    ports = {each["ifname"]: each["linkinfo"]["info_slave_data"]["hairpin"]
             for each in json.loads(shown) if each.get("master") == "br0"}  # fmt: skip
    assert ports == {"port-pod-1": True, "vx0": False}

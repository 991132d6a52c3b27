"""Flows of UDP clients that send without pause move to existing endpoints; other flows stay unchanged."""

from __future__ import annotations

import json
import re
import resource
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.netns import in_fresh_namespace
from netns_lab.probe import udp_ask
from netns_lab.topology import Family

from kproxy.kernel.conntrack import end_flows, find_flows
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family as TableFamily
from kproxy.model import parse_address
from kproxy.table.flows import FlowRule
from kproxy.table.layout import PackedSocket, pack_socket
from tests.connections import Entry, entries, make, talking
from tests.support import (
    FAMILIES,
    SERVICE_IP,
    Kproxy,
    Manifest,
    Running,
    eventually,
    service,
    slices,
    with_conditions,
)

pytestmark = pytest.mark.lab

ECHO = {"name": "echo", "port": 53, "targetPort": 5353, "protocol": "UDP"}
NODE_PORT = {**ECHO, "nodePort": 30053}
OTHER_IP: dict[Family, str] = {4: "10.96.10.20", 6: "fd00:96::20"}
ELSEWHERE: dict[Family, str] = {4: "198.51.100.7", 6: "2001:db8::7"}
MANY = 100_000


def echo(lab: Lab, pods: Iterable[str], name: str = "web") -> list[Manifest]:
    return slices(lab, pods, {"echo": 5353}, name, protocol="UDP")


def web() -> Manifest:
    return service("web", NODE_PORT, type="NodePort")


@pytest.mark.parametrize(("family", "through"), [(4, "the node port"), (6, "the ClusterIP")])
def test_a_client_that_sends_without_pause_moves_to_the_new_pod(
    lab: Lab, kproxy: Kproxy, family: Family, through: str
) -> None:
    # 1. There is one endpoint, and a client sends to it.
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    client, address, port = lab.pod("pod-3"), SERVICE_IP[family], 53
    if through == "the node port":
        client, address, port = lab.client("outside"), lab.node("n1").address(family), 30053
    with talking(client, address, port) as talk:
        talk.move("pod-1")
        # 2. Another endpoint replaces it. The first one would still answer.
        assert re.search(r"\d UDP flows? ended", kproxy.sync(web(), *echo(lab, ["pod-2"])))
        talk.move("pod-2")
        assert talk.settled() == {"pod-2"}
        # 3. The first endpoint replaces the second, which has stopped.
        lab.stop_pod("pod-2")
        kproxy.sync(web(), *echo(lab, ["pod-1"]))
        talk.move("pod-1")
        # 4. An additional endpoint does not move the client.
        kproxy.sync(web(), *echo(lab, ["pod-1", "pod-3"]))
        assert talk.settled() == {"pod-1"}
        # 5. The service is removed: no pod answers.
        kproxy.sync()
        assert talk.silence()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_daemon_moves_clients_after_each_of_many_changes(lab: Lab, tmp_path: Path, family: Family) -> None:
    with Running(lab.node("n1"), tmp_path) as running:
        running.write("web", web(), *echo(lab, ["pod-1"]))
        with talking(lab.pod("pod-3"), SERVICE_IP[family], 53) as talk:
            talk.move("pod-1")
            for pod in ("pod-2", "pod-1"):
                running.write("web", web(), *echo(lab, [pod]))
                talk.move(pod)
            assert re.search(r"\d UDP flows? ended", running.logged())
            # The last endpoint is removed: the clients are refused. It comes back: they are served again.
            running.write("web", web())
            eventually(talk.silence, running.logged)
            running.write("web", web(), *echo(lab, ["pod-2"]))
            talk.move("pod-2")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_that_began_before_the_first_endpoint(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    node, address = lab.node("n1"), SERVICE_IP[family]
    # 1. A client begins before the service exists: its conntrack entry is untranslated.
    table = "ip" if family == 4 else "ip6"
    kproxy.nft(f"table {table} other {{ chain c {{ type filter hook forward priority 0; ct state new; }}; }}")
    with talking(lab.pod("pod-3"), address, 53) as early:
        eventually(lambda: any(entry.to == (address, 53) for entry in entries(node)))
        # 2. The service is added, without endpoints. Another client begins, and is refused.
        kproxy.sync(web())
        assert any(entry.answers == (address, 53) for entry in entries(node))
        with talking(lab.client("outside"), node.address(family), 30053) as late:
            assert (early.silence(), late.silence()) == (True, True)
            # 3. The first endpoint is added, and serves both clients.
            kproxy.sync(web(), *echo(lab, ["pod-1"]))
            for talk in (early, late):
                talk.move("pod-1")
            # 4. It is removed: both are refused. An endpoint is added: both are served.
            kproxy.sync(web())
            assert (early.silence(), late.silence()) == (True, True)
            kproxy.sync(web(), *echo(lab, ["pod-2"]))
            for talk in (early, late):
                talk.move("pod-2")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_that_terminates_keeps_its_flows_while_it_serves(
    lab: Lab, kproxy: Kproxy, family: Family
) -> None:
    def state(**pods: str) -> list[Manifest]:
        found = echo(lab, [name.replace("_", "-") for name in pods])
        return with_conditions(found, pods.values())

    ports = iter(range(20000, 30000))

    def new() -> set[str]:
        """Return the pods that answer new clients. Each client has a new source port."""
        client, address = lab.pod("pod-3"), SERVICE_IP[family]
        return {udp_ask(client, address, 53, source_port=next(ports)).pod for _ in range(30)}

    # 1. A client sends to the only endpoint.
    kproxy.sync(web(), *state(pod_1="ready"))
    with talking(lab.pod("pod-3"), SERVICE_IP[family], 53) as talk:
        talk.move("pod-1")
        # 2. The pod begins to terminate, and another is ready. New clients go there; the old flow stays.
        kproxy.sync(web(), *state(pod_1="draining", pod_2="ready"))
        assert new() == {"pod-2"}
        assert talk.settled() == {"pod-1"}
        # 3. No pod is ready: those that still serve are used again.
        kproxy.sync(web(), *state(pod_1="draining", pod_2="draining"))
        assert new() == {"pod-1", "pod-2"}
        # 4. One pod is ready again: new clients go only there.
        kproxy.sync(web(), *state(pod_1="draining", pod_2="ready"))
        assert new() == {"pod-2"}
        assert talk.settled() == {"pod-1"}
        # 5. The first pod no longer serves: its flow moves. Nothing changes for new clients.
        assert re.search(r"\d UDP flows? ended", kproxy.sync(web(), *state(pod_1="down", pod_2="ready")))
        talk.move("pod-2")


def test_only_stale_entries_are_deleted(lab: Lab, kproxy: Kproxy) -> None:
    """Creates every kind of entry that resembles a stale one, in both families."""
    node = lab.node("n1")
    other = service("other", ECHO, cluster_ips=OTHER_IP)
    kproxy.sync(web(), *echo(lab, ["pod-1", "pod-2"]), other, *echo(lab, ["pod-1"], "other"))
    stale, valid = set(), set()
    for family in FAMILIES:
        pod, stays, client = (lab.pod(f"pod-{n}").address(family) for n in (1, 2, 3))
        own, outside, here = SERVICE_IP[family], lab.client("outside").address(family), node.address(family)
        removed, left = (pod, 5353), (stays, 5353)
        stale |= {
            Entry((client, 4001), (own, 53), removed),
            Entry((outside, 4002), (here, 30053), removed),
            Entry((client, 4003), (own, 53), removed, zone=7),
            Entry((client, 4004), (own, 53), (own, 53)),  # untranslated, although there is an endpoint
            Entry((client, 4005), (own, 53), (stays, 5354)),  # an old target port
            Entry((client, 4006), (own, 53), (ELSEWHERE[family], 5353)),  # removed by a sync that was killed
        }
        valid |= {
            Entry((client, 4011), (own, 53), left),
            Entry((client, 4012), (own, 53), left, zone=7),
            Entry((outside, 4013), (here, 30053), left),
            Entry((client, 4014), (own, 53), removed, protocol=socket.IPPROTO_TCP),
            Entry((client, 4015), (own, 54), removed),  # another port of the same address
            Entry((client, 4016), (OTHER_IP[family], 53), removed),  # another service, which has the pod
            Entry((client, 4017), removed, removed),  # the pod itself, without a service
            Entry((client, 4018), (ELSEWHERE[family], 53), (ELSEWHERE[family], 53)),  # DNS on the internet
            Entry((client, 4019), (outside, 30053), (outside, 30053)),  # a node port's number elsewhere
            Entry((client, 4020), (ELSEWHERE[family], 30053), removed),
            Entry((own, 53), (client, 4021), (client, 4021)),  # from a frontend, not to it
        }
    make(node, stale | valid)
    assert entries(node) == stale | valid

    output = kproxy.sync(web(), *echo(lab, ["pod-2"]), other, *echo(lab, ["pod-1"], "other"))
    assert entries(node) == valid
    assert output.count("6 UDP flows ended") == len(FAMILIES)
    # Without a change, and with a change of a TCP service, nothing is deleted.
    output = kproxy.sync(web(), *echo(lab, ["pod-2"]), other, *echo(lab, ["pod-1"], "other"))
    assert "nothing to change" in output
    kproxy.sync(
        *(web(), *echo(lab, ["pod-2"]), other, *echo(lab, ["pod-1"], "other")),
        *(
            service("tcp", cluster_ips={4: "10.96.10.30", 6: "fd00:96::30"}),
            *slices(lab, ["pod-3"], name="tcp"),
        ),
    )
    assert entries(node) == valid


@pytest.mark.parametrize("family", FAMILIES)
def test_other_flows_stay(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    """The same with packets: several kinds of clients send while one of the services changes."""

    def others() -> set[Entry]:
        return {entry for entry in entries(node) if entry.to != (SERVICE_IP[family], 53)}

    other, outside = service("other", ECHO, cluster_ips=OTHER_IP), lab.client("outside")
    rest = (other, *echo(lab, ["pod-1"], "other"))
    kproxy.sync(web(), *echo(lab, ["pod-1"]), *rest)
    client, node = lab.pod("pod-3"), lab.node("n1")
    with (
        talking(client, SERVICE_IP[family], 53) as moves,
        talking(client, OTHER_IP[family], 53) as stays,
        talking(client, lab.pod("pod-1").address(family), 5353) as direct,
        talking(client, outside.address(family), 30053),
        talking(client, outside.address(family), 53),
    ):
        for talk in (moves, stays, direct):
            talk.move("pod-1")
        eventually(lambda: len(others()) >= 4)  # each of the other clients has sent
        before = others()
        kproxy.sync(web(), *echo(lab, ["pod-2"]), *rest)
        moves.move("pod-2")
        assert before <= entries(node)
        assert (stays.settled(), direct.settled()) == ({"pod-1"}, {"pod-1"})


def test_a_sync_completes_a_killed_one(lab: Lab, kproxy: Kproxy) -> None:
    node, pod = lab.node("n1"), lab.pod("pod-1").address(4)
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    # 1. As if it had been killed after the endpoint was replaced, and before stale entries were deleted.
    kproxy.sync(web(), *echo(lab, ["pod-2"]))
    left = Entry((lab.pod("pod-3").address(4), 4001), (SERVICE_IP[4], 53), (pod, 5353))
    make(node, [left])
    assert "1 UDP flow ended" in kproxy.sync(web(), *echo(lab, ["pod-2"]))
    assert entries(node) == set()
    # 2. As if it had been killed after the service was removed, and before its slots were swept.
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    make(node, [left, left._replace(client=("10.244.1.99", 9), answers=("10.244.1.98", 5353))])
    kproxy.nft(f"delete element ip kproxy services {{ {SERVICE_IP[4]} . udp . 53 }}")
    assert "1 UDP flow ended" in kproxy.sync()
    assert [entry.answers[0] for entry in entries(node)] == ["10.244.1.98"]  # not an endpoint of kproxy


@pytest.mark.parametrize(
    ("unknown", "warning"),
    [
        ("GET_STATS", "Cannot delete the conntrack entries of stale UDP flows (ip): Invalid argument"),
        ("GET", ""),  # not used, because the new namespace has no entries
    ],
)
def test_a_kernel_that_cannot_list_conntrack_entries_causes_a_warning(
    monkeypatch: pytest.MonkeyPatch, unknown: str, warning: str
) -> None:
    monkeypatch.setattr(f"kproxy.kernel.conntrack.{unknown}", 0x1FF)  # a message type that no kernel has

    def ask() -> tuple[int, str]:
        with Netlink() as netlink:
            rules = {PackedSocket(bytes(8)): FlowRule(frozenset(), keep_listed=True)}
            ended = end_flows(netlink, TableFamily.IPV4, find_flows(netlink, TableFamily.IPV4, rules))
            return ended.flows, "".join(ended.warnings)

    ended, found = in_fresh_namespace(ask)
    assert (ended, found[: len(warning) or None]) == (0, warning)


def cpu_of_children() -> float:
    """Seconds of CPU that processes of this one used which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_hundred_thousand_flows(lab: Lab, kproxy: Kproxy) -> None:
    """A service with 5,000 of 100,000 flows changes its endpoint. Measures the CPU that this costs."""
    node, pod = lab.node("n1"), (lab.pod("pod-1").address(4), 5353)
    limit = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    count = min(MANY, limit * 3 // 4)
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    make(
        node,
        (
            Entry(
                (f"10.{n // 60000}.{n % 200}.1", 1024 + n % 60000),
                (SERVICE_IP[4], 53) if n % 20 == 0 else ("192.0.2.1", 53),
                pod if n % 20 == 0 else ("192.0.2.1", 53),
            )
            for n in range(count)
        ),
    )

    def one_frontend() -> tuple[float, int]:
        rule = FlowRule(frozenset([pack_socket(parse_address(pod[0]), pod[1])]), keep_listed=True)
        frontend = pack_socket(parse_address(SERVICE_IP[4]), 53)
        with Netlink() as netlink:
            begin = time.thread_time()
            found = find_flows(netlink, TableFamily.IPV4, {frontend: rule})
            return time.thread_time() - begin, end_flows(netlink, TableFamily.IPV4, found).flows

    assert node.inside(one_frontend)[1] == 0
    text = json.dumps({"kind": "List", "items": [web(), *echo(lab, ["pod-2"])]})
    begin = cpu_of_children()
    done = node.run(kproxy.command("sync"), input=text, capture_output=True)
    taken = cpu_of_children() - begin
    assert f"{count // 20} UDP flows ended" in done.stdout
    print(f"{count} entries: one frontend {node.inside(one_frontend)[0]:.3f} s, a whole sync {taken:.2f} s")
    assert taken < 5

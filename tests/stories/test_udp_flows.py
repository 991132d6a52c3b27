"""UDP clients that never pause are led to endpoints that are there; everyone else is left alone."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import udp_ask
from netns_lab.topology import Family

from kproxy.kernel.conntrack import end_flows
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family as TableFamily
from kproxy.model import parse_address
from kproxy.table.flows import FlowRule
from kproxy.table.keys import PackedSocket, pack_socket
from tests.connections import Entry, entries, make, talking, until
from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, service, slices

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
def test_a_client_that_never_pauses_moves_to_the_new_pod(
    lab: Lab, kproxy: Kproxy, family: Family, through: str
) -> None:
    # 1. One endpoint; a client talks to it.
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    client, address, port = lab.pod("pod-3"), SERVICE_IP[family], 53
    if through == "the node port":
        client, address, port = lab.client("outside"), lab.node("n1").address(family), 30053
    with talking(client, address, port) as talk:
        talk.move("pod-1")
        # 2. Another one takes its place. The first one would answer still.
        assert re.search(r"\d UDP flows? ended", kproxy.sync(web(), *echo(lab, ["pod-2"])))
        talk.move("pod-2")
        assert talk.settled() == {"pod-2"}
        # 3. And back, though the first one is dead by then.
        lab.stop_pod("pod-2")
        kproxy.sync(web(), *echo(lab, ["pod-1"]))
        talk.move("pod-1")
        # 4. More endpoints move nobody.
        kproxy.sync(web(), *echo(lab, ["pod-1", "pod-3"]))
        assert talk.settled() == {"pod-1"}
        # 5. The service goes: nobody answers.
        kproxy.sync()
        assert talk.silence()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_that_was_there_before_the_first_endpoint(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    node, address = lab.node("n1"), SERVICE_IP[family]
    # 1. The client begins before there is a service: its packets get into the table untranslated.
    table = "ip" if family == 4 else "ip6"
    kproxy.nft(f"table {table} other {{ chain c {{ type filter hook forward priority 0; ct state new; }}; }}")
    with talking(lab.pod("pod-3"), address, 53) as early:
        until(lambda: any(entry.to == (address, 53) for entry in entries(node)))
        # 2. The service comes, with no endpoint. Another client begins, and is refused.
        kproxy.sync(web())
        assert any(entry.answers == (address, 53) for entry in entries(node))
        with talking(lab.client("outside"), node.address(family), 30053) as late:
            assert (early.silence(), late.silence()) == (True, True)
            # 3. The first endpoint comes, and serves them both.
            kproxy.sync(web(), *echo(lab, ["pod-1"]))
            for talk in (early, late):
                talk.move("pod-1")
            # 4. It goes: refused again. It comes again: served again.
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
        """How each pod is: ready, draining (serves, terminates), or down (terminates)."""
        found = echo(lab, [name.replace("_", "-") for name in pods])
        for slice_ in found:
            for endpoint, how in zip(slice_["endpoints"], pods.values(), strict=True):
                endpoint["conditions"] = {
                    "ready": how == "ready",
                    "serving": how != "down",
                    "terminating": how != "ready",
                }
        return found

    ports = iter(range(20000, 30000))

    def new() -> set[str]:
        """Who answers clients that were not there before: each has a port of its own."""
        client, address = lab.pod("pod-3"), SERVICE_IP[family]
        return {udp_ask(client, address, 53, source_port=next(ports)).pod for _ in range(30)}

    # 1. A client talks to the only endpoint.
    kproxy.sync(web(), *state(pod_1="ready"))
    with talking(lab.pod("pod-3"), SERVICE_IP[family], 53) as talk:
        talk.move("pod-1")
        # 2. The pod begins to terminate; another one is ready. New clients go there; who talks, goes on.
        kproxy.sync(web(), *state(pod_1="draining", pod_2="ready"))
        assert new() == {"pod-2"}
        assert talk.settled() == {"pod-1"}
        # 3. Nothing is ready any more: those that still serve are used again.
        kproxy.sync(web(), *state(pod_1="draining", pod_2="draining"))
        assert new() == {"pod-1", "pod-2"}
        # 4. One is ready again: only that.
        kproxy.sync(web(), *state(pod_1="draining", pod_2="ready"))
        assert new() == {"pod-2"}
        assert talk.settled() == {"pod-1"}
        # 5. The pod serves no more: nothing changes for new clients, but its own moves.
        assert re.search(r"\d UDP flows? ended", kproxy.sync(web(), *state(pod_1="down", pod_2="ready")))
        talk.move("pod-2")


def test_those_entries_and_no_others(lab: Lab, kproxy: Kproxy) -> None:
    """Every kind of entry that is near a stale one, in both families; which ones a sync deletes."""
    node = lab.node("n1")
    other = service("other", ECHO, cluster_ips=OTHER_IP)
    kproxy.sync(web(), *echo(lab, ["pod-1", "pod-2"]), other, *echo(lab, ["pod-1"], "other"))
    stale, fine = set(), set()
    for family in FAMILIES:
        pod, stays, client = (lab.pod(f"pod-{n}").address(family) for n in (1, 2, 3))
        own, outside, here = SERVICE_IP[family], lab.client("outside").address(family), node.address(family)
        gone, left = (pod, 5353), (stays, 5353)
        stale |= {
            Entry((client, 4001), (own, 53), gone),
            Entry((outside, 4002), (here, 30053), gone),
            Entry((client, 4003), (own, 53), gone, zone=7),
            Entry((client, 4004), (own, 53), (own, 53)),  # not translated, while there is an endpoint
            Entry((client, 4005), (own, 53), (stays, 5354)),  # an old target port
            Entry((client, 4006), (own, 53), (ELSEWHERE[family], 5353)),  # removed by a sync that was killed
        }
        fine |= {
            Entry((client, 4011), (own, 53), left),
            Entry((client, 4012), (own, 53), left, zone=7),
            Entry((outside, 4013), (here, 30053), left),
            Entry((client, 4014), (own, 53), gone, protocol=socket.IPPROTO_TCP),
            Entry((client, 4015), (own, 54), gone),  # another port of the same address
            Entry((client, 4016), (OTHER_IP[family], 53), gone),  # another service, which still has the pod
            Entry((client, 4017), gone, gone),  # the pod itself, without a service
            Entry((client, 4018), (ELSEWHERE[family], 53), (ELSEWHERE[family], 53)),  # DNS on the internet
            Entry((client, 4019), (outside, 30053), (outside, 30053)),  # a node port's number elsewhere
            Entry((client, 4020), (ELSEWHERE[family], 30053), gone),
            Entry((own, 53), (client, 4021), (client, 4021)),  # from a frontend, not to it
        }
    make(node, stale | fine)
    assert entries(node) == stale | fine

    output = kproxy.sync(web(), *echo(lab, ["pod-2"]), other, *echo(lab, ["pod-1"], "other"))
    assert entries(node) == fine
    assert output.count("6 UDP flows ended") == len(FAMILIES)
    # Without a change nothing is deleted, nor with a change that is none of UDP's.
    output = kproxy.sync(web(), *echo(lab, ["pod-2"]), other, *echo(lab, ["pod-1"], "other"))
    assert "nothing to change" in output
    kproxy.sync(
        *(web(), *echo(lab, ["pod-2"]), other, *echo(lab, ["pod-1"], "other")),
        *(
            service("tcp", cluster_ips={4: "10.96.10.30", 6: "fd00:96::30"}),
            *slices(lab, ["pod-3"], name="tcp"),
        ),
    )
    assert entries(node) == fine


@pytest.mark.parametrize("family", FAMILIES)
def test_real_flows_of_others_go_on(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    """The same with packets: clients of four kinds talk while a service of theirs or of others changes."""
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
        before = {entry for entry in entries(node) if entry.to != (SERVICE_IP[family], 53)}
        assert len(before) >= 4
        kproxy.sync(web(), *echo(lab, ["pod-2"]), *rest)
        moves.move("pod-2")
        assert before <= entries(node)
        assert (stays.settled(), direct.settled()) == ({"pod-1"}, {"pod-1"})


def test_what_a_killed_sync_left_behind_is_found_by_the_next(lab: Lab, kproxy: Kproxy) -> None:
    node, pod = lab.node("n1"), lab.pod("pod-1").address(4)
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    # 1. Killed when the endpoint was replaced, but its flows not ended yet.
    kproxy.sync(web(), *echo(lab, ["pod-2"]))
    left = Entry((lab.pod("pod-3").address(4), 4001), (SERVICE_IP[4], 53), (pod, 5353))
    make(node, [left])
    assert "1 UDP flow ended" in kproxy.sync(web(), *echo(lab, ["pod-2"]))
    assert entries(node) == set()
    # 2. Killed when the service was removed: only slots are left, which nothing points to.
    kproxy.sync(web(), *echo(lab, ["pod-1"]))
    make(node, [left, left._replace(client=("10.244.1.99", 9), answers=("10.244.1.98", 5353))])
    kproxy.nft(f"delete element ip kproxy services {{ {SERVICE_IP[4]} . udp . 53 }}")
    assert "1 UDP flow ended" in kproxy.sync()
    assert [entry.answers[0] for entry in entries(node)] == ["10.244.1.98"]  # none of ours


def test_a_kernel_without_a_list_of_connections_is_a_warning(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kproxy.kernel.conntrack.GET", 0x1FF)  # a message that no kernel knows

    def ask() -> tuple[int, tuple[str, ...]]:
        with Netlink() as netlink:
            return end_flows(
                netlink, TableFamily.IPV4, {PackedSocket(bytes(8)): FlowRule(frozenset(), others=True)}
            )

    ended, (warning,) = lab.node("n1").inside(ask)
    assert ended == 0
    assert "could not be ended: Invalid argument" in warning


def test_a_hundred_thousand_flows(lab: Lab, kproxy: Kproxy) -> None:
    """A service with 5,000 flows among 100,000 changes its endpoint; a full sync and one port's list."""
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
        rule = FlowRule(frozenset([pack_socket(parse_address(pod[0]), pod[1])]), others=True)
        frontend = pack_socket(parse_address(SERVICE_IP[4]), 53)
        with Netlink() as netlink:
            begin = time.monotonic()
            ended = end_flows(netlink, TableFamily.IPV4, {frontend: rule})
            return time.monotonic() - begin, ended.flows

    assert node.inside(one_frontend)[1] == 0
    begin = time.monotonic()
    output = kproxy.sync(web(), *echo(lab, ["pod-2"]))
    taken = time.monotonic() - begin
    assert f"{count // 20} UDP flows ended" in output
    print(f"{count} entries: one frontend {node.inside(one_frontend)[0]:.3f} s, a whole sync {taken:.2f} s")
    assert taken < 5

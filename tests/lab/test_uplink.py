"""Addresses on the uplink: neighbours reach them, the node does not use them, foreign ones stay."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import echo
from netns_lab.topology import Family, multi

from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import parse_address
from kproxy.problems import HostError
from tests.support import FAMILIES, eventually

pytestmark = pytest.mark.lab

VIP: dict[Family, str] = {4: "192.168.77.100", 6: "fd77::100"}
ELSEWHERE: dict[Family, str] = {4: "203.0.113.9", 6: "2001:db8::9"}


@pytest.fixture
def nodes() -> Iterator[Lab]:
    """Two nodes without pods, and a client outside."""
    with Lab(multi(2, 0)) as lab:
        yield lab


def ip(handle: Handle, *words: str) -> str:
    done = handle.run(["ip", *words], capture_output=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def on(handle: Handle, interface: str = "eth0") -> dict[str, dict[str, Any]]:
    """The addresses of an interface as `ip` lists them, without link-local ones."""
    (link,) = json.loads(ip(handle, "-j", "address", "show", "dev", interface))
    return {a["local"]: a for a in link["addr_info"] if not a["local"].startswith("fe80")}


def add(handle: Handle, *addresses: str, interface: str | None = None) -> AddressReport:
    packed = [parse_address(address) for address in addresses]
    return handle.inside(lambda: Uplink(interface).add(packed))


def withdraw(handle: Handle, *keep: str) -> AddressReport:
    packed = {parse_address(address) for address in keep}
    return handle.inside(lambda: Uplink().withdraw(packed))


def lines(report: AddressReport) -> list[str]:
    assert report.warnings == ()
    return [str(change) for change in report.changes]


def test_added_addresses_answer_until_they_are_withdrawn(nodes: Lab) -> None:
    node, client = nodes.node("n1"), nodes.client("outside")
    before = on(node)
    assert lines(add(node, *VIP.values())) == [
        "+ address 192.168.77.100 on eth0",
        "+ address fd77::100 on eth0",
    ]
    assert all(echo(client, address) for address in VIP.values())
    assert on(node).keys() - before.keys() == set(VIP.values())
    assert lines(add(node, *VIP.values())) == []
    assert lines(withdraw(node, VIP[6])) == ["- address 192.168.77.100 on eth0"]
    assert not echo(client, VIP[4], timeout=0.3)
    assert echo(client, VIP[6])
    assert lines(withdraw(node)) == ["- address fd77::100 on eth0"]
    assert on(node) == before


def test_a_preview_says_what_would_change_and_changes_nothing(nodes: Lab) -> None:
    node = nodes.node("n1")
    packed, preview = [parse_address(address) for address in VIP.values()], Uplink(preview=True)
    for planned, done in (
        (lambda: preview.add(packed), lambda: Uplink().add(packed)),
        (preview.withdraw, Uplink().withdraw),
    ):
        before = on(node)
        report = node.inside(planned)
        assert on(node) == before
        assert report == node.inside(done)
        assert len(report.changes) == 2
        assert on(node) != before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("via", ["gateway", "no gateway"])
def test_the_node_does_not_use_an_address_as_source(nodes: Lab, family: Family, via: str) -> None:
    """Even if it was added before the interface's own address, or if the route has no gateway."""
    node = nodes.node("n1")
    own = node.address(family)
    add(node, VIP[family])
    ip(node, f"-{family}", "address", "del", f"{own}/{24 if family == 4 else 64}", "dev", "eth0")
    nodad = ["nodad"] if family == 6 else []
    ip(node, f"-{family}", "address", "add", f"{own}/{24 if family == 4 else 64}", "dev", "eth0", *nodad)
    gateway = ["via", nodes.client("outside").address(family)] if via == "gateway" else []
    ip(node, f"-{family}", "route", "replace", "default", *gateway, "dev", "eth0")
    for destination in (ELSEWHERE[family], nodes.client("outside").address(family)):
        (route,) = json.loads(ip(node, "-j", "route", "get", destination))
        assert route["prefsrc"] == own


class Frame(NamedTuple):
    source: bytes
    content: bytes
    """The content after the Ethernet header."""


@contextmanager
def frames(handle: Handle, kind: int, matches: Callable[[bytes], bool]) -> Iterator[list[Frame]]:
    """Collect the frames of one EtherType that arrive on eth0 during the block."""
    found: list[Frame] = []
    with handle.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as sniffer:
        sniffer.bind(("eth0", kind))
        sniffer.settimeout(0.3)
        done = threading.Event()

        def listen() -> None:
            while True:
                try:
                    frame = sniffer.recv(2048)
                except TimeoutError:
                    if done.is_set():
                        return
                    continue
                if matches(frame[14:]):
                    found.append(Frame(frame[6:12], frame[14:]))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield found
        finally:
            done.set()
            thread.join()


def hardware(handle: Handle) -> bytes:
    (link,) = json.loads(ip(handle, "-j", "link", "show", "dev", "eth0"))
    return bytes.fromhex(link["address"].replace(":", ""))


def test_gratuitous_arp_in_both_forms(nodes: Lab) -> None:
    node, client = nodes.node("n1"), nodes.client("outside")
    mac, vip = hardware(node), parse_address(VIP[4])
    with frames(client, 0x0806, lambda arp: arp[14:18] == vip) as found:
        add(node, VIP[4])
        eventually(lambda: len(found) >= 6)
    request = bytes.fromhex("0001 0800 06 04 0001") + mac + vip + bytes(6) + vip
    reply = bytes.fromhex("0001 0800 06 04 0002") + mac + vip + mac + vip
    assert [frame.content[:28] for frame in found] == [request, reply] * 3
    assert {frame.source for frame in found} == {mac}
    with frames(client, 0x0806, lambda arp: arp[14:18] == vip) as again:
        add(node, VIP[4])
        eventually(lambda: len(again) >= 2)
    assert [frame.content[:28] for frame in again] == [request, reply], "an existing address: once"


def test_unsolicited_neighbour_advertisements(nodes: Lab) -> None:
    node, client = nodes.node("n1"), nodes.client("outside")
    mac, vip = hardware(node), parse_address(VIP[6])
    with frames(client, 0x86DD, lambda packet: packet[40] == 136 and packet[48:64] == vip) as found:
        add(node, VIP[6])
        eventually(lambda: len(found) >= 3)
    assert len(found) == 3
    for frame in found:
        assert frame.content[7] == 255, "hop limit that receivers require"
        assert frame.content[8:24] == vip
        assert frame.content[24:40] == parse_address("ff02::1")
        assert frame.content[44:48] == bytes([0x20, 0, 0, 0]), "override flag, but not router or solicited"
        assert frame.content[64:72] == bytes([2, 1]) + mac


def neighbour(handle: Handle, address: str) -> bytes:
    (entry,) = json.loads(ip(handle, "-j", "neighbour", "show", "to", address))
    return bytes.fromhex(entry["lladdr"].replace(":", ""))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_uses_the_new_owner_immediately(nodes: Lab, family: Family) -> None:
    """Its neighbour entry was just confirmed, so that only an announcement changes it."""
    one, two, client = nodes.node("n1"), nodes.node("n2"), nodes.client("outside")
    add(one, VIP[family])
    assert echo(client, VIP[family])
    assert neighbour(client, VIP[family]) == hardware(one)
    withdraw(one)
    assert neighbour(client, VIP[family]) == hardware(one)
    add(two, VIP[family])
    eventually(lambda: neighbour(client, VIP[family]) == hardware(two))
    assert echo(client, VIP[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_of_another_program_stays(nodes: Lab, family: Family) -> None:
    node = nodes.node("n1")
    nodad = ["nodad"] if family == 6 else []
    ip(node, "address", "add", f"{VIP[family]}/{26 if family == 4 else 64}", "dev", "eth0", *nodad)
    before = on(node)
    report = add(node, VIP[family])
    assert report.changes == ()
    assert "already configured by another program" in report.warnings[0]
    assert withdraw(node).changes == ()
    assert on(node) == before


def test_a_named_interface(nodes: Lab) -> None:
    node = nodes.node("n1")
    ip(node, "link", "add", "second", "type", "veth", "peer", "name", "end")
    ip(node, "link", "set", "end", "up")
    ip(node, "link", "set", "second", "up")
    add(node, *VIP.values())
    assert lines(add(node, *VIP.values(), interface="second")) == [
        "+ address 192.168.77.100 on second",
        "- address 192.168.77.100 on eth0",
        "+ address fd77::100 on second",
        "- address fd77::100 on eth0",
    ]
    assert on(node, "second").keys() == set(VIP.values())
    assert not on(node).keys() & set(VIP.values())
    with pytest.raises(HostError, match="There is no interface nonsense"):
        add(node, VIP[4], interface="nonsense")


def test_without_a_default_route_there_is_a_warning(nodes: Lab) -> None:
    node = nodes.node("n1")
    ip(node, "route", "del", "default")
    report = add(node, *VIP.values())
    assert [str(change) for change in report.changes] == ["+ address fd77::100 on eth0"]
    assert report.warnings == (
        "192.168.77.100 cannot be added: there is no default route; use --load-balancer-interface",
    )


def test_when_the_default_route_is_gone_an_address_stays_where_it_is(nodes: Lab) -> None:
    node = nodes.node("n1")
    add(node, *VIP.values())
    ip(node, "route", "del", "default")
    report = add(node, *VIP.values())
    assert (report.changes, VIP[4] in on(node)) == ((), True)
    assert report.warnings == (
        "192.168.77.100 stays on eth0: there is no default route; use --load-balancer-interface",
    )


def test_the_preferred_one_of_two_default_routes(nodes: Lab) -> None:
    node = nodes.node("n1")
    ip(node, "link", "add", "second", "type", "veth", "peer", "name", "end")
    ip(node, "link", "set", "end", "up")
    ip(node, "link", "set", "second", "up")
    ip(node, "route", "replace", "default", "via", "192.168.77.1", "metric", "200")
    ip(node, "route", "del", "default", "metric", "0")
    ip(node, "route", "add", "default", "dev", "second", "metric", "100")
    assert lines(add(node, VIP[4])) == ["+ address 192.168.77.100 on second"]


def test_an_error_of_the_kernel_is_a_warning_and_other_addresses_are_added(nodes: Lab) -> None:
    node = nodes.node("n1")
    node.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"], check=True)
    report = add(node, *VIP.values(), interface="eth0")
    assert [str(change) for change in report.changes] == ["+ address 192.168.77.100 on eth0"]
    assert report.warnings == ("fd77::100 cannot be added to eth0: Permission denied",)

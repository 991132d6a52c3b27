"""Counting connections with a real kernel: totals never fall, whatever happens to the elements."""

from __future__ import annotations

import subprocess
from itertools import count, islice

import pytest
from netns_lab.lab import Lab
from netns_lab.netns import in_fresh_namespace
from netns_lab.probe import many
from netns_lab.topology import Family

from kproxy.kernel.netlink.core.constants import NFT_MSG_DELSETELEM
from kproxy.kernel.netlink.core.elements import element_messages
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family as Nft
from kproxy.model import NamespacedName, Protocol, ServicePortName
from kproxy.nft.elements import Value
from kproxy.observe import kernel_counters
from kproxy.observe.core.counters import Connections, Counted, NoLocal
from kproxy.observe.kernel_counters import Reading, known_maps, read_frontend, read_tables
from kproxy.table.layout import SetName, format_packed, frontend_key
from tests.support import FAMILIES, SERVICE_IP, Kproxy, service, slices, sticky

pytestmark = pytest.mark.lab

WEB = ServicePortName(NamespacedName("default", "web"), "")


class Counting:
    """Reads the counters of the lab's node."""

    def __init__(self, kproxy: Kproxy) -> None:
        self.kproxy = kproxy
        self.connections, self.known = Connections(by_endpoint=True), known_maps()

    def total(self) -> int:
        """Read the counters. Returns the number of connections to the Service."""
        self.kproxy.node.inside(lambda: read_tables(self.connections, self.known))
        return self.connections.services[WEB]

    def of_endpoints(self) -> dict[str, int]:
        """Return the connections of each endpoint, as of the last reading."""
        return {format_packed(socket): count for (_, socket), count in self.connections.endpoints.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_totals_continue_after_elements_are_rewritten(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    counting, client = Counting(kproxy), lab.pod("pod-1")
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2", "pod-3"]))
    assert counting.total() == 0
    got = many(client, SERVICE_IP[family], 80, 60)
    assert counting.total() == 60
    changes = counting.connections.changes
    assert counting.total() == 60  # no new connections
    assert counting.connections.changes == changes
    by_pod = {lab.pod(pod).address(family): count for pod, count in got.items()}
    assert {
        address.rpartition(":")[0].strip("[]"): n for address, n in counting.of_endpoints().items()
    } == by_pod

    kproxy.sync(service(), *slices(lab, ["pod-2"]))  # slots move, and their counters restart at 0
    assert counting.total() == 60
    many(client, SERVICE_IP[family], 80, 5)
    assert counting.total() == 65

    kproxy.nft(f"delete table {'ip' if family == 4 else 'ip6'} kproxy")
    kproxy.sync(service(), *slices(lab, ["pod-2"]))
    many(client, SERVICE_IP[family], 80, 2)
    assert counting.total() == 67


def test_a_total_includes_both_families_and_node_ports(lab: Lab, kproxy: Kproxy) -> None:
    node_port = {"port": 80, "targetPort": 8080, "nodePort": 30080}
    kproxy.sync(service("web", node_port, type="NodePort"), *slices(lab, ["pod-1"]))
    counting, outside = Counting(kproxy), lab.client("outside")
    for family in FAMILIES:
        many(lab.pod("pod-2"), SERVICE_IP[family], 80, 3)
        many(outside, lab.node("n1").address(family), 30080, 4)
    assert counting.total() == 14


@pytest.mark.parametrize("family", FAMILIES)
def test_sticky_connections_are_counted_and_refused_ones_are_not(
    lab: Lab, kproxy: Kproxy, family: Family
) -> None:
    counting, client = Counting(kproxy), lab.pod("pod-1")
    kproxy.sync(service(**sticky()), *slices(lab, ["pod-1", "pod-2"]))
    many(client, SERVICE_IP[family], 80, 10, concurrency=1)
    assert counting.total() == 10
    kproxy.sync(service(**sticky()))
    many(client, SERVICE_IP[family], 80, 4)
    assert counting.total() == 10


def test_without_tables_there_are_no_totals(lab: Lab) -> None:
    connections = Connections()
    lab.node("n1").inside(lambda: read_tables(connections, known_maps()))
    assert connections.services == {}


def test_the_number_of_frontends_is_read(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service(internalTrafficPolicy="Local"), *slices(lab, ["pod-1"]))
    connections, known = Connections(), known_maps()

    def reading(family: Nft) -> Reading:
        return kproxy.node.inside(lambda: read_tables(connections, known))[family]

    assert reading(Nft.IPV4) == reading(Nft.IPV6) == Reading(1, NoLocal(0, 0))
    elsewhere = slices(lab, ["pod-1"])
    for found in elsewhere:
        found["endpoints"][0]["nodeName"] = "n2"
    done = kproxy.run("sync", service(internalTrafficPolicy="Local"), *elsewhere)
    assert done.returncode == 0, done.stderr
    assert reading(Nft.IPV4) == Reading(1, NoLocal(1, 0))
    outside = service(type="LoadBalancer", externalTrafficPolicy="Local")
    done = kproxy.run("sync", outside, *elsewhere)
    assert done.returncode == 0, done.stderr
    assert reading(Nft.IPV4).no_local == NoLocal(0, 1)


def test_concurrent_commits_do_not_affect_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    """During a commit, the kernel's dump lacks some elements and contains others twice."""
    lasting, passing, each = 10_000, 4_000, 7

    def text(number: int, comment: str) -> str:
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        return f'{address} . tcp . 80 counter packets {each} bytes 0 comment "{comment}" : goto lb-1'

    def read() -> int:
        elements = [text(n, str(WEB)) for n in range(lasting)]
        elements += [text(lasting + n, "default/passing") for n in range(passing)]
        script = "add table ip kproxy; add chain ip kproxy lb-1; add map ip kproxy services "
        script += "{ type ipv4_addr . inet_proto . inet_service : verdict; counter; }"
        script += f"; add element ip kproxy services {{ {', '.join(elements)} }}"
        subprocess.run(["nft", "-f", "-"], input=script.replace("; ", "\n", 2), text=True, check=True)
        connections, known, seen = Connections(), known_maps(), count()
        going = (frontend_key(bytes([10, n >> 16, n >> 8 & 255, n & 255]), Protocol.TCP, 80)
                 for n in range(lasting, lasting + passing))  # fmt: skip

        def disturbed(element: memoryview) -> Counted:
            if next(seen) % 500 == 250:
                removed: dict[bytes, Value] = dict.fromkeys(islice(going, 20), b"")
                other.commit(element_messages(NFT_MSG_DELSETELEM, Nft.IPV4, SetName.SERVICES, removed))
            return read_frontend(element)

        monkeypatch.setattr(kernel_counters, "read_frontend", disturbed)
        with Netlink() as other:
            for _ in range(6):
                read_tables(connections, known)
            monkeypatch.undo()
            read_tables(connections, known)
        return connections.services[WEB]

    assert in_fresh_namespace(read) == lasting * each

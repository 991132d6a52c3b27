"""A table with more endpoints than `--max-endpoint-counters` does not count the connections of each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.netns import in_fresh_namespace
from netns_lab.probe import http_get, many
from netns_lab.topology import Family as LabFamily

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.observe.core.counters import Connections
from kproxy.observe.kernel_counters import known_maps, read_tables
from kproxy.problems import TransactionError
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import compile_frontends, whole
from kproxy.table.layout import format_packed
from kproxy.table.skeleton import Options
from tests import forkserver
from tests.connections import accepting, opening
from tests.support import (
    FAMILIES,
    SERVICE_IP,
    Kproxy,
    Running,
    changes,
    eventually,
    service,
    slices,
    sticky,
)
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

TABLES = ("ip", "ip6")
FLAG = "--max-endpoint-counters"


def counted(kproxy: Kproxy) -> list[bool]:
    """Return whether each table counts connections by endpoint, as nft lists the map."""
    listings = [kproxy.nft(f"list map {table} kproxy endpoints-tcp") for table in TABLES]
    found = ["\n\t\tcounter\n" in listing for listing in listings]
    for listing, declared in zip(listings, found, strict=True):
        elements = listing.partition("elements")[2].split(",")
        assert all((" counter packets " in element) == declared for element in elements if ":" in element)
    return found


STEPS = [
    (2, "2", True, ""),
    (3, "2", False, "connections are not counted by endpoint: 3 endpoints, --max-endpoint-counters 2"),
    (3, "2", False, ""),
    (2, "2", False, ""),
    (1, "2", True, "connections are counted by endpoint again: 1 endpoint, --max-endpoint-counters 2"),
    (1, "0", False, "connections are not counted by endpoint: 1 endpoint, --max-endpoint-counters 0"),
]
"""The number of endpoints, the flag, whether they are counted then, and what the sync says."""


def test_the_number_of_counters_has_a_bound(lab: Lab, kproxy: Kproxy) -> None:
    pods = ["pod-1", "pod-2", "pod-3"]
    for number, limit, is_counted, message in STEPS:
        manifests = service(), *slices(lab, pods[:number])
        said = [f"! {table} kproxy: {message}" for table in TABLES] if message else []
        if number == 1:
            done = kproxy.run("diff", *manifests, flags=[FLAG, limit])
            assert (done.returncode, changes(done.stdout, "!")) == (1, said)
        output = kproxy.sync(*manifests, flags=[FLAG, limit])
        assert changes(output, "!") == said
        assert ("nothing to change" in output) == (number == 3 and not message)
        assert counted(kproxy) == [is_counted] * 2
        for family in FAMILIES:
            assert http_get(lab.pod("pod-1"), SERVICE_IP[family], 80).pod in pods[:number]


def test_a_listing_without_counters_loads_again(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2"]), flags=[FLAG, "1"])
    saved, empty = kproxy.nft("list ruleset"), lab.client("outside")
    empty.run(["nft", "-f", "-"], input=saved, check=True)
    assert empty.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout == saved


def test_a_script_counts_by_its_number_of_endpoints(lab: Lab, kproxy: Kproxy) -> None:
    manifests = service(), *slices(lab, ["pod-1", "pod-2"])
    for limit, is_counted in (("2", True), ("1", False)):
        kproxy.nft(kproxy.run("compile", *manifests, flags=[FLAG, limit]).stdout)
        assert counted(kproxy) == [is_counted] * 2


def test_endpoints_that_are_not_counted_have_no_series(lab: Lab, kproxy: Kproxy) -> None:
    """The totals of Services continue."""
    connections, known = Connections(by_endpoint=True), known_maps()

    def read() -> tuple[int, list[str]]:
        kproxy.node.inside(lambda: read_tables(connections, known))
        total = sum(connections.services.values())
        return total, sorted(format_packed(name.socket) for name in connections.endpoints)

    here, address = slices(lab, ["pod-2"]), f"{lab.pod('pod-2').address(4)}:8080"
    kproxy.sync(service(), *here)
    many(lab.pod("pod-1"), SERVICE_IP[4], 80, 5)
    assert read() == (5, [address])
    kproxy.sync(service(), *here, flags=[FLAG, "0"])
    many(lab.pod("pod-1"), SERVICE_IP[4], 80, 3)
    assert read() == (8, [])
    kproxy.sync(service(), *here)
    many(lab.pod("pod-1"), SERVICE_IP[4], 80, 2)
    assert read() == (10, [address])
    assert list(connections.endpoints.values()) == [2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_replaced_table_keeps_affinity_but_not_to_removed_endpoints(
    lab: Lab, kproxy: Kproxy, family: LabFamily
) -> None:
    clients = [lab.pod(pod) for pod in ("pod-1", "pod-2", "pod-3")] + [lab.client("outside")]

    def answering() -> list[str]:
        return [http_get(client, SERVICE_IP[family], 80).pod for client in clients]

    kproxy.sync(service(**sticky()), *slices(lab, ["pod-1"]))
    assert set(answering()) == {"pod-1"}
    kproxy.sync(service(**sticky()), *slices(lab, ["pod-1", "pod-2"]), flags=[FLAG, "1"])
    assert set(answering()) == {"pod-1"}
    kproxy.sync(service(**sticky()), *slices(lab, ["pod-2"]))
    assert set(answering()) == {"pod-2"}


def test_the_maximum_is_passed_while_clients_connect(lab: Lab, tmp_path: Path) -> None:
    """`kproxy run` replaces its table in the change that exceeds the maximum, and no connection fails."""
    outside, flags = lab.client("outside"), [FLAG, "2"]
    with Running(lab.node("n1"), tmp_path, flags) as running, accepting(lab.pod("pod-1"), 9000):
        port = {"port": 80, "targetPort": 9000}
        load = service("load", port, families=(4,), cluster_ips={4: "10.96.20.1"})
        running.write("load", load, *slices(lab, ["pod-1"], 9000, "load")[:1])
        running.write("web", service(**sticky()), *slices(lab, ["pod-2"]))
        eventually(lambda: "default/web" in running.logged(), running.logged)
        assert counted(running.kproxy) == [True, True]
        with opening(outside, ["10.96.20.1"], 80, 500) as opened:
            opened.more(20)
            assert set(many(outside, SERVICE_IP[4], 80, 4)) == {"pod-2"}
            running.write("web", service(**sticky()), *slices(lab, ["pod-2", "pod-3"]))
            message = "ip kproxy: connections are not counted by endpoint: 3 endpoints"
            eventually(lambda: message in running.logged(), running.logged)
            opened.more(20)
            assert set(many(outside, SERVICE_IP[4], 80, 20, concurrency=1)) == {"pod-2"}  # affinity
            running.write("web", service(), *slices(lab, ["pod-3"]))
            eventually(lambda: set(many(outside, SERVICE_IP[4], 80, 4)) == {"pod-3"}, running.logged)
            opened.more(20)
        assert (opened.failures, opened.repeated) == ({}, 0)
        assert counted(running.kproxy) == [False, True]  # IPv6 has two endpoints
        assert "rewritten" not in running.logged()
        found = forkserver.run(running.kproxy.node, ["connections", "web", "--interval", "200ms"])
        assert "not counted by endpoint (--max-endpoint-counters)" in found.stdout, found.stderr
        running.write("web", service())
        message = "ip kproxy: connections are counted by endpoint again: 1 endpoint,"
        eventually(lambda: message in running.logged(), running.logged)
        many(outside, "10.96.20.1", 80, 1)
        assert counted(running.kproxy)[0]


def test_if_the_replacement_fails_nothing_has_changed() -> None:
    """Another program deleted the table. It is restored, and the change is programmed by a comparison."""
    options, few = (
        Options(max_endpoint_counters=2),
        [frontend("10.96.0.9:80", ["10.0.0.1:80", "10.0.0.2:80"])],
    )
    more = [*few, frontend("10.96.0.8:80", ["10.0.0.3:80"], "default/other")]

    def story() -> tuple[bool, int, bool, bool]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV4, options)
            dataplane.reconcile(compile_frontends(few, Family.IPV4))
            subprocess.run(["nft", "delete table ip kproxy"], check=True)
            try:
                dataplane.change(whole(more[1:], Family.IPV4))
            except TransactionError:
                refused = True
            else:
                refused = False
            endpoints, restored = dataplane.endpoints, bool(dataplane.restore())
            dataplane.reconcile(compile_frontends(more, Family.IPV4))
            same = Dataplane(netlink, Family.IPV4, options).reconcile(compile_frontends(more, Family.IPV4))
            return refused, endpoints, restored, not same

    assert in_fresh_namespace(story) == (True, 2, True, True)

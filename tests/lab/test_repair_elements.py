"""Repair of single elements that other programs changed, without reading the table."""

from __future__ import annotations

import subprocess

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.monitor import TableMonitor
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, Protocol
from kproxy.problems import TransactionError
from kproxy.reconcile.core.report import Report, RoundReport, lines
from kproxy.reconcile.dataplane import LARGE, Dataplane
from kproxy.table.compile import Desired, compile_frontends
from kproxy.table.layout import SetName
from kproxy.table.skeleton import Options
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

ENDS = ["10.0.0.1:8080", "10.0.0.2:8080"]
REPAIRED = {
    "delete element ip kproxy cluster-ips { 10.96.0.9 }": (0, 1),
    "add element ip kproxy cluster-ips { 10.96.0.77 }": (1, 0),
    "add element ip kproxy cluster-ips { 10.96.0.77 }; delete element ip kproxy cluster-ips { 10.96.0.9 }": (
        1,
        1,
    ),
    "delete element ip kproxy services { 10.96.0.9 . tcp . 80 }; "
    "add element ip kproxy services { 10.96.0.9 . tcp . 80 : drop }": (0, 1),
    "delete element ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 0 }; "
    "add element ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 0 : 192.0.2.66 . 666 }": (0, 1),
}
NOT_REPAIRED = (
    "flush chain ip kproxy services",
    "delete element ip kproxy endpoints-udp { 10.96.0.9 . 53 . 0 }",
    "delete element ip kproxy services { 10.96.0.9 . udp . 53 }",
    "flush map ip kproxy services",
    "add element ip kproxy services { * : drop }",
    "add element ip kproxy cluster-ips { * }",
    "add element ip kproxy services { 10.96.0.9 . icmp . 80 : drop }",
    "add element ip kproxy pod-cidrs { 10.9.0.0/16 }",
    "add element ip kproxy affinity-tcp { 10.0.0.7 . 10.96.0.9 . 80 : 192.0.2.66 . 666 }",
    "add element ip kproxy source-ranges { 10.96.0.9 . tcp . 80 . 192.0.2.0/24 }",
)
OPTIONS = Options(pod_cidrs=())


def desired() -> Desired:
    return compile_frontends(
        [
            frontend("10.96.0.9:80", ENDS, timeout=60),
            frontend("10.96.0.9:53", ENDS, "default/dns", protocol=Protocol.UDP),
            frontend("10.96.0.8:80", ENDS, "default/other"),
        ],
        Family.IPV4,
    )


def after(script: str) -> tuple[Report | None, bool]:
    """Run an nft script on a table. Returns the report of the repair, and whether the table is correct."""
    with Netlink() as netlink:
        dataplane = Dataplane(netlink, Family.IPV4, OPTIONS)
        dataplane.reconcile(desired())
        monitor = TableMonitor(netlink.port)
        subprocess.run(["nft", script], check=True)
        keys = monitor.foreign_changes()[Family.IPV4]
        report = dataplane.repair_elements(keys) if keys is not None else None
        return report, not Dataplane(netlink, Family.IPV4, OPTIONS).reconcile(desired())


@pytest.mark.parametrize("script", REPAIRED)
def test_a_repair_makes_the_table_correct(script: str) -> None:
    report, right = in_fresh_namespace(lambda: after(script))
    assert right
    assert report is not None
    assert (report.removed, report.added) == REPAIRED[script]
    assert len(report.repaired) == sum(REPAIRED[script])


@pytest.mark.parametrize("script", NOT_REPAIRED)
def test_other_changes_need_a_full_comparison(script: str) -> None:
    assert in_fresh_namespace(lambda: after(script))[0] is None


def test_repaired_elements_are_reported() -> None:
    report, _ = in_fresh_namespace(
        lambda: after("delete element ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 1 }")
    )
    assert report is not None
    assert list(lines(RoundReport((report,)))) == [
        "! rewritten: ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 1 }"
    ]


def test_many_elements_need_a_full_comparison() -> None:
    def repair_elements() -> Report | None:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV4, OPTIONS)
            dataplane.reconcile(desired())
            return dataplane.repair_elements(
                {SetName.CLUSTER_IPS: {number.to_bytes(4, "big") for number in range(LARGE + 1)}}
            )

    assert in_fresh_namespace(repair_elements) is None


def test_elements_of_a_missing_table_cannot_be_repaired() -> None:
    """The failed repair keeps the record of the table's content, so that the table can be restored."""

    def repair_elements() -> tuple[bool, bool, bool]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV4, OPTIONS)
            dataplane.reconcile(desired())
            subprocess.run(["nft", "delete table ip kproxy"], check=True)
            try:
                dataplane.repair_elements({SetName.CLUSTER_IPS: {b"\x0a\x60\x00\x09"}})
            except TransactionError:
                failed = True
            else:
                failed = False
            restored = dataplane.restore() is not None
            return failed, restored, not Dataplane(netlink, Family.IPV4, OPTIONS).reconcile(desired())

    assert in_fresh_namespace(repair_elements) == (True, True, True)


def test_affinity_entries_for_a_wrong_endpoint_are_removed() -> None:
    """A client was assigned to a wrong endpoint before the repair."""

    def repair_elements() -> str:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV4, OPTIONS)
            dataplane.reconcile(desired())
            wrong = "10.96.0.9 . 80 . 0 : 192.0.2.66 . 666"
            script = (
                "delete element ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 0 }; "
                f"add element ip kproxy endpoints-tcp {{ {wrong} }}; "
                "add element ip kproxy affinity-tcp { 10.0.0.7 . 10.96.0.9 . 80 : 192.0.2.66 . 666 }"
            )
            subprocess.run(["nft", script], check=True)
            keys = {bytes([10, 96, 0, 9, 0, 80, 0, 0, 0, 0, 0, 0])}
            assert dataplane.repair_elements({SetName.ENDPOINTS_TCP: keys}) is not None
            listing = ["nft", "list", "map", "ip", "kproxy", "affinity-tcp"]
            return subprocess.run(listing, check=True, capture_output=True, text=True).stdout

    assert "192.0.2.66" not in in_fresh_namespace(repair_elements)

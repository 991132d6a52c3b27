"""Elements that others changed are put right one by one, without reading the table."""

from __future__ import annotations

import subprocess

import pytest

from kproxy.kernel.monitor import TableMonitor
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, Protocol
from kproxy.problems import TransactionError
from kproxy.reconcile.core.report import Report, RoundReport, lines
from kproxy.reconcile.dataplane import LARGE, Dataplane
from kproxy.table.compile import Desired, compile_frontends
from kproxy.table.names import SetName
from kproxy.table.skeleton import Options
from tests.unit.make import frontend
from tests.unit.namespace import in_fresh_namespace

pytestmark = pytest.mark.lab

ENDS = ["10.0.0.1:8080", "10.0.0.2:8080"]
MENDED = {
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
NOT_MENDED = (
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
    """What is mended after an nft script, and whether the table is right then; in a namespace of its own."""
    with Netlink() as netlink:
        dataplane = Dataplane(netlink, Family.IPV4, OPTIONS)
        dataplane.reconcile(desired())
        monitor = TableMonitor(netlink.port)
        subprocess.run(["nft", script], check=True)
        keys = monitor.foreign_changes(dataplane.own_generations.__contains__)[Family.IPV4]
        report = dataplane.repair_elements(keys) if keys is not None else None
        return report, not Dataplane(netlink, Family.IPV4, OPTIONS).reconcile(desired())


@pytest.mark.parametrize("script", MENDED)
def test_what_is_mended_is_right(script: str) -> None:
    report, right = in_fresh_namespace(lambda: after(script))
    assert right
    assert report is not None
    assert (report.removed, report.added) == MENDED[script]
    assert len(report.repaired) == sum(MENDED[script])


@pytest.mark.parametrize("script", NOT_MENDED)
def test_what_takes_more_is_left_to_a_whole_check(script: str) -> None:
    assert in_fresh_namespace(lambda: after(script))[0] is None


def test_what_was_mended_is_named() -> None:
    report, _ = in_fresh_namespace(
        lambda: after("delete element ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 1 }")
    )
    assert report is not None
    assert list(lines(RoundReport((report,)))) == [
        "! rewritten: ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 1 }"
    ]


def test_many_at_once_are_left_to_a_whole_check() -> None:
    def repair_elements() -> Report | None:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV4, OPTIONS)
            dataplane.reconcile(desired())
            return dataplane.repair_elements(
                {SetName.CLUSTER_IPS: {number.to_bytes(4, "big") for number in range(LARGE + 1)}}
            )

    assert in_fresh_namespace(repair_elements) is None


def test_a_table_that_is_gone_cannot_be_mended() -> None:
    """Nothing is forgotten of what it held: it can be restored."""

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


def test_clients_that_were_led_astray_are_let_go_of() -> None:
    """A wrong endpoint was remembered for a client before it was put right."""

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

"""Whether a table need be compared again is known by counting generations, without reading it."""

from __future__ import annotations

import subprocess

import pytest

from kproxy.compile.elements import Delta, Desired, compile_frontends
from kproxy.compile.skeleton import Options
from kproxy.kernel.dataplane import Dataplane
from kproxy.kernel.monitor import TableMonitor
from kproxy.kernel.netlink import Netlink
from kproxy.model import Family
from tests.unit.make import frontend
from tests.unit.namespace import in_fresh_namespace

pytestmark = pytest.mark.lab

FOREIGN = (
    "delete element ip kproxy cluster-ips { 10.96.0.9 }",
    "add element ip kproxy cluster-ips { 10.96.0.10 }",
    "flush chain ip kproxy services",
    "flush ruleset",
    "add table ip other",
)
"""The last one is not about our table, but who would know without reading it."""


def desired(ends: list[str], family: Family, timeout: int | None = 60) -> Desired:
    return compile_frontends([frontend("10.96.0.9:80", ends, timeout=timeout)], family)


@pytest.mark.parametrize("script", FOREIGN)
def test_what_others_commit_leaves_doubt_until_it_is_read(script: str) -> None:
    def look() -> list[bool]:
        with Netlink() as netlink:
            tables = {family: Dataplane(netlink, family, Options()) for family in Family}
            four = tables[Family.IPV4]
            seen = [four.is_ours_alone()]
            for ends in (["10.0.0.1:80"], ["10.0.0.1:80", "10.0.0.2:80"]):  # the second one makes chains
                for family, table in tables.items():
                    table.reconcile(desired(ends, family))
            seen.append(four.is_ours_alone())
            three = desired(["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"], Family.IPV4, timeout=None)
            four.change(Delta(dict(three.targets), {}))
            seen.append(four.is_ours_alone())
            subprocess.run(["nft", script], check=True)
            seen.append(four.is_ours_alone())
            four.reconcile(three)
            return [*seen, four.is_ours_alone(), tables[Family.IPV6].is_ours_alone()]

    assert in_fresh_namespace(look) == [False, True, True, False, True, False]


def test_who_is_deaf_hears_nothing_and_then_again() -> None:
    def listen() -> list[set[Family]]:
        with Netlink() as netlink:
            monitor, table = TableMonitor(netlink.port), Dataplane(netlink, Family.IPV4, Options())
            table.reconcile(desired(["10.0.0.1:80"], Family.IPV4))
            heard = [set(monitor.touched(table.own_generations.__contains__))]
            with monitor.deaf():
                subprocess.run(["nft", FOREIGN[0]], check=True)
            heard.append(set(monitor.touched(table.own_generations.__contains__)))
            subprocess.run(["nft", FOREIGN[1]], check=True)
            return [*heard, set(monitor.touched(table.own_generations.__contains__))]

    assert in_fresh_namespace(listen) == [set(), set(), {Family.IPV4}]

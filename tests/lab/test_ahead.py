"""A daemon reads its tables before it needs them: the first comparison finds what is there at its time."""

from __future__ import annotations

import subprocess
from concurrent.futures import wait
from functools import partial

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.nft.elements import Elements
from kproxy.reconcile import dataplane as dataplane_module
from kproxy.reconcile.ahead import ReadAhead, read_set
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Desired, compile_frontends
from kproxy.table.skeleton import Options
from tests.support import eventually
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

ADDRESSES = {Family.IPV4: ("10.96.0.9", "10.0.0.%d:80"), Family.IPV6: ("[fd00:96::9]", "[fd00::%d]:80")}


def desired(family: Family) -> Desired:
    address, endpoint = ADDRESSES[family]
    ends = [endpoint % number for number in range(1, 5)]
    services = [frontend(f"{address}:{port}", ends, owner=f"a/s{port}") for port in range(1, 600)]
    return compile_frontends(services, family)


@pytest.mark.parametrize("family", Family)
def test_a_table_that_stays_the_same_is_not_read_again(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    def story() -> None:
        with Netlink() as netlink:
            before = Dataplane(netlink, family, Options())
            before.reconcile(desired(family))
            ahead = ReadAhead()
            again = Dataplane(netlink, family, Options(), ahead=ahead)
            wait(ahead.found.values())
            read: list[bytes] = []

            def noticed(*arguments: object) -> object:
                found = dict(read_set(*arguments))  # type: ignore[arg-type]
                read.extend(found)
                return found.items()

            monkeypatch.setattr(dataplane_module, "read_set", noticed)
            report = again.reconcile(desired(family))
            assert (report.added, report.removed, report.rewritten, read) == (0, 0, (), [])
            assert again.applied == before.applied
            again.read()
            assert len(read) == sum(map(len, before.applied.values()))

    in_fresh_namespace(story)


def reads(dataplane: Dataplane, expected: Elements) -> bool:
    """Whether the kernel lists these elements. While it enlarges a map, its lists are incomplete."""
    dataplane.read()
    return dataplane.applied == expected


def test_a_change_in_between_is_found_and_a_missing_table_is_created() -> None:
    family = Family.IPV4

    def story() -> None:
        with Netlink() as netlink:
            for script in (
                "flush map ip kproxy services",
                "flush map ip kproxy endpoints-tcp",
                "delete table ip kproxy",
            ):
                Dataplane(netlink, family, Options()).reconcile(desired(family))
                ahead = ReadAhead()
                wait(ahead.found.values())
                subprocess.run(["nft", script], check=True)
                after = Dataplane(netlink, family, Options(), ahead=ahead)
                assert after.reconcile(desired(family)).added >= 599
                eventually(partial(reads, after, after.applied))
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            ahead = ReadAhead()  # there is no table
            after = Dataplane(netlink, family, Options(), ahead=ahead)
            assert after.reconcile(desired(family)).added

    in_fresh_namespace(story)

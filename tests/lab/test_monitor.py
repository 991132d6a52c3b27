"""The monitor reports changes by other programs and changes of addresses, but not kproxy's own changes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from ipaddress import ip_address

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel import monitor as kernel_monitor
from kproxy.kernel.monitor import TableMonitor, address_changes
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, Protocol, parse_address
from kproxy.nft.elements import Keys
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Desired, compile_frontends
from kproxy.table.layout import SetName, frontend_key
from kproxy.table.skeleton import Options
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

NINE, TEN = parse_address("10.96.0.9"), parse_address("10.96.0.10")
FOREIGN: dict[str, dict[Family, Keys | None]] = {
    "flush ruleset": {Family.IPV4: None, Family.IPV6: None},
    "delete table ip kproxy": {Family.IPV4: None},
    "flush chain ip6 kproxy services": {Family.IPV6: None},
    "delete element ip kproxy cluster-ips { 10.96.0.9 }": {Family.IPV4: {SetName.CLUSTER_IPS: {NINE}}},
    "flush map ip kproxy services": {
        Family.IPV4: {SetName.SERVICES: {frontend_key(NINE, Protocol.TCP, 80)}},
    },
    "add element ip kproxy cluster-ips { 10.96.0.10, 10.96.0.11 }; "
    "delete element ip kproxy cluster-ips { 10.96.0.9, 10.96.0.11 }": {
        Family.IPV4: {SetName.CLUSTER_IPS: {NINE, TEN, parse_address("10.96.0.11")}},
    },
    "add element ip kproxy cluster-ips { 10.96.0.10 }; add chain ip kproxy mine": {Family.IPV4: None},
    "add table ip other; add chain ip other c; delete table ip other": {},
}


def desired(endpoints: list[str], family: Family) -> Desired:
    return compile_frontends([frontend("10.96.0.9:80", endpoints, timeout=60)], family)


@pytest.mark.parametrize("script", FOREIGN)
def test_foreign_changes_are_reported(script: str) -> None:
    def changes() -> tuple[dict[Family, Keys | None], dict[Family, Keys | None]]:
        with Netlink() as netlink:
            monitor = TableMonitor(netlink.port)
            dataplanes = {family: Dataplane(netlink, family, Options()) for family in Family}
            for ends in (["10.0.0.1:80"], ["10.0.0.1:80", "10.0.0.2:80"]):
                for family, dataplane in dataplanes.items():
                    dataplane.reconcile(desired(ends, family))
            own = monitor.foreign_changes()
            subprocess.run(["nft", script], check=True)
            return own, monitor.foreign_changes()

    own, foreign = in_fresh_namespace(changes)
    assert own == {}
    assert foreign == FOREIGN[script]


def test_lost_messages_count_as_a_change_of_everything() -> None:
    """The buffer of the socket is full."""

    def changes() -> dict[Family, Keys | None]:
        with Netlink() as netlink:
            monitor = TableMonitor(netlink.port)
            many = ", ".join(str(ip_address(n)) for n in range(1 << 24, (1 << 24) + 20_000))
            script = "add table ip other; add set ip other s { type ipv4_addr; }"
            subprocess.run(["nft", script], check=True)
            for _ in range(3):
                lines = f"add element ip other s {{ {many} }}\nflush set ip other s\n"
                subprocess.run(["nft", "-f", "-"], input=lines, text=True, check=True)
            return monitor.foreign_changes()

    assert in_fresh_namespace(changes) == dict.fromkeys(Family)


def test_a_new_address_is_reported() -> None:
    async def watch() -> None:
        changed = asyncio.Event()
        task = asyncio.create_task(address_changes(changed.set))
        await asyncio.sleep(0)  # now it listens
        await asyncio.to_thread(os.system, "ip link set lo up && ip address add 192.0.2.1/32 dev lo")
        async with asyncio.timeout(60):
            await changed.wait()
        task.cancel()

    in_fresh_namespace(lambda: asyncio.run(watch()))


def test_waiting_until_addresses_settle_uses_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the socket is readable during the wait."""
    monkeypatch.setattr(kernel_monitor, "SETTLING", 1.0)

    def used() -> float:
        async def watch() -> float:
            task = asyncio.create_task(address_changes(lambda: None))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(os.system, "ip link set lo up")
            before = time.process_time()
            await asyncio.sleep(0.5)
            task.cancel()
            return time.process_time() - before

        return asyncio.run(watch())

    assert in_fresh_namespace(used) < 0.1


def test_many_messages_are_read_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_monitor, "NETLINK_DATAGRAMS", 3)

    def parts() -> list[set[Family]]:
        with Netlink() as netlink:
            monitor = TableMonitor(netlink.port)
            lines = "add table ip other\ndelete table ip other\n" * 5
            for line in [*lines.splitlines(), "add table ip kproxy"]:
                subprocess.run(["nft", line], check=True)
            return [set(monitor.foreign_changes()) for _ in range(20)]

    found = in_fresh_namespace(parts)
    assert found[0] == set()
    assert found.count({Family.IPV4}) == 1

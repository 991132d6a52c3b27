"""Generation numbers tell whether another program changed a table, without reading the table."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from itertools import count, islice

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.live_table import rule_handles
from kproxy.kernel.monitor import TableMonitor
from kproxy.kernel.netlink.core.codec import BatchMessage
from kproxy.kernel.netlink.core.constants import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_GETCHAIN,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
)
from kproxy.kernel.netlink.core.elements import element_messages, read_element
from kproxy.kernel.netlink.socket import Interrupted, Netlink
from kproxy.model import Family, Protocol
from kproxy.nft.elements import Value
from kproxy.reconcile import affinity, dataplane
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Delta, Desired, compile_frontends, difference
from kproxy.table.layout import affinity_map
from kproxy.table.skeleton import Options
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

FOREIGN = (
    "delete element ip kproxy cluster-ips { 10.96.0.9 }",
    "add element ip kproxy cluster-ips { 10.96.0.10 }",
    "flush chain ip kproxy services",
    "flush ruleset",
    "add table ip other",
)
"""The last one changes another table. The generation number alone does not tell."""


def desired(ends: list[str], family: Family, timeout: int | None = 60) -> Desired:
    return compile_frontends([frontend("10.96.0.9:80", ends, timeout=timeout)], family)


@pytest.mark.parametrize("script", FOREIGN)
def test_after_a_foreign_commit_the_table_is_read(script: str) -> None:
    def look() -> list[bool]:
        with Netlink() as netlink:
            tables = {family: Dataplane(netlink, family, Options()) for family in Family}
            four = tables[Family.IPV4]
            seen = [four.is_unchanged()]
            for ends in (["10.0.0.1:80"], ["10.0.0.1:80", "10.0.0.2:80"]):  # the second one adds chains
                for family, table in tables.items():
                    table.reconcile(desired(ends, family))
            seen.append(four.is_unchanged())
            three = desired(["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"], Family.IPV4, timeout=None)
            four.change(Delta(dict(three.specs), {}))
            seen.append(four.is_unchanged())
            subprocess.run(["nft", script], check=True)
            seen.append(four.is_unchanged())
            four.reconcile(three)
            return [*seen, four.is_unchanged(), tables[Family.IPV6].is_unchanged()]

    assert in_fresh_namespace(look) == [False, True, True, False, True, False]


@pytest.mark.parametrize("whole", [True, False], ids=["whole comparison", "change"])
def test_chains_exist_before_verdicts_lead_to_them(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet in the transaction that creates a chain can be led to it, and finds no rules there."""
    commit, sent = Netlink.commit, list[set[int]]()

    def recording(netlink: Netlink, contents: Iterable[BatchMessage]) -> int:
        messages = list(contents)
        sent.append({message.kind for message in messages})
        return commit(netlink, messages)

    def grow() -> list[set[int]]:
        with Netlink() as netlink:
            table = Dataplane(netlink, Family.IPV4, Options())
            table.reconcile(desired(["10.0.0.1:80"], Family.IPV4))
            sent.clear()
            more = desired(["10.0.0.1:80", "10.0.0.2:80"], Family.IPV4, timeout=90)
            if whole:
                table.reconcile(more)
            else:
                before = desired(["10.0.0.1:80"], Family.IPV4)
                table.change(difference(before, more))
            return sent

    monkeypatch.setattr(Netlink, "commit", recording)
    both = NFT_MSG_NEWCHAIN, NFT_MSG_NEWSETELEM
    # A transaction with a new table is the rehearsal's.
    first, second = (
        kinds
        for kinds in in_fresh_namespace(grow)
        if NFT_MSG_NEWTABLE not in kinds and not kinds.isdisjoint(both)
    )
    assert [kind in first for kind in both] == [True, False]
    assert [kind in second for kind in both] == [False, True]


def test_a_paused_monitor_reports_nothing() -> None:
    def listen() -> list[set[Family]]:
        with Netlink() as netlink:
            monitor, table = TableMonitor(netlink.port), Dataplane(netlink, Family.IPV4, Options())
            table.reconcile(desired(["10.0.0.1:80"], Family.IPV4))
            last_seen = [set(monitor.foreign_changes())]
            with monitor.paused():
                subprocess.run(["nft", FOREIGN[0]], check=True)
            last_seen.append(set(monitor.foreign_changes()))
            subprocess.run(["nft", FOREIGN[1]], check=True)
            last_seen.append(set(monitor.foreign_changes()))
            monitor.close()
            with monitor.paused():  # as in a round that runs while the daemon ends
                return last_seen

    assert in_fresh_namespace(listen) == [set(), set(), {Family.IPV4}]


def test_affinity_maps_are_read_completely_during_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """During commits, a dump lacks some entries, and the kernel does not report it."""
    clients = 20_000

    def remembered() -> int:
        with Netlink() as netlink, Netlink() as other:
            table = Dataplane(netlink, Family.IPV4, Options())
            table.reconcile(desired(["10.0.0.1:80"], Family.IPV4))
            frontend = bytes([10, 96, 0, 9, 0, 80, 0, 0])

            def entries(first: int, number: int) -> dict[bytes, Value]:
                keys = (bytes([10]) + n.to_bytes(3, "big") + frontend for n in range(first, first + number))
                return dict.fromkeys(keys, bytes([10, 0, 0, 1, 0, 80, 0, 0]))

            name = affinity_map(Protocol.TCP)
            passing = entries(clients, 3000)
            new = [entries(0, clients), passing]
            netlink.commit(m for e in new for m in element_messages(NFT_MSG_NEWSETELEM, Family.IPV4, name, e))
            removed, seen = iter(passing), count()

            def disturbed(element: memoryview) -> tuple[bytes, Value]:
                some = dict.fromkeys(islice(removed, 20), b"") if next(seen) % 300 == 150 else {}
                other.commit(element_messages(NFT_MSG_DELSETELEM, Family.IPV4, name, some))
                return read_element(element)

            monkeypatch.setattr(affinity, "read_element", disturbed)
            return sum(
                key in new[0]
                for key in {key for key, _ in affinity.entries_of(netlink, Family.IPV4, Protocol.TCP)}
            )

    assert in_fresh_namespace(remembered) == clients


# --- a busy program, whose commits interrupt each list of the kernel ---

CHAINS = 3000
"""So many that the kernel needs several datagrams to list them."""


class Busy(Netlink):
    """A socket on which each list is interrupted: another program deletes one of its chains meanwhile."""

    def dump(self, kind: int, family: str, body: bytes = b"") -> Iterator[memoryview]:
        for number, content in enumerate(super().dump(kind, family, body)):
            if kind == NFT_MSG_GETCHAIN and not number:
                subprocess.run(["nft", f"delete chain ip foreign c{next(self.deleted)}"], check=True)
            yield content

    deleted = count()


def test_a_busy_program_with_many_chains_does_not_stop_a_comparison() -> None:
    wanted = desired(["10.0.0.1:80", "10.0.0.2:80"], Family.IPV4)

    def reports() -> list[tuple[str, ...]]:
        chains = "\n".join(f"chain c{number} {{}}" for number in range(CHAINS))
        subprocess.run(["nft", "-f", "-"], input=f"table ip foreign {{\n{chains}\n}}", text=True, check=True)
        with Busy() as busy:
            table = Dataplane(busy, Family.IPV4, Options())
            rewritten = [table.reconcile(wanted).rewritten, table.reconcile(wanted).rewritten]
            subprocess.run(["nft", "flush chain ip kproxy services; add chain ip kproxy theirs"], check=True)
            rewritten += [table.reconcile(wanted).rewritten, table.reconcile(wanted).rewritten]
            assert next(Busy.deleted) >= 3 * dataplane.ATTEMPTS
        return rewritten

    assert in_fresh_namespace(reports) == [(), (), ("services", "theirs"), ()]


class Interrupting(Netlink):
    """A socket on which each list is complete, but interrupted by another program's commit."""

    def dump(self, kind: int, family: str, body: bytes = b"") -> Iterator[memoryview]:
        yield from super().dump(kind, family, body)
        raise Interrupted


def test_the_handles_of_rules_are_read_beside_a_busy_program() -> None:
    def handles() -> list[dict[str, list[int]]]:
        with Netlink() as netlink, Interrupting() as busy:
            Dataplane(netlink, Family.IPV4, Options()).reconcile(desired(["10.0.0.1:80"], Family.IPV4))
            return [rule_handles(each, Family.IPV4) for each in (netlink, busy)]

    expected, found = in_fresh_namespace(handles)
    assert found == expected
    assert found["prerouting"]

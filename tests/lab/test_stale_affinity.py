"""Stale affinity entries of a daemon: few are removed with the change, many after a search in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.core.constants import NFT_MSG_NEWSETELEM
from kproxy.kernel.netlink.core.elements import element_messages
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, Protocol
from kproxy.reconcile import affinity
from kproxy.reconcile.affinity import AffinitySearch
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Desired, compile_frontends, difference
from kproxy.table.layout import affinity_map
from kproxy.table.skeleton import Options
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

IP = Family.IPV4
CLIENTS = {1: 30, 2: 20}
"""By the number of the endpoint that the client has."""


def desired(*numbers: int, local: tuple[int, ...] | None = None) -> Desired:
    """A frontend with these endpoints. `local` are those on this node, if the policy is Local."""
    ends = [f"10.0.0.{number}:80" for number in numbers]
    outside = None if local is None else [f"10.0.0.{number}:80" for number in local]
    return compile_frontends([frontend("10.96.0.9:80", ends, timeout=60, outside=outside)], IP)


class Table:
    """A table of a daemon, with clients that are remembered."""

    def __init__(self, netlink: Netlink) -> None:
        self.netlink = netlink
        self.dataplane = Dataplane(netlink, IP, Options())
        self.dataplane.affinity.patient = True
        self.dataplane.reconcile(desired(1, 2))
        pairs = [(end, number) for end, count in CLIENTS.items() for number in range(count)]
        entries = {
            bytes([10, 1, end, number, 10, 96, 0, 9, 0, 80, 0, 0]): bytes([10, 0, 0, end, 0, 80, 0, 0])
            for end, number in pairs
        }
        netlink.commit(element_messages(NFT_MSG_NEWSETELEM, IP, affinity_map(Protocol.TCP), entries))

    def remembered(self) -> dict[int, int]:
        """Return the number of clients of each endpoint."""
        return dict(Counter(end[3] for _, end in affinity.entries_of(self.netlink, IP, Protocol.TCP)))

    def change(self, before: Desired, after: Desired) -> tuple[dict[int, int], bool]:
        """Change the endpoints. Returns the clients after that, and whether entries wait."""
        self.dataplane.change(difference(before, after))
        return self.remembered(), self.dataplane.affinity.waiting

    def search(self) -> AffinitySearch:
        """Search what waits, as the daemon does in a thread."""
        search = self.dataplane.affinity.begin()
        assert search
        search.run()
        return search

    def after_round(self) -> dict[int, int]:
        """Return the clients after a round that changes nothing else."""
        assert self.dataplane.end_found_flows() is None
        return self.remembered()


def told(story: Callable[[Table], None]) -> None:
    def begin() -> None:
        with Netlink() as netlink:
            story(Table(netlink))

    in_fresh_namespace(begin)


def test_few_entries_are_removed_with_the_change() -> None:
    def story(table: Table) -> None:
        assert table.change(desired(1, 2), desired(1, 2, 3)) == (CLIENTS, False)
        assert table.change(desired(1, 2, 3), desired(2, 3)) == ({2: 20}, False)

    told(story)


@pytest.mark.parametrize(
    ("after", "clients"),
    [
        (desired(1, 2, local=(2,)), {2: 20}),
        (desired(1, 2, local=()), {}),
        (desired(1, 2), CLIENTS),
        (desired(1, 2, 3, local=(1, 2, 3)), CLIENTS),
    ],
    ids=["one moves away", "all move away", "the policy becomes Cluster", "another one comes"],
)
def test_clients_outside_leave_an_endpoint_that_moves_to_another_node(
    after: Desired, clients: dict[int, int]
) -> None:
    def story(table: Table) -> None:
        local = desired(1, 2, local=(1, 2))
        assert table.change(desired(1, 2), local) == (CLIENTS, False)
        assert table.change(local, after) == (clients, False)

    told(story)


def test_many_entries_are_removed_after_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "FEW", 40)

    def story(table: Table) -> None:
        assert table.change(desired(1, 2), desired(1, 2, 3)) == (CLIENTS, False)
        assert table.change(desired(1, 2, 3), desired(2, 3)) == (CLIENTS, True)
        assert table.after_round() == CLIENTS
        assert table.search().has_found
        assert table.after_round() == {2: 20}
        assert not table.dataplane.affinity.waiting

    told(story)


def test_an_endpoint_that_returns_during_the_search_keeps_its_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(affinity, "FEW", 40)

    def story(table: Table) -> None:
        table.change(desired(1, 2), desired(2))
        table.search()
        table.change(desired(2), desired(1, 2))
        assert table.after_round() == CLIENTS

    told(story)


@pytest.mark.parametrize(
    ("during", "clients"),
    [(desired(1, 2), CLIENTS), (desired(1, 2, local=(2,)), {2: 20})],
    ids=["the policy becomes Cluster again", "it stays Local"],
)
def test_clients_outside_of_a_frontend_that_became_local(
    during: Desired, clients: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity, "FEW", 40)

    def story(table: Table) -> None:
        local = desired(1, 2, local=(2,))
        assert table.change(desired(1, 2), local) == (CLIENTS, True)
        table.search()
        table.change(local, during)
        assert table.after_round() == clients

    told(story)


def test_a_failed_search_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "FEW", 40)

    def story(table: Table) -> None:
        def fail() -> Netlink:
            raise OSError

        table.change(desired(1, 2), desired(2))
        with monkeypatch.context() as patched:
            patched.setattr(affinity, "Netlink", fail)
            assert not table.search().has_found
        assert table.after_round() == CLIENTS
        assert table.dataplane.affinity.waiting
        table.search()
        assert table.after_round() == {2: 20}

    told(story)


def test_all_frontends_wait_after_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that was killed, or another program, may have left stale entries."""
    monkeypatch.setattr(affinity, "FEW", 40)

    def story(table: Table) -> None:
        table.dataplane.reconcile(desired(2))
        assert table.remembered() == CLIENTS
        table.search()
        assert table.after_round() == {2: 20}

    told(story)

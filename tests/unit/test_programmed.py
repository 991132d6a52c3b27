"""The frontends that tables contain of protected services, and which of them a snapshot marks as held."""

from __future__ import annotations

import pytest

from kproxy.control.snapshot import OUTDATED, take_snapshot
from kproxy.model import Family, Frontend, Ingress, NamespacedName, Node, Origin, parse_address
from kproxy.show.snapshot import HeldFrontend
from kproxy.sources.core.inventory import Inventory
from kproxy.table.compile import compile_frontends
from kproxy.table.plan import initial_elements
from kproxy.table.programmed import ProgrammedSide, programmed_sides
from tests.unit.make import frontend, name, socket
from tests.unit.source import EmptySource
from tests.unit.test_reconciler import FakeSource

AT = "10.96.0.10:80"


def sides(*frontends: Frontend, of: str = "web") -> list[ProgrammedSide]:
    """Return the frontend sides of a service in a table with these frontends."""
    applied = initial_elements(*compile_frontends(frontends, Family.IPV4))
    return list(programmed_sides(applied, {name(of)}))


def held(at: str, *endpoints: str, owner: str = "web", outside: bool = False) -> HeldFrontend:
    address, port = socket(at)
    made = frontend(at)
    return HeldFrontend(name(owner), address, made.protocol, port, outside, tuple(map(socket, endpoints)))


ONE, TWO, EMPTY = (
    frontend(AT, ["10.0.0.1:8080"]),
    frontend(AT, ["10.0.0.1:8080", "10.0.0.2:8080"]),
    frontend(AT),
)
LOCAL = frontend(AT, ["10.0.0.1:8080"], outside=["10.0.0.2:8080"])
HIDDEN = frontend(AT, ["10.0.0.1:8080"], outside=[])


@pytest.mark.parametrize(
    ("programmed", "known", "expected"),
    [
        ([ONE], [], [held(AT, "10.0.0.1:8080")]),
        ([EMPTY], [], [held(AT)]),
        ([EMPTY], [EMPTY], []),
        ([ONE], [ONE], []),
        ([ONE], [TWO], []),
        ([TWO], [ONE], [held(AT, "10.0.0.1:8080", "10.0.0.2:8080")]),
        ([LOCAL], [LOCAL], []),
        ([LOCAL], [HIDDEN], [held(AT, "10.0.0.2:8080", outside=True)]),
        ([LOCAL], [ONE], [held(AT, "10.0.0.2:8080", outside=True)]),
        ([frontend(AT, ["10.0.0.1:8080"], owner="other")], [], []),
    ],
)  # fmt: skip
def test_a_snapshot_contains_what_only_the_tables_contain(
    programmed: list[Frontend], known: list[Frontend], expected: list[HeldFrontend]
) -> None:
    source = FakeSource()
    source.unreadable = {name("web")}
    found = take_snapshot(source, known, [], programmed=sides(*programmed))
    assert found.held_frontends == expected
    assert found.inventory.held == ({name("web"): "cannot be read"} if expected else {})


def test_frontends_of_an_unprotected_service_are_outdated() -> None:
    found = take_snapshot(FakeSource(), [], [], programmed=sides(ONE))
    assert found.inventory.held == {NamespacedName("default", "web"): OUTDATED}


def test_a_missing_table_contains_nothing() -> None:
    assert list(programmed_sides({}, {name("web")})) == []


class WithIngresses(EmptySource):
    """A source with two Ingresses, one of which has a status."""

    this_node = Node("n1", addresses=(parse_address("192.168.0.1"), parse_address("fd00::1")))

    def inventory(self) -> Inventory:
        return Inventory({}, {}, ingresses=(_ingress("own"), _ingress("known", "6.6.6.6"), _ingress("other")))


def _ingress(own: str, *addresses: str) -> Ingress:
    return Ingress(name(own), Origin("f", ""), "", (), None, addresses=addresses)


def test_ingresses_that_are_served_have_the_addresses_of_the_node() -> None:
    found = take_snapshot(WithIngresses(), [], [], ingresses={name("own"), name("known")})
    assert [each.addresses for each in found.inventory.ingresses] == [
        ("192.168.0.1", "fd00::1"),
        ("6.6.6.6",),
        (),
    ]

"""The names change after the rounds that program them, and only then."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kproxy.dns.core.zone import key
from kproxy.dns.names import Names
from kproxy.dns.resolver import Resolver
from kproxy.model import EndpointSlice, Family, NamespacedName, Service, parse_address
from kproxy.reconcile.core.report import RoundReport
from kproxy.sources.core.inventory import Inventory
from tests.dnszone.table import RANGES, world
from tests.unit.make import decoded, inventory_of, name
from tests.unit.test_loop import Source as EmptySource

OBJECTS = """
kind: Service
apiVersion: v1
metadata: {name: four}
spec: {clusterIP: 10.96.0.4, ports: [{port: 80}]}
---
kind: Service
apiVersion: v1
metadata: {name: six}
spec: {clusterIP: "fd00:10:96::6", ipFamilies: [IPv6], ports: [{port: 80}]}
---
{kind: Pod, apiVersion: v1, metadata: {name: pod}, status: {podIP: 10.0.0.8}}
"""
FOUR, SIX = name("four"), name("six")
SIXTH, SEVENTH = (parse_address(f"fd00:10:96::{number}").hex() for number in (6, 7))
FAILED = {Family.IPV4: "no buffer space"}


class Source(EmptySource):
    """A source of the objects above."""

    def __init__(self) -> None:
        super().__init__()
        self.found = inventory_of(decoded(OBJECTS), RANGES)

    def service(self, name: NamespacedName) -> Service | None:
        return self.found.services.get(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        return self.found.slices.get(name, ())

    def inventory(self) -> Inventory:
        return self.found

    def change(self, name: NamespacedName, address: str | None) -> None:
        """Give a Service another address, or remove it."""
        services = dict(self.found.services)
        if address is None:
            del services[name]
        else:
            services[name] = replace(services[name], cluster_ips=(parse_address(address),))
        self.found = replace(self.found, services=services)


class Fixture:
    """A source, a resolver with an empty zone, and the observer between them."""

    def __init__(self) -> None:
        self.source, self.refused = Source(), set[NamespacedName]()
        self.resolver = Resolver(world())
        self.names = Names(self.resolver, self.source)
        self.names.is_refused = self.refused.__contains__

    def round(self, *names: NamespacedName, failures: dict[Family, str] | None = None) -> None:
        self.names.round_done(RoundReport((), failures or {}, names=names))

    def address(self, label: str) -> str | None:
        wire = b"".join(bytes((len(part),)) + part for part in (label.encode(), b"default", b"svc"))
        found = [self.resolver.zone.answers.get(key(wire + b"\7cluster\5local\0", kind)) for kind in (1, 28)]
        return next((each.records[0][12:].hex() for each in found if each), None)


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_a_round_gives_names_and_takes_them(fixture: Fixture) -> None:
    assert not fixture.resolver.ready
    fixture.round(FOUR, SIX)
    assert fixture.resolver.ready
    assert (fixture.address("four"), fixture.address("six")) == ("0a600004", SIXTH)
    assert fixture.names.pods == {parse_address("10.0.0.8")}
    fixture.source.change(FOUR, "10.96.0.5")
    assert fixture.address("four") == "0a600004"
    fixture.round(FOUR)
    assert fixture.address("four") == "0a600005"
    fixture.source.change(FOUR, None)
    fixture.round(FOUR)
    assert fixture.address("four") is None


def test_a_family_that_failed_leaves_its_names_as_they_were(fixture: Fixture) -> None:
    fixture.round(FOUR, SIX)
    fixture.source.change(FOUR, "10.96.0.5")
    fixture.source.change(SIX, "fd00:10:96::7")
    fixture.round(FOUR, SIX, failures=FAILED)
    assert (fixture.address("four"), fixture.address("six")) == ("0a600004", SEVENTH)
    fixture.source.change(FOUR, None)
    fixture.round(FOUR, failures=FAILED)
    assert fixture.address("four") == "0a600004"
    fixture.round()
    assert fixture.address("four") is None


def test_a_service_that_the_kernel_refuses_keeps_its_names(fixture: Fixture) -> None:
    fixture.round(FOUR)
    fixture.source.change(FOUR, "10.96.0.5")
    fixture.refused.add(FOUR)
    fixture.round(FOUR)
    assert fixture.address("four") == "0a600004"
    fixture.refused.clear()
    fixture.round()
    assert fixture.address("four") == "0a600005"


def test_nothing_is_known_if_all_tables_failed(fixture: Fixture) -> None:
    fixture.round(FOUR, failures=dict.fromkeys(Family, "no nf_tables"))
    assert not fixture.resolver.ready


def test_a_service_that_did_not_change_is_not_touched(fixture: Fixture) -> None:
    fixture.round(FOUR, SIX)
    serial = fixture.resolver.zone.serial
    fixture.round(FOUR, SIX)
    assert fixture.resolver.zone.serial == serial

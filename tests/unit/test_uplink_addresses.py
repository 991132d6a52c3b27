"""Load-balancer addresses on the uplink: failed changes are repeated, but not in every round."""

from __future__ import annotations

import time
from collections.abc import Collection, Set
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest

from kproxy.controlplane.ranges import Ranges
from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import Address, Family
from kproxy.problems import HostError
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.backoff import FIRST
from kproxy.sources.manifests import Manifests
from kproxy.state.store import Store
from tests.unit.make import NODE


class Fake(Uplink):
    """An uplink whose reports the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.error: HostError | None = None
        self.withdrawing, self.showing = AddressReport(), AddressReport()
        self.calls = 0

    def withdraw(self, keep: Set[Address] = frozenset()) -> AddressReport:
        self.calls += 1
        return self.withdrawing

    def add(self, addresses: Collection[Address]) -> AddressReport:
        if self.error:
            raise self.error
        return self.showing


class World:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(folder / "state")
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = Manifests([str(folder)], store, ranges, lambda _: NODE)
        with store.lock("run", print):
            source.load(allow_empty=True)
        self.uplink, self.now = Fake(), 100.0
        self.addresses = UplinkAddresses(self.uplink, partial(source.announced, [NODE.name]))
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def round(self, failed: Collection[Family] = ()) -> bool:
        """Run one round. Returns whether the uplink was called."""
        before = self.uplink.calls
        self.addresses.withdraw()
        self.addresses.announce(failed)
        return self.uplink.calls > before


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_correct_addresses_are_not_checked_again(world: World) -> None:
    assert world.addresses.due() is None
    assert [world.round() for _ in range(3)] == [True, False, False]
    assert world.addresses.due() is None
    world.addresses.invalidate()
    assert [world.round() for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("where", ["withdraw", "show", "error"])
def test_failed_changes_are_repeated_with_backoff(world: World, where: str) -> None:
    wrong = AddressReport(warnings=("busy",))
    match where:
        case "withdraw":
            world.uplink.withdrawing = wrong
        case "show":
            world.uplink.showing = wrong
        case _:
            world.uplink.error = HostError("busy")
    delay = FIRST
    for _ in range(3):
        assert [world.round() for _ in range(3)] == [True, False, False]
        assert world.addresses.due() == world.now + delay
        world.now, delay = world.now + delay, 2 * delay
        assert world.addresses.failures == ("busy",)
    world.uplink.withdrawing = world.uplink.showing = AddressReport()
    world.uplink.error = None
    assert [world.round() for _ in range(2)] == [True, False]
    assert world.addresses.due() is None
    assert world.addresses.failures == ()


def test_a_failed_removal_is_repeated_regardless_of_families(world: World) -> None:
    world.uplink.withdrawing = AddressReport(warnings=("busy",))
    assert world.round()
    assert not world.round({Family.IPV4})  # only the addresses of this family change
    assert not world.round()
    world.uplink.withdrawing = AddressReport()
    world.now += 4 * FIRST
    assert world.round()
    assert world.addresses.due() is None


def test_changed_interfaces_cause_an_immediate_attempt(world: World) -> None:
    world.uplink.error = HostError("There is no interface eth7.")
    assert [world.round() for _ in range(2)] == [True, False]
    world.uplink.error = None
    world.addresses.invalidate()
    assert world.round()
    assert world.addresses.due() is None


def test_a_family_that_recovers_gets_its_addresses(world: World) -> None:
    world.round({Family.IPV4})
    assert world.addresses.due() is not None
    world.round()
    assert world.addresses.due() is None

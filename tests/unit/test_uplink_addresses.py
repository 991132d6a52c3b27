"""Load-balancer addresses beside the tables: what fails is tried again, not in every round, and said once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Set
from ipaddress import ip_network
from pathlib import Path

import pytest

from kproxy.controlplane.ranges import Ranges
from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import Address, Family
from kproxy.problems import HostError
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.backoff import FIRST
from kproxy.reconcile.round import Round
from kproxy.sources.followed import FollowedManifests
from kproxy.state.store import Store
from tests.unit.make import NODE
from tests.unit.test_manifests_source import Passing

FINE, NO_IPV4 = Round((), {}, False), Round((), {Family.IPV4: "no"}, False)


class Fake(Uplink):
    """An uplink that says what it is told to say."""

    def __init__(self) -> None:
        super().__init__()
        self.error: HostError | None = None
        self.withdrawing, self.showing = AddressReport(), AddressReport()
        self.calls = 0

    def withdraw(self, keep: Set[Address] = frozenset()) -> AddressReport:
        self.calls += 1
        return self.withdrawing

    def show(self, addresses: Collection[Address]) -> AddressReport:
        if self.error:
            raise self.error
        return self.showing


class World:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(folder / "state")
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = FollowedManifests([str(folder)], store, ranges, lambda _: NODE, Passing())
        with store.lock("run"):
            asyncio.run(self._take(source))
        self.uplink, self.said, self.now = Fake(), list[str](), 100.0
        self.beside = UplinkAddresses(self.uplink, source, [NODE.name], self.said.append)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    async def _take(self, source: FollowedManifests) -> None:
        await source.take()

    def round(self, done: Round = FINE) -> bool:
        """One round; whether the kernel was asked."""
        before = self.uplink.calls
        self.beside.before()
        self.beside.after(done)
        return self.uplink.calls > before


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_what_is_right_is_left_alone(world: World) -> None:
    assert world.beside.due() is None
    assert [world.round() for _ in range(3)] == [True, False, False]
    assert world.beside.due() is None
    world.beside.forget()
    assert [world.round() for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("where", ["withdraw", "show", "error"])
def test_what_fails_is_tried_again_ever_more_seldom(world: World, where: str) -> None:
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
        assert world.beside.due() == world.now + delay
        world.now, delay = world.now + delay, 2 * delay
    assert world.said == ["busy"]
    world.uplink.withdrawing = world.uplink.showing = AddressReport()
    world.uplink.error = None
    assert [world.round() for _ in range(2)] == [True, False]
    assert world.beside.due() is None


def test_interfaces_that_changed_are_a_reason_to_try_at_once(world: World) -> None:
    world.uplink.error = HostError("There is no interface eth7.")
    assert [world.round() for _ in range(2)] == [True, False]
    world.uplink.error = None
    world.beside.forget()
    assert world.round()
    assert world.beside.due() is None


def test_a_family_that_comes_back_gets_its_addresses(world: World) -> None:
    world.round(NO_IPV4)
    assert world.beside.due() is not None
    world.round(FINE)
    assert world.beside.due() is None

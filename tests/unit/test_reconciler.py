"""Rounds: the services that they program, and what happens if the kernel refuses some services or all."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest

from kproxy.decode import Document, decode
from kproxy.kernel.netlink.socket import Interrupted
from kproxy.model import (
    EndpointSlice,
    Family,
    NamespacedName,
    Network,
    Node,
    Protects,
    Protocol,
    Service,
    protect_nothing,
)
from kproxy.nft.elements import Keys
from kproxy.problems import HostError, KproxyError, RefusedElement, TransactionError
from kproxy.reconcile.core.backoff import FIRST, MAX_DELAY, Backoff
from kproxy.reconcile.core.report import Report, RoundReport, Totals, lines, summary
from kproxy.reconcile.family_table import NAMED_ATTEMPTS
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.resolve import claims
from kproxy.table.compile import Delta, Desired
from kproxy.table.layout import (
    EndpointScope,
    FrontendKey,
    FrontendSide,
    FrontendSpec,
    SetName,
    frontend_address,
    frontend_key,
    frontend_socket,
)
from kproxy.table.plan import owner_of
from kproxy.table.skeleton import Options
from tests.keys import slot_key
from tests.unit.make import NODE, service, slice_of
from tests.unit.source import EmptySource

NAMES = [NamespacedName("default", f"s{number}") for number in range(8)]
IPV4 = frozenset({Family.IPV4})


class FakeSource(EmptySource):
    """A source whose content tests set."""

    def __init__(self) -> None:
        self.services: dict[NamespacedName, tuple[Service, tuple[EndpointSlice, ...]]] = {}
        self.unreadable: Collection[NamespacedName] = set()
        self.this_node = NODE
        self.ranges: tuple[Network, ...] = ()

    def put(
        self, number: int, endpoints: Iterable[str] = ("10.0.0.1",), created: str = "", **spec: Any
    ) -> None:
        """Add a service with these endpoints on port 80. Its ClusterIP ends with its number."""
        own = NAMES[number]
        made = service(own.name, clusterIP=f"10.96.0.{number}", **spec)
        made["metadata"]["creationTimestamp"] = created or None
        slices = slice_of(own.name, *endpoints, port=80)
        decoded = decode([Document("in.yaml", made), Document("in.yaml", slices)])
        assert decoded.problems == []
        self.services[own] = decoded.state.services[own], decoded.state.slices.get(own, ())

    def names(self) -> Iterable[NamespacedName]:
        return list(self.services)

    def service(self, name: NamespacedName) -> Service | None:
        return self.services[name][0] if name in self.services else None

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        return self.services[name][1]

    def service_cidrs(self) -> tuple[Network, ...]:
        return self.ranges

    def why_protected(self, name: NamespacedName) -> str:
        return "cannot be read" if name in self.unreadable else ""


class Kernel:
    """A table that accepts some services and refuses others, or refuses everything."""

    def __init__(self) -> None:
        self.specs: dict[FrontendSide, FrontendSpec] = {}
        self.refused: set[NamespacedName] = set()
        self.names: Callable[[FrontendSide], tuple[RefusedElement, ...]] = lambda _: ()
        """Returns the names of the refused elements of a frontend side."""
        self.errno = errno.EINVAL
        self.broken = self.gone = False
        self.found = self.waiting = 0
        """The stale UDP flows that were found, and those that wait for a search."""
        self.calls: list[str] = []

    def set_options(self, options: Options) -> bool:
        return False

    def reconcile(self, desired: Desired, protected: Protects = protect_nothing, /) -> Report:
        self.calls.append("reconcile")
        self._take(desired.specs)
        stay = {p: t for p, t in self.specs.items() if protected(owner_of(t.comment))}
        self.specs = stay | dict(desired.specs)
        return Report(Family.IPV4, (), 0, 0, ())

    def change(self, delta: Delta, /) -> Report:
        self.calls.append("change")
        if self.gone:
            raise TransactionError("The kernel refused a transaction: No such file or directory")
        self._take({side: spec for side, spec in delta.specs.items() if spec})
        for side, spec in delta.specs.items():
            if spec is None:
                self.specs.pop(side, None)
            else:
                self.specs[side] = spec
        return Report(Family.IPV4, (), 0, 0, ())

    @property
    def endpoints(self) -> int:
        return sum(len(spec.endpoints) for spec in self.specs.values())

    def is_gone(self) -> bool:
        return self.gone

    def is_unchanged(self) -> bool:
        return not self.broken

    def restore(self) -> Report | None:
        self.calls.append("restore")
        if self.broken:
            raise TransactionError("The kernel refused a transaction.")
        was_gone, self.gone = self.gone, False
        return Report(Family.IPV4, (), 0, 7, ()) if was_gone else None

    def repair_elements(self, keys: Keys, /) -> Report | None:
        self.calls.append("repair")
        if self.broken:
            raise TransactionError("The kernel refused a transaction.")
        return Report(Family.IPV4, (), 0, len(keys), (), repaired=tuple(keys)) if keys else None

    def end_found_flows(self) -> Report | None:
        found, self.found = self.found, 0
        return Report(Family.IPV4, (), 0, 0, (), found) if found else None

    def end_waiting_flows(self) -> None:
        self.waiting = 0

    def _take(self, specs: dict[FrontendSide, FrontendSpec]) -> None:
        if self.broken:
            raise TransactionError("The kernel refused a transaction.")
        for side, spec in specs.items():
            if owner_of(spec.comment) in self.refused:
                named = self.names(side)
                raise TransactionError("The kernel refused a transaction.", self.errno, refused=named)

    def of(self, service: NamespacedName) -> list[FrontendSpec]:
        return [spec for spec in self.specs.values() if owner_of(spec.comment) == service]

    def services(self) -> set[NamespacedName]:
        return {owner_of(spec.comment) for spec in self.specs.values()}


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class World:
    """A reconciler of one family, its source with eight services, its kernel and its clock."""

    def __init__(self) -> None:
        self.kernel, self.source, self.now = Kernel(), FakeSource(), Clock()
        self.options: list[KproxyError] = []
        self.asked: list[tuple[str, tuple[Network, ...]]] = []
        """Of each request for options: the name of the node, and the ranges of ClusterIPs."""
        self.begin()
        for number in range(len(NAMES)):
            self.source.put(number)

    def begin(self) -> None:
        """Start with a new reconciler."""
        dataplanes = {Family.IPV4: self.kernel}
        self.reconciler = Reconciler(self.source, dataplanes, self._options, print, clock=self.now)

    def _options(self, node: Node, service_cidrs: tuple[Network, ...]) -> Options:
        self.asked.append((node.name, service_cidrs))
        if self.options:
            raise self.options.pop()
        return Options()

    def round(
        self, *numbers: int, suspect: Collection[Family] = (), edits: Iterable[Edit] = ()
    ) -> RoundReport:
        """Run a round in which these services changed."""
        return self.reconciler.round([NAMES[number] for number in numbers], suspect, edits)

    def remove(self, number: int) -> RoundReport:
        """Remove a service, and run a round."""
        del self.source.services[NAMES[number]]
        return self.round(number)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def kernel(world: World) -> Kernel:
    return world.kernel


@pytest.fixture
def now(world: World) -> Clock:
    return world.now


# --- changes ---


def test_the_first_round_compares_and_later_ones_apply_changes(world: World, kernel: Kernel) -> None:
    assert world.round().compared
    assert kernel.calls == ["reconcile"]
    world.source.put(0, ())
    assert not world.round(0).compared
    assert not world.round(0).compared  # nothing changed, so the kernel is not called
    assert kernel.calls == ["reconcile", "change"]
    assert world.round(suspect=IPV4).compared
    assert kernel.calls == ["reconcile", "change", "restore", "reconcile"]
    assert world.reconciler.due() is None


def test_flows_are_ended_once_they_are_found_and_those_that_wait_at_the_end(
    world: World, kernel: Kernel
) -> None:
    world.round()
    kernel.waiting = 7
    assert world.round().reports == ()
    kernel.found = 5
    assert [report.ended for report in world.round().reports] == [5]
    assert kernel.waiting == 7
    world.reconciler.finish()
    assert kernel.waiting == 0


def test_a_change_of_the_node_concerns_all_services(world: World) -> None:
    assert set(world.round().names) == set(NAMES)
    assert set(world.round(1).names) == {NAMES[1]}
    world.source.this_node = Node("n1", zone="z")
    assert set(world.round().names) == set(NAMES)
    del world.source.services[NAMES[0]]
    world.reconciler.changes_lost()
    assert set(world.round().names) == set(NAMES)
    assert world.kernel.services() == set(NAMES[1:])


def test_the_rules_change_with_the_ranges_of_cluster_ips_and_no_service_does(world: World) -> None:
    world.reconciler.round(NAMES)
    world.source.ranges = (ip_network("10.96.0.0/16"),)
    assert [len(world.round().names) for _ in range(2)] == [0, 0]
    assert list(dict.fromkeys(world.asked)) == [(NODE.name, ()), (NODE.name, world.source.ranges)]


def test_a_round_without_options_fails_and_the_next_one_does_everything(world: World, kernel: Kernel) -> None:
    world.options = [HostError("no Node yet")]
    with pytest.raises(HostError):
        world.round()
    assert kernel.calls == []
    assert world.round(suspect=IPV4).failures == {}
    assert kernel.services() == set(NAMES)


# --- services that the kernel refuses ---


def test_the_lines_of_a_round_and_its_summary(world: World, kernel: Kernel) -> None:
    kernel.refused = {NAMES[3]}
    world.round()
    world.source.unreadable = {NAMES[5]}
    del world.source.services[NAMES[5]]
    done = world.round(5)
    assert done.totals == Totals(services=7, frontends=7, held=1, quarantined=1, endpoints=7)
    assert summary(done) == "7 services, 7 frontends, 1 held, 1 quarantined: nothing to change"
    assert list(lines(done)) == []
    assert [str(problem) for problem in world.reconciler.problems()] == [
        "Service default/s3: quarantined: the kernel refused it, and what was programmed for it before stays"
    ]


@pytest.mark.parametrize("bad", [{NAMES[3]}, {NAMES[0], NAMES[7]}, set(NAMES)])
def test_a_refused_service_does_not_affect_others(
    world: World, kernel: Kernel, now: Clock, bad: set[NamespacedName]
) -> None:
    kernel.refused = bad
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES) - bad
    found = world.reconciler.problems()
    assert [problem.object for problem in found] == [f"Service {name}" for name in sorted(bad)]
    assert world.reconciler.due() == now.time + FIRST

    kernel.refused = set()
    world.round()
    assert kernel.services() == set(NAMES) - bad  # not yet
    now.time += FIRST
    world.round()
    assert kernel.services() == set(NAMES)
    assert world.reconciler.problems() == []
    assert world.reconciler.due() is None


def the_verdict(side: FrontendSide) -> tuple[RefusedElement, ...]:
    return (RefusedElement("ip", side.scope.verdicts, side.key),)


def a_slot(side: FrontendSide) -> tuple[RefusedElement, ...]:
    return (RefusedElement("ip", "endpoints-tcp", slot_key(frontend_socket(side.key), 3)),)


def the_address(side: FrontendSide) -> tuple[RefusedElement, ...]:
    return (RefusedElement("ip", "cluster-ips", frontend_address(side.key)),)


@pytest.mark.parametrize("names", [the_verdict, a_slot, the_address])
def test_services_that_the_kernel_names_are_quarantined_without_bisection(
    world: World, kernel: Kernel, names: Callable[[FrontendSide], tuple[RefusedElement, ...]]
) -> None:
    kernel.refused, kernel.names = {NAMES[2], NAMES[5]}, names
    assert world.round().failures == {}
    assert kernel.calls == ["reconcile"] * 3
    assert kernel.services() == {*NAMES} - kernel.refused
    assert [name for name in NAMES if world.reconciler.is_quarantined(name)] == sorted(kernel.refused)


@pytest.mark.parametrize(
    "named",
    [
        RefusedElement("ip", "endpoints-tcp", b""),
        RefusedElement("ip", "no-such-set", frontend_key(bytes([10, 96, 0, 2]), Protocol.TCP, 80)),
        RefusedElement("ip", "services", frontend_key(bytes([10, 96, 9, 9]), Protocol.TCP, 80)),
    ],
)
def test_if_a_named_element_belongs_to_no_service_bisection_finds_the_refused_one(
    world: World, kernel: Kernel, named: RefusedElement
) -> None:
    kernel.refused, kernel.names = {NAMES[2]}, lambda _: (named,)
    assert world.round().failures == {}
    assert kernel.services() == {*NAMES} - kernel.refused


def test_an_element_that_another_program_changed_quarantines_no_service(world: World, kernel: Kernel) -> None:
    kernel.refused, kernel.names, kernel.errno = {NAMES[2]}, another_verdict, errno.EEXIST
    assert world.round().failures == {}
    assert kernel.services() == {*NAMES} - kernel.refused


def another_verdict(side: FrontendSide) -> tuple[RefusedElement, ...]:
    return the_verdict(side._replace(key=key_of(1)))


def test_attempts_end_if_the_kernel_names_the_wrong_services(
    world: World, kernel: Kernel, now: Clock
) -> None:
    wrong = iter(range(len(NAMES)))
    kernel.refused = {NAMES[7]}
    kernel.names = lambda side: the_verdict(side._replace(key=key_of(next(wrong))))
    assert world.round().failures == {}
    assert kernel.calls.count("reconcile") <= NAMED_ATTEMPTS + 2
    kernel.names = the_verdict
    now.time += FIRST
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES[:7])


def key_of(number: int) -> FrontendKey:
    return frontend_key(bytes([10, 96, 0, number]), Protocol.TCP, 80)


def test_the_earlier_elements_of_a_refused_service_stay(world: World, kernel: Kernel) -> None:
    world.round()
    before = dict(kernel.specs)
    kernel.refused = {NAMES[1]}
    world.source.put(1, ["10.0.0.9"])
    world.source.put(2, ())
    world.round(1, 2)
    assert {p: t for p, t in kernel.specs.items() if owner_of(t.comment) == NAMES[1]} == {
        p: t for p, t in before.items() if owner_of(t.comment) == NAMES[1]
    }
    assert kernel.specs != before
    world.remove(1)
    world.round(suspect=IPV4)
    assert NAMES[1] not in kernel.services()


def test_a_refused_service_is_not_due_while_the_table_fails(world: World, kernel: Kernel, now: Clock) -> None:
    kernel.refused = {NAMES[0]}
    world.round()
    kernel.broken = True
    due = world.reconciler.due()
    assert due is not None
    for _ in range(100):
        now.time = due
        calls = len(kernel.calls)
        world.round(suspect=IPV4)
        assert len(kernel.calls) > calls, "the round was due, but did nothing"
        due = world.reconciler.due()
        assert due is not None
        assert due > now.time
    kernel.broken, now.time = False, due
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES[1:])


def test_a_refused_service_takes_an_address_from_another_service(world: World, kernel: Kernel) -> None:
    side = FrontendSide(EndpointScope.ALL, frontend_key(bytes([203, 0, 113, 1]), Protocol.TCP, 80))
    world.source.put(1, created="2025-01-02T00:00:00Z", externalIPs=["203.0.113.1"])
    world.round()
    kernel.refused = {NAMES[2]}
    world.source.put(2, ())
    world.round(2)
    assert side in kernel.specs
    world.source.put(2, ["10.0.0.2"], created="2025-01-01T00:00:00Z", externalIPs=["203.0.113.1"])
    world.round(2)
    assert side not in kernel.specs
    assert NAMES[1] in kernel.services()


def test_a_table_that_is_deleted_during_bisection_quarantines_no_service(
    world: World, kernel: Kernel, now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.refused = {NAMES[3]}
    change = kernel.change

    def flushed(delta: Delta) -> Report:
        kernel.gone = len(kernel.calls) > 3
        return change(delta)

    monkeypatch.setattr(kernel, "change", flushed)
    assert world.round().failures
    assert not any(map(world.reconciler.is_quarantined, NAMES))
    monkeypatch.undo()
    kernel.gone, kernel.specs = False, {}
    now.time += FIRST
    assert not world.round().failures
    assert kernel.services() == {*NAMES} - {NAMES[3]}
    assert [name for name in NAMES if world.reconciler.is_quarantined(name)] == [NAMES[3]]


# --- a kernel that refuses everything, or cannot answer ---


def test_failed_rounds_are_repeated_with_backoff(world: World, kernel: Kernel, now: Clock) -> None:
    kernel.broken = True
    times = []
    for _ in range(1000):
        calls = len(kernel.calls)
        world.round()
        if len(kernel.calls) > calls:
            times.append(now.time)
        now.time += 0.25
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert max(pauses) == MAX_DELAY
    kernel.broken = False
    now.time += MAX_DELAY
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES)


def test_changes_are_applied_when_the_kernel_works_again(world: World, kernel: Kernel, now: Clock) -> None:
    world.round()
    kernel.broken = True
    assert world.remove(0).failures
    assert world.remove(1).failures == {Family.IPV4: "The kernel refused a transaction."}
    assert kernel.services() == set(NAMES)
    kernel.broken = False
    now.time += FIRST
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES[2:])


@pytest.mark.parametrize("error", [Interrupted(), OSError(105, "No buffer space available")])
def test_a_kernel_that_cannot_answer_leaves_a_table_doubtful(
    world: World, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """No error is raised. These queries may fail while another program keeps changing tables."""

    def fail() -> bool:
        raise error

    monkeypatch.setattr(kernel, "is_gone", fail)
    monkeypatch.setattr(kernel, "is_unchanged", fail)
    assert not world.reconciler.any_gone()
    assert world.reconciler.possibly_changed() == {Family.IPV4}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            HostError("The kernel lacks fib.", "Try: modprobe nft_fib_ipv4."),
            "The kernel lacks fib. Try: modprobe nft_fib_ipv4.",
        ),
        (
            Interrupted(),
            "The kernel's tables changed while they were read. "
            "Another program changes them at the same time. Try again.",
        ),
        (OSError(105, "No buffer space available"), "[Errno 105] No buffer space available"),
    ],
)
def test_a_failure_is_reported_with_its_hint(
    world: World, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: object) -> Report:
        raise pickle.loads(pickle.dumps(error))  # it may have come from a child process

    monkeypatch.setattr(kernel, "reconcile", fail)
    assert world.round().failures == {Family.IPV4: message}


# --- protected services ---


def test_a_held_service_is_removed_when_its_input_can_be_read_again(world: World, kernel: Kernel) -> None:
    """The table of an earlier process has two services: a removed one, and one that cannot be read now."""
    world.round()
    for name in NAMES[:2]:
        del world.source.services[name]
    world.begin()
    world.source.unreadable = set(NAMES[:2])
    assert world.round().totals == Totals(6, 6, held=2, endpoints=8)
    assert kernel.services() == set(NAMES)
    kernel.calls.clear()
    world.source.put(5, ())
    assert world.round(5).totals.held == 2
    assert kernel.calls == ["change"]
    world.source.unreadable = set()
    world.source.put(0)
    assert world.round(0).totals == Totals(7, 7, endpoints=6)
    assert kernel.services() == {NAMES[0], *NAMES[2:]}
    world.remove(0)
    assert kernel.calls == ["change", "reconcile", "change"]


def test_a_change_of_a_protected_service_causes_a_whole_comparison(world: World, kernel: Kernel) -> None:
    world.round()
    world.source.unreadable = {NAMES[0]}
    world.source.put(0, ())
    assert world.round(0).compared
    assert kernel.calls == ["reconcile", "reconcile"]


def test_a_service_with_too_many_endpoints_stays_as_it_is(
    world: World, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SERVICE_ENDPOINTS", 2)
    world.round()
    before = kernel.of(NAMES[0])
    world.source.put(0, ["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    world.source.put(1, ["10.0.0.1", "10.0.0.2"])
    assert world.round(0, 1).totals == Totals(7, 7, held=1, endpoints=9)
    assert [str(problem) for problem in world.reconciler.problems()] == [
        "in.yaml: Service default/s0: spec.ports: its frontends have more than 2 endpoints together: "
        "nothing is changed"
    ]
    assert kernel.of(NAMES[0]) == before
    world.source.put(0, ())
    assert world.round(0).totals == Totals(8, 8, endpoints=8)
    assert world.reconciler.problems() == []


# --- changes of other programs ---


def test_a_deleted_table_is_restored_first(world: World, kernel: Kernel, now: Clock) -> None:
    """It is not restored if the copy of its elements may be wrong."""
    world.round(suspect=IPV4)
    kernel.gone = True
    done = world.round(suspect=IPV4)
    assert [report.added for report in done.reports] == [7, 0]
    assert kernel.calls == ["reconcile", "restore", "reconcile"]
    kernel.gone = True
    kernel.calls.clear()
    assert world.reconciler.any_gone()
    world.source.put(0, ())
    done = world.round(0)  # before the deletion is noticed
    assert [report.added for report in done.reports] == [7, 0]
    assert done.compared
    assert kernel.calls == ["change", "restore", "reconcile"]
    kernel.broken = True
    assert world.round(suspect=IPV4).failures
    kernel.broken = False
    now.time += FIRST
    kernel.calls.clear()
    assert not world.round(suspect=IPV4).failures
    assert kernel.calls == ["reconcile"]
    kernel.broken = True
    assert world.round(suspect=IPV4).failures
    kernel.broken = False
    assert world.round(suspect=IPV4).failures  # the backoff
    kernel.gone = True
    assert not world.round(suspect=IPV4).failures


def test_elements_that_another_program_changed_are_repaired_alone(world: World, kernel: Kernel) -> None:
    edit = Edit(Family.IPV4, {SetName.SERVICES: {b"key"}})
    world.round(edits=[edit])  # the first round compares everything
    world.source.put(0, ())
    done = world.round(0, edits=[edit])
    assert not done.compared
    assert [report.repaired for report in done.reports] == [("services",), ()]
    assert kernel.calls == ["reconcile", "repair", "change"]
    assert world.round(edits=[Edit(Family.IPV4, {})]).compared  # the repair is not possible
    kernel.calls.clear()
    assert not world.round().compared
    assert kernel.calls == []


def test_a_failed_repair_causes_a_whole_comparison(world: World, kernel: Kernel) -> None:
    world.round()
    kernel.broken = True
    assert world.round(edits=[Edit(Family.IPV4, {SetName.SERVICES: {b"key"}})]).compared
    assert kernel.calls[:3] == ["reconcile", "repair", "reconcile"]


def test_backoff() -> None:
    backoff = Backoff()
    assert backoff.due < 0
    for delay in (0.5, 1, 2, 4, 8, 16, 30, 30):
        backoff.failed(1000)
        assert backoff.due == 1000 + delay
    backoff.succeeded()
    backoff.failed(0)
    assert backoff.due == FIRST

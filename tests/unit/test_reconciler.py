"""What a round does: which services it programs, and what it does when the kernel refuses some or all."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from typing import Any

import pytest

from kproxy.decode import Document, decode
from kproxy.kernel.netlink.socket import Interrupted
from kproxy.model import (
    EndpointSlice,
    Family,
    NamespacedName,
    Node,
    Protects,
    Protocol,
    Service,
    protect_nothing,
)
from kproxy.nft.elements import Keys
from kproxy.problems import HostError, KproxyError, Problem, RefusedElement, TransactionError
from kproxy.reconcile.core.backoff import FIRST, LONGEST, Backoff
from kproxy.reconcile.core.report import Report, RoundReport, Totals, lines, summary
from kproxy.reconcile.family import NAMED_ATTEMPTS
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.sources.core.inventory import Inventory
from kproxy.table.compile import Delta, Desired
from kproxy.table.keys import FrontendKey, frontend_address, frontend_key, frontend_socket, slot_keys
from kproxy.table.layout import EndpointScope, FrontendSide, FrontendSpec
from kproxy.table.names import SetName
from kproxy.table.plan import owner_of
from kproxy.table.skeleton import Options
from tests.unit.make import NODE, manifest, service

NAMES = [NamespacedName("default", f"s{number}") for number in range(8)]
IPV4 = frozenset({Family.IPV4})


class Given:
    """A source of what it was given last."""

    def __init__(self) -> None:
        self.services: dict[NamespacedName, tuple[Service, tuple[EndpointSlice, ...]]] = {}
        self.unreadable: Collection[NamespacedName] = set()
        self.here = NODE

    def put(
        self, number: int, endpoints: Iterable[str] = ("10.0.0.1",), created: str = "", **spec: Any
    ) -> None:
        """A service with these endpoints on port 80; its ClusterIP ends with its number."""
        own, ports = NAMES[number], [{"port": 80, "protocol": "TCP"}]
        made = service(own.name, clusterIP=f"10.96.0.{number}", **spec)
        made["metadata"]["creationTimestamp"] = created or None
        slices = manifest(
            "EndpointSlice",
            metadata={"labels": {"kubernetes.io/service-name": own.name}},
            addressType="IPv4",
            ports=ports,
            endpoints=[{"addresses": [address]} for address in endpoints],
        )
        decoded = decode([Document("in.yaml", made), Document("in.yaml", slices)])
        assert decoded.problems == []
        self.services[own] = decoded.state.services[own], decoded.state.slices.get(own, ())

    def names(self) -> Iterable[NamespacedName]:
        return list(self.services)

    def service(self, name: NamespacedName) -> Service | None:
        return self.services[name][0] if name in self.services else None

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        return self.services[name][1]

    def node(self) -> Node:
        return self.here

    def protected(self, name: NamespacedName) -> bool:
        return name in self.unreadable

    def why_protected(self, name: NamespacedName) -> str:
        return "cannot be read" if self.protected(name) else ""

    def problems(self) -> list[Problem]:
        return []

    def warnings(self) -> list[Problem]:
        return []

    def inventory(self) -> Inventory:
        return Inventory({}, {})


class Kernel:
    """A table that takes some services and refuses others, or everything."""

    def __init__(self) -> None:
        self.held: dict[FrontendSide, FrontendSpec] = {}
        self.refused: set[NamespacedName] = set()
        self.names: Callable[[FrontendSide], tuple[RefusedElement, ...]] = lambda _: ()
        """How it names the first element that it refuses."""
        self.errno = errno.EINVAL
        self.broken = self.gone = False
        self.calls: list[str] = []

    def set_options(self, options: Options) -> bool:
        return False

    def reconcile(self, desired: Desired, protected: Protects = protect_nothing, /) -> Report:
        self.calls.append("reconcile")
        self._take(desired.specs)
        stay = {p: t for p, t in self.held.items() if protected(owner_of(t.comment))}
        self.held = stay | dict(desired.specs)
        return Report(Family.IPV4, (), 0, 0, ())

    def change(self, delta: Delta, /) -> Report:
        self.calls.append("change")
        if self.gone:
            raise TransactionError("The kernel refused a transaction: No such file or directory")
        self._take({side: spec for side, spec in delta.specs.items() if spec})
        for side, spec in delta.specs.items():
            if spec is None:
                self.held.pop(side, None)
            else:
                self.held[side] = spec
        return Report(Family.IPV4, (), 0, 0, ())

    def is_gone(self) -> bool:
        return self.gone

    def is_ours_alone(self) -> bool:
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

    def _take(self, specs: dict[FrontendSide, FrontendSpec]) -> None:
        if self.broken:
            raise TransactionError("The kernel refused a transaction.")
        for side, spec in specs.items():
            if owner_of(spec.comment) in self.refused:
                named = self.names(side)
                raise TransactionError("The kernel refused a transaction.", self.errno, refused=named)

    def services(self) -> set[NamespacedName]:
        return {owner_of(spec.comment) for spec in self.held.values()}


class Now:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class World:
    """A reconciler of one family, its source with eight services, its kernel and its clock."""

    def __init__(self) -> None:
        self.kernel, self.source, self.now = Kernel(), Given(), Now()
        self.options: list[KproxyError] = []
        self.begin()
        for number in range(len(NAMES)):
            self.source.put(number)

    def begin(self) -> None:
        """A reconciler that knows nothing."""
        dataplanes = {Family.IPV4: self.kernel}
        self.reconciler = Reconciler(self.source, dataplanes, self._options, clock=self.now)

    def _options(self, node: Node) -> Options:
        if self.options:
            raise self.options.pop()
        return Options()

    def round(
        self, *numbers: int, suspect: Collection[Family] = (), edits: Iterable[Edit] = ()
    ) -> RoundReport:
        """A round in which these services changed."""
        return self.reconciler.round([NAMES[number] for number in numbers], suspect, edits)

    def remove(self, number: int) -> RoundReport:
        """A round in which a service went."""
        del self.source.services[NAMES[number]]
        return self.round(number)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def kernel(world: World) -> Kernel:
    return world.kernel


@pytest.fixture
def now(world: World) -> Now:
    return world.now


# --- what is due ---


def test_first_everything_then_what_changed(world: World, kernel: Kernel) -> None:
    assert world.round().compared
    assert kernel.calls == ["reconcile"]
    world.source.put(0, ())
    assert not world.round(0).compared
    assert not world.round(0).compared  # nothing new: nothing is asked of the kernel
    assert kernel.calls == ["reconcile", "change"]
    assert world.round(suspect=IPV4).compared
    assert kernel.calls == ["reconcile", "change", "restore", "reconcile"]
    assert world.reconciler.due() is None


def test_another_node_is_another_everything(world: World) -> None:
    assert set(world.round().names) == set(NAMES)
    assert set(world.round(1).names) == {NAMES[1]}
    world.source.here = Node("n1", zone="z")
    assert set(world.round().names) == set(NAMES)
    del world.source.services[NAMES[0]]
    world.reconciler.changes_lost()
    assert set(world.round().names) == set(NAMES)
    assert world.kernel.services() == set(NAMES[1:])


def test_without_options_nothing_is_done_and_nothing_is_lost(world: World, kernel: Kernel) -> None:
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
    assert done.totals == Totals(services=7, frontends=7, held=1, quarantined=1)
    assert summary(done) == "7 services, 7 frontends, 1 held, 1 rejected: nothing to change"
    assert list(lines(done)) == []
    assert [str(problem) for problem in world.reconciler.problems()] == [
        "Service default/s3: rejected by the kernel; the previous configuration remains active"
    ]


@pytest.mark.parametrize("bad", [{NAMES[3]}, {NAMES[0], NAMES[7]}, set(NAMES)])
def test_a_refused_service_does_not_stand_in_the_way(
    world: World, kernel: Kernel, now: Now, bad: set[NamespacedName]
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
    return (RefusedElement("ip", "endpoints-tcp", slot_keys(frontend_socket(side.key), [3])[0]),)


def the_address(side: FrontendSide) -> tuple[RefusedElement, ...]:
    return (RefusedElement("ip", "cluster-ips", frontend_address(side.key)),)


@pytest.mark.parametrize("names", [the_verdict, a_slot, the_address])
def test_services_whose_elements_the_kernel_names_are_not_searched_for(
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
def test_where_the_named_element_is_of_no_service_the_bad_ones_are_searched_for(
    world: World, kernel: Kernel, named: RefusedElement
) -> None:
    kernel.refused, kernel.names = {NAMES[2]}, lambda _: (named,)
    assert world.round().failures == {}
    assert kernel.services() == {*NAMES} - kernel.refused


def test_an_element_that_another_program_added_or_removed_blames_no_service(
    world: World, kernel: Kernel
) -> None:
    kernel.refused, kernel.names, kernel.errno = {NAMES[2]}, the_innocent, errno.EEXIST
    assert world.round().failures == {}
    assert kernel.services() == {*NAMES} - kernel.refused


def the_innocent(side: FrontendSide) -> tuple[RefusedElement, ...]:
    return the_verdict(side._replace(key=key_of(1)))


def test_a_kernel_that_names_the_wrong_services_is_not_asked_for_ever(
    world: World, kernel: Kernel, now: Now
) -> None:
    innocent = iter(range(len(NAMES)))
    kernel.refused = {NAMES[7]}
    kernel.names = lambda side: the_verdict(side._replace(key=key_of(next(innocent))))
    assert world.round().failures == {}
    assert kernel.calls.count("reconcile") <= NAMED_ATTEMPTS + 2
    kernel.names = the_verdict
    now.time += FIRST
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES[:7])


def key_of(number: int) -> FrontendKey:
    return frontend_key(bytes([10, 96, 0, number]), Protocol.TCP, 80)


def test_what_was_programmed_of_a_refused_service_stays(world: World, kernel: Kernel) -> None:
    world.round()
    before = dict(kernel.held)
    kernel.refused = {NAMES[1]}
    world.source.put(1, ["10.0.0.9"])
    world.source.put(2, ())
    world.round(1, 2)
    assert {p: t for p, t in kernel.held.items() if owner_of(t.comment) == NAMES[1]} == {
        p: t for p, t in before.items() if owner_of(t.comment) == NAMES[1]
    }
    assert kernel.held != before
    world.remove(1)
    world.round(suspect=IPV4)
    assert NAMES[1] not in kernel.services()


def test_a_refused_service_is_not_due_while_nothing_works(world: World, kernel: Kernel, now: Now) -> None:
    kernel.refused = {NAMES[0]}
    world.round()
    kernel.broken = True
    due = world.reconciler.due()
    assert due is not None
    for _ in range(100):
        now.time = due
        calls = len(kernel.calls)
        world.round(suspect=IPV4)
        assert len(kernel.calls) > calls, "woken for nothing"
        due = world.reconciler.due()
        assert due is not None
        assert due > now.time
    kernel.broken, now.time = False, due
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES[1:])


def test_an_address_that_a_refused_service_takes_leaves_the_service_that_had_it(
    world: World, kernel: Kernel
) -> None:
    side = FrontendSide(EndpointScope.ALL, frontend_key(bytes([203, 0, 113, 1]), Protocol.TCP, 80))
    world.source.put(1, created="2025-01-02T00:00:00Z", externalIPs=["203.0.113.1"])
    world.round()
    kernel.refused = {NAMES[2]}
    world.source.put(2, ())
    world.round(2)
    assert side in kernel.held
    world.source.put(2, ["10.0.0.2"], created="2025-01-01T00:00:00Z", externalIPs=["203.0.113.1"])
    world.round(2)
    assert side not in kernel.held
    assert NAMES[1] in kernel.services()


def test_a_table_that_goes_while_refused_services_are_searched_for_blames_none(
    world: World, kernel: Kernel, now: Now, monkeypatch: pytest.MonkeyPatch
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
    kernel.gone, kernel.held = False, {}
    now.time += FIRST
    assert not world.round().failures
    assert kernel.services() == {*NAMES} - {NAMES[3]}
    assert [name for name in NAMES if world.reconciler.is_quarantined(name)] == [NAMES[3]]


# --- a kernel that refuses everything, or cannot answer ---


def test_a_kernel_that_refuses_everything_is_asked_with_backoff(
    world: World, kernel: Kernel, now: Now
) -> None:
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
    assert max(pauses) == LONGEST
    kernel.broken = False
    now.time += LONGEST
    assert world.round().failures == {}
    assert kernel.services() == set(NAMES)


def test_nothing_is_lost_while_the_kernel_refuses_everything(world: World, kernel: Kernel, now: Now) -> None:
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
    """And ends nothing: these are asked while another program changes tables again and again."""

    def fail() -> bool:
        raise error

    monkeypatch.setattr(kernel, "is_gone", fail)
    monkeypatch.setattr(kernel, "is_ours_alone", fail)
    assert not world.reconciler.any_gone()
    assert world.reconciler.doubtful() == {Family.IPV4}


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_a_failure_is_reported_with_what_to_do(
    world: World, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: object) -> Report:
        raise pickle.loads(pickle.dumps(error))  # it may have come from a child process

    monkeypatch.setattr(kernel, "reconcile", fail)
    assert world.round().failures == {Family.IPV4: said}


# --- services part of whose input cannot be read ---


def test_a_held_service_goes_when_its_input_can_be_read_again(world: World, kernel: Kernel) -> None:
    """The table of an earlier process has two services: one that is gone, and one that cannot be read now."""
    world.round()
    for name in NAMES[:2]:
        del world.source.services[name]
    world.begin()
    world.source.unreadable = set(NAMES[:2])
    assert world.round().totals == Totals(6, 6, held=2)
    assert kernel.services() == set(NAMES)
    kernel.calls.clear()
    world.source.put(5, ())
    assert world.round(5).totals.held == 2
    assert kernel.calls == ["change"]
    world.source.unreadable = set()
    world.source.put(0)
    assert world.round(0).totals == Totals(7, 7)
    assert kernel.services() == {NAMES[0], *NAMES[2:]}
    world.remove(0)
    assert kernel.calls == ["change", "reconcile", "change"]


def test_a_change_of_a_protected_service_is_a_whole_comparison(world: World, kernel: Kernel) -> None:
    world.round()
    world.source.unreadable = {NAMES[0]}
    world.source.put(0, ())
    assert world.round(0).compared
    assert kernel.calls == ["reconcile", "reconcile"]


# --- what other programs did ---


def test_a_table_that_is_gone_is_restored_before_all_else(world: World, kernel: Kernel, now: Now) -> None:
    """Unless what it held is not known for sure."""
    world.round(suspect=IPV4)
    kernel.gone = True
    done = world.round(suspect=IPV4)
    assert [report.added for report in done.reports] == [7, 0]
    assert kernel.calls == ["reconcile", "restore", "reconcile"]
    kernel.gone = True
    kernel.calls.clear()
    assert world.reconciler.any_gone()
    world.source.put(0, ())
    done = world.round(0)  # before it was noticed
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
    assert world.round(suspect=IPV4).failures  # it waits
    kernel.gone = True
    assert not world.round(suspect=IPV4).failures


def test_elements_that_others_changed_are_repaired_alone(world: World, kernel: Kernel) -> None:
    edit = Edit(Family.IPV4, {SetName.SERVICES: {b"key"}})
    world.round(edits=[edit])  # all is compared anyway
    world.source.put(0, ())
    done = world.round(0, edits=[edit])
    assert not done.compared
    assert [report.repaired for report in done.reports] == [("services",), ()]
    assert kernel.calls == ["reconcile", "repair", "change"]
    assert world.round(edits=[Edit(Family.IPV4, {})]).compared  # more than it can do
    kernel.calls.clear()
    assert not world.round().compared
    assert kernel.calls == []


def test_elements_that_cannot_be_repaired_make_it_a_whole_comparison(world: World, kernel: Kernel) -> None:
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

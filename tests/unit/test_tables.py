"""What the daemon does when the kernel does not take what is wanted."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise

import pytest

from kproxy.kernel.netlink.socket import Interrupted
from kproxy.model import Family, FrontendKind, NamespacedName, Origin, protect_nothing
from kproxy.nft.elements import Keys
from kproxy.problems import HostError, TransactionError
from kproxy.reconcile.core.backoff import FIRST, LONGEST, Backoff
from kproxy.reconcile.core.report import Report
from kproxy.reconcile.round import Edit, Tables
from kproxy.resolve.claims import FrontendClaim
from kproxy.table.compile import Delta, Desired
from kproxy.table.keys import frontend_key
from kproxy.table.layout import EndpointScope, FrontendSide, FrontendSpec
from kproxy.table.names import SetName
from kproxy.table.plan import owner_of
from kproxy.table.skeleton import Options
from tests.unit.make import frontend

NAMES = [NamespacedName("default", f"s{number}") for number in range(8)]


def claim(number: int, endpoints: tuple[str, ...] = ("10.0.0.1:80",)) -> FrontendClaim:
    at = f"10.96.0.{number}:80"
    return FrontendClaim(Origin("in.yaml", ""), (frontend(at, list(endpoints), owner=f"default/s{number}"),))


class Kernel:
    """A table that takes some services and not others, or nothing at all."""

    def __init__(self) -> None:
        self.held: dict[FrontendSide, FrontendSpec] = {}
        self.refused: set[NamespacedName] = set()
        self.broken = self.gone = False
        self.calls: list[str] = []

    def set_options(self, options: Options) -> bool:
        return False

    def reconcile(
        self, desired: Desired, protected: Callable[[NamespacedName], bool] = protect_nothing, /
    ) -> Report:
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
        self.calls.append("mend")
        if self.broken:
            raise TransactionError("The kernel refused a transaction.")
        return Report(Family.IPV4, (), 0, len(keys), (), repaired=tuple(keys)) if keys else None

    def _take(self, specs: dict[FrontendSide, FrontendSpec]) -> None:
        if self.broken or self.refused & {owner_of(spec.comment) for spec in specs.values()}:
            raise TransactionError("The kernel refused a transaction.")

    def services(self) -> set[NamespacedName]:
        return {owner_of(spec.comment) for spec in self.held.values()}


class Now:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def tables(kernel: Kernel, now: Now) -> Tables:
    return Tables({Family.IPV4: kernel}, now)


def everything() -> dict[NamespacedName, FrontendClaim | None]:
    return {name: claim(number) for number, name in enumerate(NAMES)}


def test_first_everything_then_what_changed(tables: Tables, kernel: Kernel) -> None:
    assert tables.apply(everything()).checked
    assert kernel.calls == ["reconcile"]
    assert not tables.apply({NAMES[0]: claim(0, ())}).checked
    assert not tables.apply({NAMES[0]: claim(0, ())}).checked  # nothing new: nothing is asked of the kernel
    assert kernel.calls == ["reconcile", "change"]
    assert tables.apply({}, suspect=frozenset({Family.IPV4})).checked
    assert kernel.calls == ["reconcile", "change", "restore", "reconcile"]
    assert tables.due() is None


@pytest.mark.parametrize("bad", [{NAMES[3]}, {NAMES[0], NAMES[7]}, set(NAMES)])
def test_who_is_not_taken_does_not_stand_in_the_way(
    tables: Tables, kernel: Kernel, now: Now, bad: set[NamespacedName]
) -> None:
    kernel.refused = bad
    assert tables.apply(everything()).failures == {}
    assert kernel.services() == set(NAMES) - bad
    assert [problem.object for problem in tables.problems()] == [f"Service {name}" for name in sorted(bad)]
    assert tables.due() == now.time + FIRST

    kernel.refused = set()
    tables.apply({})
    assert kernel.services() == set(NAMES) - bad  # not yet
    now.time += FIRST
    tables.apply({})
    assert kernel.services() == set(NAMES)
    assert tables.problems() == []
    assert tables.due() is None


def test_what_was_programmed_of_a_service_that_is_not_taken_stays(tables: Tables, kernel: Kernel) -> None:
    tables.apply(everything())
    before = dict(kernel.held)
    kernel.refused = {NAMES[1]}
    tables.apply({NAMES[1]: claim(1, ("10.0.0.9:80",)), NAMES[2]: claim(2, ())})
    assert {p: t for p, t in kernel.held.items() if owner_of(t.comment) == NAMES[1]} == {
        p: t for p, t in before.items() if owner_of(t.comment) == NAMES[1]
    }
    assert kernel.held != before
    tables.apply({NAMES[1]: None})
    tables.apply({}, suspect=frozenset({Family.IPV4}))
    assert NAMES[1] not in kernel.services()


def test_a_kernel_that_takes_nothing_is_asked_ever_more_seldom(
    tables: Tables, kernel: Kernel, now: Now
) -> None:
    kernel.broken = True
    times = []
    for _ in range(1000):
        calls = len(kernel.calls)
        tables.apply({})
        if len(kernel.calls) > calls:
            times.append(now.time)
        now.time += 0.25
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert max(pauses) == LONGEST
    kernel.broken = False
    now.time += LONGEST
    assert tables.apply(everything()).failures == {}
    assert kernel.services() == set(NAMES)


def test_nothing_is_lost_while_the_kernel_takes_nothing(tables: Tables, kernel: Kernel, now: Now) -> None:
    tables.apply(everything())
    kernel.broken = True
    assert tables.apply({NAMES[0]: None}).failures
    assert tables.apply({NAMES[1]: None}).failures == {Family.IPV4: "The kernel refused a transaction."}
    assert kernel.services() == set(NAMES)
    kernel.broken = False
    now.time += FIRST
    assert tables.apply({}).failures == {}
    assert kernel.services() == set(NAMES[2:])


def test_what_was_kept_goes_when_its_service_is_whole_again(tables: Tables, kernel: Kernel) -> None:
    """The table of another life has two services: one that is gone, and one that cannot be read now."""
    tables.apply(everything())
    tables = Tables({Family.IPV4: kernel}, Now())
    doubtful = set(NAMES[:2])
    tables.apply({name: claim(number) for number, name in enumerate(NAMES[2:], 2)}, doubtful.__contains__)
    assert kernel.services() == set(NAMES)
    kernel.calls.clear()
    tables.apply({NAMES[5]: claim(5, ())}, doubtful.__contains__)
    assert kernel.calls == ["change"]
    doubtful.clear()
    tables.apply({NAMES[0]: claim(0)}, doubtful.__contains__)
    assert kernel.services() == {NAMES[0], *NAMES[2:]}
    tables.apply({NAMES[0]: None}, doubtful.__contains__)
    assert kernel.calls == ["change", "reconcile", "change"]


def test_a_change_of_a_service_that_is_kept_is_a_whole_check(tables: Tables, kernel: Kernel) -> None:
    tables.apply(everything())
    assert tables.apply({NAMES[0]: claim(0, ())}, {NAMES[0]}.__contains__).checked
    assert kernel.calls == ["reconcile", "reconcile"]


def test_who_is_set_aside_is_not_due_while_nothing_works(tables: Tables, kernel: Kernel, now: Now) -> None:
    kernel.refused = {NAMES[0]}
    tables.apply(everything())
    kernel.broken = True
    due = tables.due()
    assert due is not None
    for _ in range(100):
        now.time = due
        calls = len(kernel.calls)
        tables.apply({}, suspect=frozenset({Family.IPV4}))
        assert len(kernel.calls) > calls, "woken for nothing"
        due = tables.due()
        assert due is not None
        assert due > now.time
    kernel.broken, now.time = False, due
    assert tables.apply({}).failures == {}
    assert kernel.services() == set(NAMES[1:])


def test_who_is_set_aside_leaves_nobody_where_he_should_be(tables: Tables, kernel: Kernel) -> None:
    """An address that goes from one service to another that the kernel does not take."""
    contested = frontend("203.0.113.1:80", ["10.0.0.1:80"], "default/s1", kind=FrontendKind.EXTERNAL_IP)
    young = FrontendClaim(Origin("in.yaml", "2025-01-02T00:00:00Z"), (*claim(1).frontends, contested))
    tables.apply({NAMES[1]: young, NAMES[2]: claim(2)})
    kernel.refused = {NAMES[2]}
    tables.apply({NAMES[2]: claim(2, ())})
    assert (
        FrontendSide(EndpointScope.ALL, frontend_key(contested.address, contested.protocol, 80))
        in kernel.held
    )
    taken = frontend("203.0.113.1:80", ["10.0.0.2:80"], "default/s2", kind=FrontendKind.EXTERNAL_IP)
    old = FrontendClaim(Origin("in.yaml", "2025-01-01T00:00:00Z"), (*claim(2).frontends, taken))
    tables.apply({NAMES[2]: old})
    assert (
        FrontendSide(EndpointScope.ALL, frontend_key(contested.address, contested.protocol, 80))
        not in kernel.held
    )
    assert NAMES[1] in kernel.services()


def test_a_table_that_is_gone_is_restored_before_all_else(tables: Tables, kernel: Kernel, now: Now) -> None:
    """Unless what it held is not known for sure."""
    suspect = frozenset({Family.IPV4})
    tables.apply(everything(), suspect=suspect)
    kernel.gone = True
    done = tables.apply({}, suspect=suspect)
    assert [report.added for report in done.reports] == [7, 0]
    assert kernel.calls == ["reconcile", "restore", "reconcile"]
    kernel.gone = True
    kernel.calls.clear()
    assert tables.any_gone()
    done = tables.apply({NAMES[0]: claim(0, ())})  # before anybody noticed
    assert [report.added for report in done.reports] == [7, 0]
    assert kernel.calls == ["change", "restore", "reconcile"]
    kernel.broken = True
    assert tables.apply({}, suspect=suspect).failures
    kernel.broken = False
    now.time += FIRST
    kernel.calls.clear()
    assert not tables.apply({}, suspect=suspect).failures
    assert kernel.calls == ["reconcile"]
    kernel.broken = True
    assert tables.apply({}, suspect=suspect).failures
    kernel.broken = False
    assert tables.apply({}, suspect=suspect).failures  # it waits
    kernel.gone = True
    assert not tables.apply({}, suspect=suspect).failures


def test_a_table_that_goes_while_bad_services_are_looked_for_is_nobodys_fault(
    tables: Tables, kernel: Kernel, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.refused = {NAMES[3]}
    change = kernel.change

    def flushed(delta: Delta) -> Report:
        kernel.gone = len(kernel.calls) > 3
        return change(delta)

    monkeypatch.setattr(kernel, "change", flushed)
    assert tables.apply(everything()).failures
    assert not any(map(tables.is_refused, NAMES))
    monkeypatch.undo()
    kernel.gone, kernel.held = False, {}
    now.time += FIRST
    assert not tables.apply({}).failures
    assert kernel.services() == {*NAMES} - {NAMES[3]}
    assert [name for name in NAMES if tables.is_refused(name)] == [NAMES[3]]


@pytest.mark.parametrize("error", [Interrupted(), OSError(105, "No buffer space available")])
def test_a_kernel_that_cannot_say_leaves_doubt(
    tables: Tables, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And ends nothing: these are asked while somebody changes tables again and again."""

    def fail() -> bool:
        raise error

    monkeypatch.setattr(kernel, "is_gone", fail)
    monkeypatch.setattr(kernel, "is_ours_alone", fail)
    assert not tables.any_gone()
    assert tables.doubtful() == {Family.IPV4}


def test_elements_that_others_changed_are_put_right_by_themselves(tables: Tables, kernel: Kernel) -> None:
    edit = Edit(Family.IPV4, {SetName.SERVICES: {b"key"}})
    tables.apply(everything(), edits=[edit])  # all is compared anyway
    done = tables.apply({NAMES[0]: claim(0, ())}, edits=[edit])
    assert not done.checked
    assert [report.repaired for report in done.reports] == [("services",), ()]
    assert kernel.calls == ["reconcile", "mend", "change"]
    assert tables.apply({}, edits=[Edit(Family.IPV4, {})]).checked  # more than it can do
    kernel.calls.clear()
    assert not tables.apply({}).checked
    assert kernel.calls == []


def test_elements_that_cannot_be_put_right_are_a_matter_of_a_whole_check(
    tables: Tables, kernel: Kernel
) -> None:
    tables.apply(everything())
    kernel.broken = True
    assert tables.apply({}, edits=[Edit(Family.IPV4, {SetName.SERVICES: {b"key"}})]).checked
    assert kernel.calls[:3] == ["reconcile", "mend", "reconcile"]


def test_back_off() -> None:
    backoff = Backoff()
    assert backoff.due < 0
    for delay in (0.5, 1, 2, 4, 8, 16, 30, 30):
        backoff.failed(1000)
        assert backoff.due == 1000 + delay
    backoff.succeeded()
    backoff.failed(0)
    assert backoff.due == FIRST


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
            "Another program keeps changing them: try again.",
        ),
        (OSError(105, "No buffer space available"), "[Errno 105] No buffer space available"),
    ],
)
def test_what_stands_in_the_way_is_said_with_what_to_do(
    tables: Tables, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: object) -> Report:
        raise pickle.loads(pickle.dumps(error))  # it may have come from a child process

    monkeypatch.setattr(kernel, "reconcile", fail)
    assert tables.apply(everything()).failures == {Family.IPV4: said}

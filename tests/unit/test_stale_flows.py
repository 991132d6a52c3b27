"""When stale UDP flows are ended: at once, or later together with others."""

from __future__ import annotations

import pytest

from kproxy.kernel.conntrack import EndedFlows
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.reconcile import flows
from kproxy.reconcile.flows import LONGEST, SHARE, StaleFlows
from kproxy.table.flows import FlowRule
from kproxy.table.keys import PackedSocket

A, B = PackedSocket(b"frontend"), PackedSocket(b"other")
KEEP_ONE = FlowRule(frozenset([PackedSocket(b"one")]), keep_listed=True)
KEEP_TWO = FlowRule(frozenset([PackedSocket(b"two")]), keep_listed=True)


class Search:
    """A kernel whose searches take some time, and its clock."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 100.0, seconds
        self.searched: list[dict[PackedSocket, FlowRule]] = []
        self.warnings: tuple[str, ...] = ()

    def __call__(self, netlink: Netlink, family: Family, rules: dict[PackedSocket, FlowRule]) -> EndedFlows:
        self.searched.append(dict(rules))
        self.now += self.seconds
        return EndedFlows(len(rules), self.warnings)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    made = Search(0.01)
    monkeypatch.setattr(flows, "end_flows", made)
    return made


@pytest.fixture
def stale(search: Search) -> StaleFlows:
    found = StaleFlows(None, Family.IPV4, lambda: search.now)  # type: ignore[arg-type]
    found.patient = True
    return found


def waiting(stale: StaleFlows) -> list[float]:
    """When flows are to be ended; [] if none wait."""
    return [] if stale.due is None else [stale.due]


def test_the_first_flows_are_ended_at_once_and_later_ones_together(stale: StaleFlows, search: Search) -> None:
    assert stale.end({A: KEEP_ONE}, may_wait=True).flows == 1
    assert waiting(stale) == []
    for rule in (KEEP_ONE, KEEP_TWO):
        assert stale.end({A: rule}, may_wait=True).flows == 0
    stale.end({B: KEEP_ONE}, may_wait=True)
    (due,) = waiting(stale)
    assert due == pytest.approx(search.now + 0.01 / SHARE)
    assert stale.end_due(due - 0.001) is None
    search.now = due
    ended = stale.end_due(due)
    assert ended is not None
    assert ended.flows == 2
    assert search.searched == [{A: KEEP_ONE}, {A: KEEP_TWO, B: KEEP_ONE}]
    assert (waiting(stale), stale.end_due(due + 9)) == ([], None)


def test_flows_that_must_not_wait_take_the_waiting_ones_along(stale: StaleFlows, search: Search) -> None:
    stale.end({A: KEEP_ONE})
    stale.end({A: KEEP_TWO}, may_wait=True)
    assert stale.end({B: KEEP_ONE}).flows == 2
    assert stale.due is None


def test_without_rules_nothing_is_searched(stale: StaleFlows, search: Search) -> None:
    assert stale.end({}, may_wait=True) == stale.end({}) == (0, ())
    assert search.searched == []


def test_a_long_search_is_repeated_after_a_second(stale: StaleFlows, search: Search) -> None:
    search.seconds = 7.0
    stale.end({A: KEEP_ONE})
    stale.end({A: KEEP_ONE}, may_wait=True)
    assert stale.due == search.now + LONGEST


def test_a_sync_does_not_wait(stale: StaleFlows, search: Search) -> None:
    stale.patient = False
    for _ in range(2):
        assert stale.end({A: KEEP_ONE}, may_wait=True).flows == 1


def test_a_failed_search_is_remembered_until_one_succeeds(stale: StaleFlows, search: Search) -> None:
    search.warnings = ("cannot",)
    stale.end({A: KEEP_ONE})
    assert stale.remain
    search.warnings = ()
    stale.end({A: KEEP_ONE})
    assert not stale.remain

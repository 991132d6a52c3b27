"""When stale UDP flows are ended: at once, or after a search in another thread."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import pytest

from kproxy.daemon.stale import StaleSearcher
from kproxy.kernel.conntrack import EndedFlows, FoundFlows, StaleEntry
from kproxy.kernel.netlink.socket import unusable
from kproxy.model import Family
from kproxy.reconcile import flows
from kproxy.reconcile.flows import FlowSearch, StaleFlows
from kproxy.table.flows import FlowRule
from kproxy.table.layout import PackedSocket

A, B = PackedSocket(b"frontend"), PackedSocket(b"other")
KEEP_ONE = FlowRule(frozenset([PackedSocket(b"one")]), keep_listed=True)
KEEP_TWO = FlowRule(frozenset([PackedSocket(b"two")]), keep_listed=True)
NONE = EndedFlows(0, ())


class Kernel:
    """A kernel that has one stale flow of each frontend."""

    def __init__(self) -> None:
        self.searched: list[dict[PackedSocket, FlowRule]] = []
        self.ended: list[PackedSocket] = []
        self.stale = {A, B}
        self.warnings: tuple[str, ...] = ()
        self.broken = False

    def find(self, _: object, family: Family, rules: dict[PackedSocket, FlowRule]) -> FoundFlows:
        self.searched.append(dict(rules))
        found = (StaleEntry(frontend, b"") for frontend in rules if frontend in self.stale)
        return FoundFlows(tuple(found), self.warnings)

    def end(self, _: object, family: Family, found: FoundFlows) -> EndedFlows:
        self.ended += [entry.frontend for entry in found.entries]
        return EndedFlows(len(found.entries), found.warnings)

    def __enter__(self) -> None:
        if self.broken:
            raise unusable(OSError(24, "Too many open files"))

    def __exit__(self, kind: type[BaseException] | None, _: object, trace: TracebackType | None) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(flows, "find_flows", made.find)
    monkeypatch.setattr(flows, "end_flows", made.end)
    monkeypatch.setattr(flows, "Netlink", lambda: made)
    return made


@pytest.fixture
def stale(kernel: Kernel) -> StaleFlows:
    found = StaleFlows(None, Family.IPV4)  # type: ignore[arg-type]
    found.patient = True
    return found


def begin(stale: StaleFlows) -> FlowSearch:
    search = stale.begin()
    assert search
    return search


def test_flows_that_may_wait_are_searched_together_and_then_ended(stale: StaleFlows, kernel: Kernel) -> None:
    for rules in ({A: KEEP_ONE}, {A: KEEP_TWO}, {B: KEEP_ONE}):
        assert stale.end(rules, may_wait=True) == NONE
    assert stale.waiting
    search = begin(stale)
    assert (stale.waiting, stale.end_found()) == (False, NONE)
    search.run()
    assert kernel.searched == [{A: KEEP_TWO, B: KEEP_ONE}]
    assert search.has_found
    assert stale.end_found() == (2, ())
    assert stale.end_found() == NONE
    assert stale.begin() is None


@pytest.mark.parametrize("searched_before", [False, True])
def test_a_search_says_nothing_of_frontends_that_changed_since(
    searched_before: bool, stale: StaleFlows, kernel: Kernel
) -> None:
    stale.end({A: KEEP_ONE, B: KEEP_ONE}, may_wait=True)
    search = begin(stale)
    if searched_before:
        search.run()
    stale.end({A: KEEP_TWO}, may_wait=True)  # perhaps the endpoint of the stale flow serves again
    if not searched_before:
        search.run()
    stale.end_found()
    assert kernel.ended == [B]
    begin(stale).run()
    stale.end_found()
    assert kernel.ended == [B, A]
    assert kernel.searched == [{A: KEEP_ONE, B: KEEP_ONE}, {A: KEEP_TWO}]


def test_flows_that_must_not_wait_take_the_others_along(stale: StaleFlows, kernel: Kernel) -> None:
    stale.end({A: KEEP_ONE}, may_wait=True)
    search = begin(stale)  # it is not done yet
    assert stale.end({B: KEEP_ONE}) == (2, ())
    assert kernel.searched == [{A: KEEP_ONE, B: KEEP_ONE}]
    search.run()
    assert (stale.waiting, stale.end_found()) == (False, NONE)


def test_a_search_whose_result_was_not_used_is_repeated(stale: StaleFlows, kernel: Kernel) -> None:
    stale.end({A: KEEP_ONE}, may_wait=True)
    begin(stale).run()  # no round can begin
    stale.end({B: KEEP_ONE}, may_wait=True)
    begin(stale).run()
    assert stale.end_found() == (2, ())


def test_without_rules_nothing_is_searched(stale: StaleFlows, kernel: Kernel) -> None:
    assert stale.end({}, may_wait=True) == stale.end({}) == stale.end_all() == NONE
    assert (kernel.searched, stale.begin()) == ([], None)


def test_a_sync_does_not_wait(stale: StaleFlows) -> None:
    stale.patient = False
    assert stale.end({A: KEEP_ONE}, may_wait=True) == (1, ())


@pytest.mark.parametrize("how", ["a warning", "no socket"])
def test_a_failed_search_is_remembered_until_one_succeeds(
    how: str, stale: StaleFlows, kernel: Kernel
) -> None:
    kernel.warnings, kernel.broken = ("cannot",), how == "no socket"
    stale.end({A: KEEP_ONE}, may_wait=True)
    search = begin(stale)
    search.run()
    assert search.has_found
    ended = stale.end_found()
    assert "cannot" in ended.warnings[0].lower()
    assert stale.remain
    kernel.warnings, kernel.broken = (), False
    stale.end({A: KEEP_ONE}, may_wait=True)
    begin(stale).run()
    stale.end_found()
    assert not stale.remain


class Loop:
    """A loop whose rounds end what was found."""

    def __init__(self, stale: StaleFlows, rounds: int) -> None:
        self.idle = asyncio.Lock()
        self._stale, self._left = stale, rounds
        self.ended: list[int] = []
        self.enough = asyncio.Event()

    def wake(self) -> None:
        self.ended.append(self._stale.end_found().flows)
        if len(self.ended) == self._left:
            self.enough.set()


def test_a_daemon_searches_after_rounds_and_wakes_the_loop_if_it_finds_something(
    stale: StaleFlows, kernel: Kernel
) -> None:
    async def story() -> list[int]:
        loop: Any = Loop(stale, 2)
        searcher = StaleSearcher([stale], loop)
        running = asyncio.create_task(searcher.run())
        searcher.look()  # nothing waits
        stale.end({A: KEEP_ONE}, may_wait=True)
        searcher.look()
        while not loop.ended:
            await asyncio.sleep(0)
        kernel.stale = {B}
        for rules in ({A: KEEP_ONE}, {B: KEEP_ONE}):
            stale.end(rules, may_wait=True)
            searcher.look()
        await loop.enough.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        ended: list[int] = loop.ended
        return ended

    assert asyncio.run(asyncio.wait_for(story(), 30)) == [1, 1]
    assert len(kernel.searched) == 2 or kernel.searched[1:] == [{A: KEEP_ONE, B: KEEP_ONE}]

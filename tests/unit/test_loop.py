"""The daemon's loop: when it runs rounds, which services and tables they concern, and failures."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from itertools import pairwise

import pytest

from kproxy.daemon import running
from kproxy.daemon.loop import Loop, Periods
from kproxy.model import Family, NamespacedName
from kproxy.problems import HostError, KproxyError, StateError
from kproxy.reconcile.core.backoff import FIRST
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.table.layout import SetName
from kproxy.table.skeleton import Options
from tests.unit.make import name
from tests.unit.source import EmptySource

A, B = name("a"), name("b")


class Source(EmptySource):
    """A source that only records what is taken."""

    revision = 0

    def __init__(self) -> None:
        self.synced = True
        self.changed: set[NamespacedName] = {A, B}
        self.error: Exception | None = None
        self.taken: list[set[NamespacedName]] = []

    async def run(self, wake: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def take(self) -> Collection[NamespacedName]:
        if self.error is not None:
            self.changed.clear()
            raise self.error
        changed, self.changed = self.changed, set()
        self.taken.append(changed)
        return changed

    def names(self) -> Iterable[NamespacedName]:
        return [A, B]

    def host_changed(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    def take_triggers(self) -> Collection[str]:
        return ()


class Recorder(Reconciler):
    """A reconciler that only records its calls."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, {}, lambda _, __: Options(), print)
        self.rounds: list[tuple[set[NamespacedName], frozenset[Family]]] = []
        self.changed = frozenset(Family)
        self.edits: list[Edit] = []
        self.dues: list[float] = []
        self.error: KproxyError | None = None
        self.lost = 0

    def round(
        self,
        names: Collection[NamespacedName],
        suspect: Collection[Family] = (),
        edits: Iterable[Edit] = (),
    ) -> RoundReport:
        if self.error:
            error, self.error = self.error, None
            raise error
        self.edits += edits
        self.rounds.append((set(names), frozenset(suspect)))
        return RoundReport((), compared=bool(suspect), names=names)

    def changes_lost(self) -> None:
        self.lost += 1

    def due(self) -> float | None:
        return self.dues.pop() if self.dues else None

    def possibly_changed(self) -> frozenset[Family]:
        return self.changed


class Observer(RoundObserver):
    """Records reports and errors, and the times of reports."""

    def __init__(self) -> None:
        self.done: list[RoundReport] = []
        self.times: list[float] = []
        self.errors: list[KproxyError] = []

    def round_done(self, done: RoundReport) -> None:
        self.done.append(done)
        self.times.append(asyncio.get_running_loop().time())

    def round_failed(self, error: KproxyError) -> None:
        self.errors.append(error)


class World:
    def __init__(self, check: float = 60.0, pause: float = 0.0) -> None:
        self.source, self.observer = Source(), Observer()
        self.reconciler = Recorder(self.source)
        self.loop = Loop(self.source, self.reconciler, Periods(check, pause), [self.observer])

    async def rounds(self, number: int) -> None:
        """Wait for this number of rounds, and check that no other follows immediately."""
        async with asyncio.timeout(60):
            while len(self.reconciler.rounds) < number:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert len(self.reconciler.rounds) == number


def run(story: Callable[[World], object], **periods: float) -> World:
    world = World(**periods)

    async def live() -> None:
        task = asyncio.create_task(world.loop.run())
        steps = story(world)
        assert asyncio.iscoroutine(steps)
        await steps
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    return world


def test_the_first_round_compares_everything_and_later_ones_apply_changes() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        world.source.changed = {A}
        world.loop.wake()
        await world.rounds(2)

    assert run(story).reconciler.rounds == [({A, B}, frozenset(Family)), ({A}, frozenset())]


def test_no_round_runs_before_the_source_is_synced() -> None:
    async def story(world: World) -> None:
        world.source.synced = False
        world.loop.wake()
        await asyncio.sleep(0.05)
        assert world.reconciler.rounds == []
        world.source.synced = True
        world.loop.wake()
        await world.rounds(1)

    assert run(story).source.taken == [{A, B}]


def test_a_round_runs_when_a_failed_attempt_is_due() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        due_at = asyncio.get_running_loop().time() + 0.5
        world.reconciler.dues = [due_at]
        world.loop.wake()
        await world.rounds(3)
        woken, due = [done.begun for done in world.observer.done[1:]]
        assert woken < due_at <= due or due_at <= woken  # the latter on a busy machine

    run(story)


def test_events_at_the_same_time_cause_one_round() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        for changed in (A, B, A):
            world.source.changed.add(changed)
            world.loop.wake()
        await world.rounds(2)

    assert run(story).reconciler.rounds[1] == ({A, B}, frozenset())


def test_a_suspected_table_is_compared() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        world.loop.suspect(frozenset({Family.IPV6}))
        await world.rounds(2)

    assert run(story).reconciler.rounds[1] == (set(), frozenset({Family.IPV6}))


def test_edits_are_passed_to_the_next_successful_round_once() -> None:
    edit = Edit(Family.IPV6, {SetName.SERVICES: {b"key"}})

    async def story(world: World) -> None:
        world.source.error = HostError("not now")
        world.loop.suspect(frozenset(), [edit])
        await asyncio.sleep(0.02)
        world.source.error = None
        world.loop.wake()
        await world.rounds(1)
        world.loop.wake()
        await world.rounds(2)

    assert run(story).reconciler.edits == [edit]


def test_changed_tables_are_compared_every_sync_period() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        async with asyncio.timeout(60):
            while len(world.reconciler.rounds) < 3:
                await asyncio.sleep(0.01)

    assert {suspect for _, suspect in run(story, check=0.05).reconciler.rounds} == {frozenset(Family)}


def test_unchanged_tables_are_not_compared() -> None:
    async def story(world: World) -> None:
        world.reconciler.changed = frozenset({Family.IPV6})
        world.loop.wake()
        async with asyncio.timeout(60):
            while len(world.reconciler.rounds) < 3:
                await asyncio.sleep(0.01)

    suspects = [suspect for _, suspect in run(story, check=0.05).reconciler.rounds[1:]]
    assert set(suspects) == {frozenset({Family.IPV6})}


def test_rounds_have_a_minimum_interval() -> None:
    async def story(world: World) -> None:
        for number in (1, 2, 3):
            world.loop.wake()
            await world.rounds(number)
        begun = [done.begun for done in world.observer.done]
        assert min(later - earlier for earlier, later in pairwise(begun)) >= 0.25

    run(story, pause=0.25)


def test_a_round_begins_before_changes_are_taken() -> None:
    async def story(world: World) -> None:
        taken, take = list[float](), world.source.take

        async def slowly() -> Collection[NamespacedName]:
            taken.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.02)
            return await take()

        world.source.take = slowly  # type: ignore[method-assign]
        woken = asyncio.get_running_loop().time()
        world.loop.wake()
        await world.rounds(1)
        assert woken <= world.observer.done[0].begun <= taken[0]

    run(story)


@pytest.mark.parametrize("where", ["source", "reconciler"])
def test_after_a_failed_round_the_next_one_concerns_everything(where: str) -> None:
    async def story(world: World) -> None:
        place = world.source if where == "source" else world.reconciler
        place.error = StateError("full")
        begun = asyncio.get_running_loop().time()
        world.loop.wake()
        async with asyncio.timeout(60):
            while not world.observer.errors:
                await asyncio.sleep(0.005)
        assert [str(error) for error in world.observer.errors] == ["full"]
        place.error = None
        await world.rounds(1)
        assert asyncio.get_running_loop().time() - begun >= FIRST
        assert world.reconciler.lost == 1

    assert run(story).reconciler.rounds == [(set(), frozenset(Family))]


def test_the_loop_does_not_poll_a_source_that_is_not_synced() -> None:
    async def story(world: World) -> None:
        world.source.synced, waits = False, 0
        wait = world.loop._wait

        async def count(check: float) -> None:
            nonlocal waits
            waits += 1
            await wait(check)

        world.loop._wait = count  # type: ignore[method-assign]
        world.loop.wake()
        await asyncio.sleep(0.1)
        assert waits <= 2
        world.source.synced = True
        world.loop.wake()
        async with asyncio.timeout(60):
            while not world.reconciler.rounds:
                await asyncio.sleep(0.005)

    run(story, check=0.01)


def test_a_failed_query_of_the_kernel_is_repeated() -> None:
    """The query of each sync period: whether another program changed a table."""

    async def story(world: World) -> None:
        failures: list[KproxyError] = [HostError("Cannot use nftables in the kernel.")]
        possibly_changed = world.reconciler.possibly_changed

        def refuse() -> frozenset[Family]:
            if failures:
                raise failures.pop()
            return possibly_changed()

        world.reconciler.possibly_changed = refuse  # type: ignore[method-assign]
        world.loop.wake()
        async with asyncio.timeout(60):
            while len(world.reconciler.rounds) < 2:
                await asyncio.sleep(0.01)
        assert len(world.observer.errors) == 1

    run(story, check=0.05)


def test_a_change_causes_an_attempt_before_the_backoff_ends() -> None:
    """The backoff of the third failure is two seconds."""

    async def story(world: World) -> None:
        due, failed = list[float](), world.loop._backoff.failed

        def note(now: float) -> None:
            failed(now)
            due.append(world.loop._backoff.due)

        world.loop._backoff.failed = note  # type: ignore[method-assign]
        world.source.error = StateError("full")
        world.loop.wake()
        async with asyncio.timeout(60):
            while len(world.observer.errors) < 3:
                await asyncio.sleep(0.01)
        world.source.error = None
        world.loop.wake()
        await world.rounds(1)
        assert asyncio.get_running_loop().time() < due[-1]

    run(story)


@pytest.mark.parametrize(("number", "attempts"), [(errno.EMFILE, 3), (errno.ENOMEM, 3), (errno.EIO, 1)])
def test_a_job_begins_again_after_a_shortage(
    number: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SHORTAGE_SECONDS", 0)
    begun: list[int] = []

    async def job() -> None:
        begun.append(number)
        if len(begun) < 3:
            raise OSError(number, os.strerror(number))

    with nullcontext() if attempts == 3 else pytest.raises(OSError, match="Input/output"):
        asyncio.run(running.enduring(job))
    assert len(begun) == attempts


def test_a_shortage_is_a_failed_round() -> None:
    async def story(world: World) -> None:
        world.source.error = OSError(errno.ENFILE, "Too many open files in system")
        world.loop.wake()
        async with asyncio.timeout(60):
            while not world.observer.errors:
                await asyncio.sleep(0.01)
        world.source.error = None
        world.loop.wake()
        await world.rounds(1)

    world = run(story)
    assert str(world.observer.errors[0]) == "This host lacks files or memory: Too many open files in system."
    assert world.reconciler.lost

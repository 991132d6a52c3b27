"""When the daemon's loop looks, at what, and what it does when it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise

import pytest

from kproxy.daemon.loop import Loop, Periods
from kproxy.model import EndpointSlice, Family, NamespacedName, Node, Service
from kproxy.problems import HostError, KproxyError, Problem, StateError
from kproxy.reconcile.core.backoff import FIRST
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Edit, Reconciler
from kproxy.sources.core.inventory import Inventory
from kproxy.table.names import SetName
from kproxy.table.skeleton import Options
from tests.unit.make import name

A, B = name("a"), name("b")


class Source:
    """Services by their ClusterIP's last number; None would be one that went."""

    revision = 0

    def __init__(self) -> None:
        self.synced = True
        self.touched: set[NamespacedName] = {A, B}
        self.error: KproxyError | None = None
        self.here = Node("n1")
        self.taken: list[set[NamespacedName]] = []

    async def run(self, wake: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def take(self) -> Collection[NamespacedName]:
        if self.error is not None:
            self.touched.clear()
            raise self.error
        touched, self.touched = self.touched, set()
        self.taken.append(touched)
        return touched

    def names(self) -> Iterable[NamespacedName]:
        return [A, B]

    def service(self, name: NamespacedName) -> Service | None:
        return None

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        return ()

    def node(self) -> Node:
        return self.here

    def protected(self, name: NamespacedName) -> bool:
        return False

    def problems(self) -> list[Problem]:
        return []

    def warnings(self) -> list[Problem]:
        return []

    def why_protected(self, name: NamespacedName) -> str:
        return ""

    def inventory(self) -> Inventory:
        return Inventory({}, {})

    def host_changed(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    def take_triggers(self) -> Collection[str]:
        return ()


class Recorder(Reconciler):
    """A reconciler that only writes down what it is asked to do."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, {}, lambda _: Options())
        self.rounds: list[tuple[set[NamespacedName], frozenset[Family]]] = []
        self.touched = frozenset(Family)
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
        return self.touched


class Observer(RoundObserver):
    """Notes what it is told, and when."""

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
        """Wait until there have been so many, and a moment more."""
        async with asyncio.timeout(60):
            while len(self.reconciler.rounds) < number:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert len(self.reconciler.rounds) == number


def run(story: Callable[[World], object], **periods: float) -> World:
    world = World(**periods)

    async def live() -> None:
        task = asyncio.create_task(world.loop.run())
        told = story(world)
        assert asyncio.iscoroutine(told)
        await told
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    return world


def test_first_everything_is_compared_then_what_changed() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        world.source.touched = {A}
        world.loop.wake()
        await world.rounds(2)

    assert run(story).reconciler.rounds == [({A, B}, frozenset(Family)), ({A}, frozenset())]


def test_nothing_is_done_before_the_source_knows_everything() -> None:
    async def story(world: World) -> None:
        world.source.synced = False
        world.loop.wake()
        await asyncio.sleep(0.05)
        assert world.reconciler.rounds == []
        world.source.synced = True
        world.loop.wake()
        await world.rounds(1)

    assert run(story).source.taken == [{A, B}]


def test_what_failed_is_tried_again_when_it_is_due() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        due_at = asyncio.get_running_loop().time() + 0.5
        world.reconciler.dues = [due_at]
        world.loop.wake()
        await world.rounds(2)
        await world.rounds(3)
        assert asyncio.get_running_loop().time() > due_at

    run(story)


def test_events_that_come_together_are_one_round() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        for touched in (A, B, A):
            world.source.touched.add(touched)
            world.loop.wake()
        await world.rounds(2)

    assert run(story).reconciler.rounds[1] == ({A, B}, frozenset())


def test_a_table_that_was_touched_is_compared() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        await world.rounds(1)
        world.loop.suspect(frozenset({Family.IPV6}))
        await world.rounds(2)

    assert run(story).reconciler.rounds[1] == (set(), frozenset({Family.IPV6}))


def test_elements_that_were_touched_are_put_right() -> None:
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


def test_all_is_compared_from_time_to_time() -> None:
    async def story(world: World) -> None:
        world.loop.wake()
        async with asyncio.timeout(60):
            while len(world.reconciler.rounds) < 3:
                await asyncio.sleep(0.01)

    assert {suspect for _, suspect in run(story, check=0.05).reconciler.rounds} == {frozenset(Family)}


def test_what_nobody_touched_is_not_compared() -> None:
    async def story(world: World) -> None:
        world.reconciler.touched = frozenset({Family.IPV6})
        world.loop.wake()
        async with asyncio.timeout(60):
            while len(world.reconciler.rounds) < 3:
                await asyncio.sleep(0.01)

    suspects = [suspect for _, suspect in run(story, check=0.05).reconciler.rounds[1:]]
    assert set(suspects) == {frozenset({Family.IPV6})}


def test_rounds_keep_their_distance() -> None:
    async def story(world: World) -> None:
        for number in (1, 2, 3):
            world.loop.wake()
            await world.rounds(number)
        begun = [done.begun for done in world.observer.done]
        assert min(later - earlier for earlier, later in pairwise(begun)) >= 0.25

    run(story, pause=0.25)


def test_what_changes_while_changes_are_taken_in_is_later_than_the_rounds_begin() -> None:
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
def test_what_cannot_be_taken_is_taken_later_and_whole(where: str) -> None:
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


def test_a_source_that_is_away_for_long_is_waited_for() -> None:
    async def story(world: World) -> None:
        world.source.synced, asked = False, 0
        wait = world.loop._wait

        async def count(check: float) -> None:
            nonlocal asked
            asked += 1
            await wait(check)

        world.loop._wait = count  # type: ignore[method-assign]
        world.loop.wake()
        await asyncio.sleep(0.1)
        assert asked <= 2
        world.source.synced = True
        world.loop.wake()
        async with asyncio.timeout(60):
            while not world.reconciler.rounds:
                await asyncio.sleep(0.005)

    run(story, check=0.01)


def test_a_kernel_that_does_not_answer_is_asked_again() -> None:
    """Whether somebody else committed anything, every sync period."""

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


def test_what_happens_meanwhile_is_a_reason_to_try_again() -> None:
    """Before the time that the third failure set, which is two seconds later."""

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

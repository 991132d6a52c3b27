"""The prober: which pods it probes and when, with commands whose results the tests set."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from kproxy.limits import PROBE_COSTLY_SLOTS
from kproxy.model import Container, ExecAction, NamespacedName, Pod, Probe
from kproxy.probes import prober as prober_module
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult, identity
from kproxy.probes.exec import ExecRunner
from kproxy.probes.prober import Prober
from tests.unit.make import decoded, manifest, name

UP, DOWN = ProbeResult(ProbeOutcome.SUCCESS), ProbeResult(ProbeOutcome.FAILURE, "gone")
PROBE = Probe(ExecAction(("ls",)), period=0, timeout=10)
"""Due again immediately. The test decides when a probe ends."""


def pod(own: str = "web-1", *probes: Probe) -> Pod:
    """A pod with a container for each probe: c0, c1..."""
    made = decoded(str(manifest("Pod", own))).state.pods[0]
    containers = tuple(Container(f"c{index}", probe=probe) for index, probe in enumerate(probes or (PROBE,)))
    return replace(made, containers=containers)


class Runner:
    """A runner whose commands end when the test sets their result."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[ProbeResult]] = {}
        self.started: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()

    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> ProbeResult:
        key = f"{pod.name.name}/{container}"
        self.started[key] += 1
        self.waiting[key] = asyncio.get_running_loop().create_future()
        try:
            return await self.waiting[key]
        except asyncio.CancelledError:
            self.cancelled[key] += 1
            raise

    async def answer(self, *results: ProbeResult | Exception, to: str = "web-1/c0") -> None:
        """End the next probes of a container, and wait until the last result was processed."""
        for result in results:
            await until(lambda: to in self.waiting)
            before = self.started[to]
            future = self.waiting.pop(to)
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
            await until(lambda before=before: self.started[to] > before)  # type: ignore[misc]


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


class World:
    """A prober, its runner, and the number of calls of `changed`."""

    def __init__(self, earlier: dict[str, bool] | None = None) -> None:
        self.answers = Runner()
        self.changes = 0
        self.prober = Prober(self.answers, self._changed, earlier)

    def _changed(self) -> None:
        self.changes += 1

    def ready(self, own: str = "web-1") -> bool:
        return self.prober.statuses()[name(own)].ready


def play(test: Callable[[World], Awaitable[None]], earlier: dict[str, bool] | None = None) -> None:
    async def main() -> None:
        world = World(earlier)
        await test(world)
        await world.prober.close()
        assert len(asyncio.all_tasks()) == 1
        assert world.prober.statuses() == {}

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober_module, "FIRST_PROBES", 0)


def test_a_pod_becomes_ready_and_not_ready() -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod()])
        assert not world.ready()
        await world.answers.answer(DOWN, DOWN, DOWN, DOWN)
        assert (world.ready(), world.changes) == (False, 1)  # the first failure
        await world.answers.answer(UP)
        assert (world.ready(), world.changes) == (True, 2)
        await world.answers.answer(UP, DOWN, DOWN, UP, DOWN, DOWN)
        assert (world.ready(), world.changes) == (True, 2)
        await world.answers.answer(DOWN)
        assert (world.ready(), world.changes) == (False, 3)
        (container,) = world.prober.statuses()[name("web-1")].containers
        assert [(event.message, event.count) for event in container.events] == [
            ("Readiness probe failed: gone", 9)
        ]

    play(test)


def test_all_containers_have_to_be_ready() -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod("web-1", PROBE, PROBE)])
        await world.answers.answer(UP)
        assert (world.ready(), world.changes) == (False, 0)
        await world.answers.answer(UP, to="web-1/c1")
        assert (world.ready(), world.changes) == (True, 1)
        await world.answers.answer(DOWN, DOWN, DOWN)
        assert (world.ready(), world.changes) == (False, 2)

    play(test)


def test_watching_the_same_pods_again_changes_nothing() -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod()])
        await world.answers.answer(UP)
        before, started = world.prober.statuses(), world.answers.started.total()
        for _ in range(3):
            world.prober.watch([pod()])
            world.prober.watch([replace(pod(), labels={"new": "label"}, ready=False)])
            await asyncio.sleep(0)
        assert (world.prober.statuses(), world.answers.started.total()) == (before, started)
        assert world.answers.cancelled.total() == 0
        await world.answers.answer(DOWN, DOWN, DOWN)
        assert not world.ready()

    play(test)


@pytest.mark.parametrize(
    "other",
    [
        pod("web-1", Probe(ExecAction(("ls", "-l")), period=0)),
        replace(pod(), addresses=(b"\x0a\0\0\1",)),
        replace(pod(), uid="2"),
    ],
)
def test_another_pod_of_this_name_starts_as_not_ready(other: Pod) -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod()])
        await world.answers.answer(UP)
        world.prober.watch([other])
        assert not world.ready()
        await until(lambda: world.answers.cancelled["web-1/c0"] == 1)
        await until(lambda: world.answers.started["web-1/c0"] == 3)
        await world.answers.answer(UP)
        assert world.ready()

    play(test)


def test_removed_pods_are_no_longer_probed() -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod(), pod("web-2")])
        await world.answers.answer(UP)
        await world.answers.answer(UP, to="web-2/c0")
        world.prober.watch([pod("web-2"), replace(pod("unprobed"), containers=(Container("c0"),))])
        assert set(world.prober.statuses()) == {name("web-2")}
        await until(lambda: world.answers.cancelled == Counter({"web-1/c0": 1}))
        world.prober.watch([pod(), pod("web-2")])
        assert (world.ready(), world.ready("web-2")) == (False, True)

    play(test)


def test_protected_pods_are_still_probed() -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod(), pod("web-2")])
        await world.answers.answer(UP)
        world.prober.watch([], lambda own: own == name("web-1"))
        assert set(world.prober.statuses()) == {name("web-1")}
        await world.answers.answer(UP)
        world.prober.watch([pod()])
        assert world.ready()

    play(test)


def test_an_open_readiness_gate_makes_a_pod_ready_immediately() -> None:
    async def test(world: World) -> None:
        world.prober.watch([replace(pod(), gates_open=False)])
        await world.answers.answer(UP)
        assert not world.ready()
        world.prober.watch([pod()])
        assert (world.ready(), world.changes) == (True, 0)

    play(test)


def test_readiness_of_an_earlier_run_counts_until_probes_change_it() -> None:
    async def first(world: World) -> None:
        world.prober.watch([pod(), pod("web-2")])
        await world.answers.answer(UP)
        results.update(world.prober.results())

    async def second(world: World) -> None:
        world.prober.watch([pod(), pod("web-2"), replace(pod("web-3"), uid="3")])
        assert [world.ready(f"web-{n}") for n in (1, 2, 3)] == [True, False, False]
        await world.answers.answer(DOWN, DOWN)
        assert (world.ready(), world.changes) == (True, 0)
        await world.answers.answer(DOWN)
        assert (world.ready(), world.changes) == (False, 1)
        world.prober.watch([])
        world.prober.watch([pod()])
        assert not world.ready()

    results: dict[tuple[NamespacedName, str], bool] = {}
    play(first)
    assert results == {(name(own), identity(pod(own))): own == "web-1" for own in ("web-1", "web-2")}
    play(second, {own: ready for (_, own), ready in results.items()} | {identity(pod("web-3")): True})


def test_the_initial_delay_does_not_apply_after_a_restart() -> None:
    late = pod("web-1", Probe(ExecAction(("ls",)), initial_delay=3600, period=0))

    async def test(world: World) -> None:
        world.prober.watch([late, pod("web-2")])
        await world.answers.answer(UP, UP, to="web-2/c0")
        assert world.answers.started["web-1/c0"] == 0

    async def after(world: World) -> None:
        world.prober.watch([late])
        await world.answers.answer(UP)

    play(test)
    play(after, {identity(late): False})


@pytest.mark.parametrize(("earlier", "earliest", "latest"), [(None, 30, 31), (False, 0, 1), (True, 0, 20)])
def test_delay_of_the_first_probe(
    monkeypatch: pytest.MonkeyPatch, earlier: bool | None, earliest: float, latest: float
) -> None:
    monkeypatch.setattr(prober_module, "FIRST_PROBES", 1)
    probe = Probe(ExecAction(("ls",)), initial_delay=30, period=20)
    delays = [prober_module._first_delay(probe, earlier) for _ in range(1000)]
    assert earliest <= min(delays) < max(delays) < latest
    assert max(delays) - min(delays) > (latest - earliest) * 0.9


def test_an_unexpected_error_is_a_failure_and_probing_continues() -> None:
    async def test(world: World) -> None:
        world.prober.watch([pod()])
        await world.answers.answer(RuntimeError("no"), UP)
        assert world.ready()
        (container,) = world.prober.statuses()[name("web-1")].containers
        assert [event.message for event in container.events] == [
            "Readiness probe failed: ls: RuntimeError: no"
        ]

    play(test)


def test_simultaneous_probes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober_module, "PROBE_COMMANDS", 3)

    async def test(world: World) -> None:
        world.prober.watch([pod(f"web-{n}") for n in range(10)])
        await until(lambda: len(world.answers.waiting) == 3)
        await asyncio.sleep(0.05)
        assert world.answers.started.total() == 3
        for own in list(world.answers.waiting):
            world.answers.waiting.pop(own).set_result(UP)
        await until(lambda: world.answers.started.total() == 6)

    play(test)


def test_probes_that_time_out_do_not_delay_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober_module, "PROBE_COMMANDS", 2)
    hanging = Probe(ExecAction(("sleep",)), period=0, timeout=1)

    async def test(world: World) -> None:
        hung = [pod(f"hung-{n}", hanging) for n in range(4)]
        world.prober.watch(hung)
        await until(lambda: world.answers.cancelled.total() >= 4)
        # All have timed out once. From now on they share two slots of their own.
        world.prober.watch([*hung, pod()])
        before = world.answers.cancelled.total()
        await world.answers.answer(*[UP] * 20)
        assert world.answers.cancelled.total() - before < 10
        assert world.ready()
        assert not world.ready("hung-0")

    play(test)


def test_costly_probes_are_repeated_with_pauses_and_do_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pause of a costly probe is longer than this test."""

    async def test(world: World) -> None:
        network = world.prober._network
        costly, cheap = network.allowance(), network.allowance()
        costly.cpu = 10.0
        monkeypatch.setattr(network, "allowance", lambda: costly)
        costs = [pod(f"costs-{n}") for n in range(PROBE_COSTLY_SLOTS + 4)]
        world.prober.watch(costs)
        await until(lambda: len(world.answers.waiting) == len(costs))
        for own in list(world.answers.waiting):
            world.answers.waiting.pop(own).set_result(UP)
        await until(lambda: len(world.answers.waiting) == PROBE_COSTLY_SLOTS)
        for own in list(world.answers.waiting):
            world.answers.waiting.pop(own).set_result(UP)
        monkeypatch.setattr(network, "allowance", lambda: cheap)
        world.prober.watch([*costs, pod()])
        await world.answers.answer(*[UP] * 20)
        assert set(world.answers.waiting) == {"web-1/c0"}

    play(test)


def test_closing_kills_running_commands(tmp_path: Path) -> None:
    async def main() -> None:
        pid = tmp_path / "pid"
        prober = Prober(ExecRunner(CommandTemplate("env")), lambda: None)
        prober.watch(
            [pod("web-1", Probe(ExecAction(("sh", "-c", f"echo $$ > {pid}; sleep 60")), timeout=60))]
        )
        await until(lambda: pid.exists() and pid.read_text() != "")
        await prober.close()
        await until(lambda: not Path(f"/proc/{int(pid.read_text())}").exists())

    asyncio.run(main())

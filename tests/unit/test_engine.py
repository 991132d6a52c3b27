"""The follower of a container engine: an unexpected error is a problem, and does not end the program."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kproxy.model import format_address
from kproxy.sources.engines import client
from kproxy.sources.engines import engine as engine_module
from kproxy.sources.engines.core.pods import Choice, PodManifests
from kproxy.sources.engines.engine import Engine
from tests.engine import Engine as Double


def test_an_unexpected_error_keeps_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    with Double() as double:
        double.put("web", "10.0.0.1", app="web")
        engine = Engine(Choice("docker", "n1"), str(double.socket))
        asyncio.run(engine.read())
        assert [pod.name.name for pod in engine.decoded.state.pods] == ["web"]

        def failing(*_: object) -> list[bytes]:
            raise ValueError("an unexpected value")

        monkeypatch.setattr(PodManifests, "of", failing)
        asyncio.run(engine.read())
    assert [problem.message for problem in engine.decoded.problems] == [
        f"{double.socket}: an unexpected value"
    ]
    assert [pod.name.name for pod in engine.decoded.state.pods] == ["web"]
    assert engine.decoded.unreadable.everything


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"Config": None}, "Expected `object`, got `null` - at `$.Config`"),
        ({"Config": {"Labels": {"a": 1}}}, "Expected `str`, got `int` - at `$.Config.Labels[...]`"),
        ({"Name": "\ud800"}, "JSON is malformed"),
        ({"Config": {"Labels": {"a": "x" * 100_000}}}, "the answer is longer than 50000 bytes"),
    ],
)
def test_a_container_that_cannot_be_inspected_keeps_the_others(
    answer: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ENGINE_BYTES", 50_000)
    with Double() as double:
        for name, address in (("known", "10.0.0.1"), ("web", "10.0.0.2")):
            double.put(name, address)
        engine = Engine(Choice("docker", "n1"), str(double.socket))
        asyncio.run(engine.read())
        double.put("later", "10.0.0.3")
        double.put("odd", "10.0.0.4")
        for name in ("known", "odd"):
            double.containers[f"id-{name}"] |= answer
        asyncio.run(engine.read())
        found = engine.decoded
        assert sorted(pod.name.name for pod in found.state.pods) == ["known", "later", "web"]
        assert [problem.object for problem in found.problems] == ["container id-known", "container id-odd"]
        assert all(message in problem.message for problem in found.problems)
        assert found.unreadable.everything
        for name in ("known", "odd"):
            double.put(name, "10.0.0.5")
        asyncio.run(engine.read())
        assert len(engine.decoded.state.pods) == 4
        assert not engine.decoded.problems


def test_a_container_that_is_no_valid_pod_is_left_out_and_protects_nothing() -> None:
    with Double() as double:
        double.put("web", "10.0.0.1", **{"kproxy.io/namespace": "Shop!"})
        double.put("db", "10.0.0.2", **{"kproxy.io/readiness-probe": "{"})
        double.put("log", "10.0.0.3")
        engine = Engine(Choice("docker", "n1"), str(double.socket))
        asyncio.run(engine.read())
    assert [pod.name.name for pod in engine.decoded.state.pods] == ["log"]
    assert len(engine.decoded.problems) == 2
    assert not engine.decoded.unreadable


def test_a_pod_that_is_no_longer_valid_stays_as_it_was() -> None:
    with Double() as double:
        double.put("web", "10.0.0.1")
        engine = Engine(Choice("docker", "n1"), str(double.socket))
        asyncio.run(engine.read())
        for broken in (True, False):
            labels = {"kproxy.io/readiness-probe": "{"} if broken else {"app": "web"}
            double.put("web", "10.0.0.2", **labels)
            asyncio.run(engine.read())
            (pod,) = engine.decoded.state.pods
            assert format_address(pod.addresses[0]) == ("10.0.0.1" if broken else "10.0.0.2")
            assert bool(engine.decoded.problems) is broken
        double.put("web", "10.0.0.2", status="exited")
        asyncio.run(engine.read())
    assert not engine.decoded.state.pods


def test_a_list_that_fails_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list that is asked for at times, because an engine may tell nothing of a change."""
    monkeypatch.setattr(engine_module, "LIST_SECONDS", 0.01)

    async def follow() -> None:
        changed = asyncio.Event()
        engine = Engine(Choice("docker", "n1"), str(double.socket))
        following = asyncio.create_task(engine.follow(changed.set))
        async with asyncio.timeout(30):
            await changed.wait()
            double.body = b"no list"
            await double.asked()
            changed.clear()
            double.put("web", "10.0.0.1")
            double.body = None
            await changed.wait()
        following.cancel()
        assert [pod.name.name for pod in engine.decoded.state.pods] == ["web"]

    with Double() as double:
        asyncio.run(follow())

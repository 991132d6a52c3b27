"""The follower of a container engine: an unexpected error is a problem, and does not end the program."""

from __future__ import annotations

import asyncio

import pytest

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

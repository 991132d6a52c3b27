"""A running kproxy looks for refused connections: what becomes an event, and what the log says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import count

import pytest

from kproxy.daemon import refusals
from kproxy.daemon.refusals import RefusalWatch
from kproxy.limits import PROBLEMS_LOGGED
from kproxy.model import NamespacedName, ServicePortName
from kproxy.observe.core.events import EventLog
from kproxy.observe.core.refused import Refusal
from kproxy.observe.refused import RefusedCounters
from kproxy.table.simulator import Reason
from tests.unit.make import name

WEB = name("web")
News = dict[Refusal, int]


def refused(own: NamespacedName, count: int) -> News:
    return {Refusal(ServicePortName(own, ""), Reason.NO_ENDPOINTS): count}


class Counters(RefusedCounters):
    """Counters that a test sets. After the last reading, `ended` is set."""

    def __init__(self, *readings: News | OSError) -> None:
        super().__init__({})
        self.loop = asyncio.get_running_loop()
        self.readings: Iterator[News | OSError] = iter(readings)
        self.ended = asyncio.Event()

    def read_news(self) -> News:
        reading = next(self.readings, None)
        if isinstance(reading, OSError):
            raise reading
        if reading is None:
            self.loop.call_soon_threadsafe(self.ended.set)
        return reading or {}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "INTERVAL", 0.0)


def watched(caplog: pytest.LogCaptureFixture, *readings: News | OSError) -> EventLog:
    """Watch until all readings were taken. Returns the events. The clock is set forward again and again."""
    log, time_of_day = EventLog(), count(10.0, 1e6)

    async def run() -> None:
        counters = Counters(*readings)
        watching = asyncio.create_task(RefusalWatch(counters, log, lambda: next(time_of_day)).run())
        async with asyncio.timeout(30):
            await counters.ended.wait()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    return log


def test_what_was_refused_before_is_no_event(caplog: pytest.LogCaptureFixture) -> None:
    assert watched(caplog, refused(WEB, 1000)).events(10.0) == {}
    assert caplog.messages == []


def test_refusals_are_told(caplog: pytest.LogCaptureFixture) -> None:
    events = watched(caplog, {}, refused(WEB, 41)).events(10.0)
    assert [event.message for event in events[WEB]] == ["refused 41 connections in 1 s: no endpoint is ready"]
    assert caplog.messages == ["default/web refused 41 connections in 1 s: no endpoint is ready"]


def test_the_lines_of_the_log_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    many = {key: n for i in range(PROBLEMS_LOGGED + 7) for key, n in refused(name(f"s{i}"), 1).items()}
    assert len(watched(caplog, {}, many).events(10.0)) == PROBLEMS_LOGGED + 7
    assert len(caplog.messages) == PROBLEMS_LOGGED + 1
    assert caplog.messages[-1] == "and 7 more Services refused connections"


def test_a_failed_reading_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    failed = OSError(105, "No buffer space available")
    events = watched(caplog, {}, failed, failed, refused(WEB, 2)).events(10.0)
    assert list(events) == [WEB]
    assert len([message for message in caplog.messages if "No buffer space" in message]) == 1

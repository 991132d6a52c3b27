"""Those who look on at rounds: nothing that somebody else wrote ends them, and nothing is said twice."""

from __future__ import annotations

import logging
import time

import pytest

from kproxy.daemon.loop import Progress
from kproxy.model import Family
from kproxy.observe.core.health import PENDING_SECONDS
from kproxy.observe.log import Reporter
from kproxy.observe.servers import Servers
from kproxy.problems import StateError
from kproxy.reconcile.core.report import Report
from kproxy.reconcile.round import Round
from kproxy.settings.derived import ListenAddresses
from tests.unit.test_loop import Recorder, Source


@pytest.mark.parametrize(
    "trigger", ["2026-11-22T10:00:01.123456789Z", "yesterday", "0001-01-01T00:00:00", ""]
)
def test_a_trigger_is_whatever_somebody_wrote(trigger: str) -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(), dict)
    servers.progress(Progress(Round((), {}, False), 0.1, (), (trigger,)))


def test_what_came_while_changes_were_taken_in_still_waits() -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(), dict, pause=30)
    begun = time.monotonic()
    servers.woken()
    servers.progress(Progress(Round((), {}, False), 0.0, (), begun=begun))
    assert servers.health.reasons(begun + PENDING_SECONDS + 29) == []
    assert len(servers.health.reasons(begun + PENDING_SECONDS + 31)) == len(Family)
    servers.progress(Progress(Round((), {}, False), 0.0, (), begun=time.monotonic()))
    assert servers.health.reasons(begun + 1000) == []


def test_what_failed_was_not_programmed() -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(), dict)
    failures = {Family.IPV6: "no buffer space"}
    servers.progress(Progress(Round((), failures, False), 0.1, (), ("2026-11-22T10:00:01Z",)))
    text = servers.metrics.text().decode()
    name = "kubeproxy_network_programming_duration_seconds_count"
    assert f'{name}{{ip_family="IPv4"}} 1.0' in text
    assert f'{name}{{ip_family="IPv6"}}' not in text


def warn(reporter: Reporter, *warnings: str, checked: bool = True) -> None:
    report = Report(Family.IPV6, (), 0, 0, (), warnings=warnings)
    reporter.progress(Progress(Round((report,), {}, checked), 0.1, ()))


def test_a_warning_that_stays_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    with caplog.at_level(logging.ERROR):
        warn(reporter, "no IPv6")
        warn(reporter, checked=False)
        warn(reporter, "no IPv6", "flows", checked=False)
        warn(reporter, "flows", checked=False)
        warn(reporter, "no IPv6")
        warn(reporter)
        warn(reporter, "no IPv6")
    assert caplog.messages == ["no IPv6", "flows", "no IPv6"]
    assert [failure.message for failure in reporter.last_errors] == caplog.messages


def test_what_cannot_be_taken_in_is_said_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    caplog.set_level(logging.INFO)
    for _ in range(3):
        reporter.failed(StateError("The disk is full.", "Make room."))
    reporter.progress(Progress(Round((), {}, False), 0.1, ()))
    reporter.failed(StateError("The disk is full.", "Make room."))
    full = "The disk is full. Make room."
    assert caplog.messages == [full, "changes are taken in again", full]

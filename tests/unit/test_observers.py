"""The observers of rounds accept any input, and the log has no repetitions."""

from __future__ import annotations

import logging
import time

import pytest

from kproxy.model import AddressChange, Family, parse_address
from kproxy.observe.core.health import PENDING_SECONDS
from kproxy.observe.log import Reporter
from kproxy.observe.servers import Servers
from kproxy.problems import StateError
from kproxy.reconcile.core.report import Report, RoundReport
from kproxy.settings.derived import ListenAddresses
from tests.unit.test_loop import Recorder, Source


@pytest.mark.parametrize(
    "trigger", ["2026-11-22T10:00:01.123456789Z", "yesterday", "0001-01-01T00:00:00", ""]
)
def test_a_trigger_may_be_any_text(trigger: str) -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(Source()))
    servers.round_done(RoundReport((), triggers=(trigger,)))


def test_a_change_during_a_round_waits_for_the_next_one() -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(Source()), pause=30)
    begun = time.monotonic()
    servers.change_noticed()
    servers.round_done(RoundReport((), begun=begun))
    assert servers.health.reasons(begun + PENDING_SECONDS + 29) == []
    assert len(servers.health.reasons(begun + PENDING_SECONDS + 31)) == len(Family)
    servers.round_done(RoundReport((), begun=time.monotonic()))
    assert servers.health.reasons(begun + 1000) == []


def test_the_services_of_the_first_round_are_counted_after_it() -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(Source()))
    servers.round_started(2)  # this round fails
    servers.round_started(1)
    assert "metrics" not in vars(servers)
    servers.round_done(RoundReport(()))
    servers.round_started(1)
    changes = "kubeproxy_sync_proxy_rules_service_changes"
    assert f"{changes}_total 4.0" in servers.metrics.text().decode()
    assert f"{changes}_pending 1.0" in servers.metrics.text().decode()


def test_a_failed_family_has_no_programming_latency() -> None:
    servers = Servers(ListenAddresses(None, None), Source(), Recorder(Source()))
    failures = {Family.IPV6: "no buffer space"}
    servers.round_done(RoundReport((), failures, triggers=("2026-11-22T10:00:01Z",)))
    text = servers.metrics.text().decode()
    name = "kubeproxy_network_programming_duration_seconds_count"
    assert f'{name}{{ip_family="IPv4"}} 1.0' in text
    assert f'{name}{{ip_family="IPv6"}}' not in text


def warn(reporter: Reporter, *warnings: str, compared: bool = True) -> None:
    report = Report(Family.IPV6, (), 0, 0, (), warnings=warnings)
    reporter.round_done(RoundReport((report,), compared=compared))


def test_a_warning_that_persists_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    with caplog.at_level(logging.ERROR):
        warn(reporter, "no IPv6")
        warn(reporter, compared=False)
        warn(reporter, "no IPv6", "flows", compared=False)
        warn(reporter, "flows", compared=False)
        warn(reporter, "no IPv6")
        warn(reporter)
        warn(reporter, "no IPv6")
    assert caplog.messages == ["no IPv6", "flows", "no IPv6"]
    assert [failure.message for failure in reporter.last_errors] == caplog.messages


def test_the_error_of_a_round_is_logged_once_with_its_hint(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    caplog.set_level(logging.INFO)
    for _ in range(3):
        reporter.round_failed(StateError("The disk is full.", "Make room."))
    reporter.round_done(RoundReport(()))
    reporter.round_failed(StateError("The disk is full.", "Make room."))
    full = "The disk is full. Make room."
    assert caplog.messages == [full, "recovered: changes are applied again", full]


def test_addresses_are_logged_as_sync_prints_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reporter = Reporter()
    caplog.set_level(logging.INFO)
    moved = (AddressChange(parse_address("192.0.2.7"), "eth0", added=True),)
    reporter.round_done(RoundReport((), address_changes=moved, address_failures=("busy",)))
    reporter.round_done(RoundReport((), address_failures=("busy",)))
    reporter.round_done(RoundReport(()))
    reporter.round_done(RoundReport((), address_failures=("busy",)))
    assert caplog.messages == [
        "+ address 192.0.2.7 on eth0",
        "0 services, 0 frontends: eth0: 1 address added, 0 removed, in 0 ms",
        "busy",
        "busy",
    ]

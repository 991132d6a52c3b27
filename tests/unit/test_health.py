"""The responses of /healthz, /livez and health check node ports, for reports of the loop and passing time."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any

import pytest

from kproxy.model import Family, NamespacedName
from kproxy.observe.core.health import Health, HealthAnswer, service_answer

V4, V6 = Family.IPV4, Family.IPV6
LATE = "IPv4: a change is not programmed yet (for 60 s)"


def format_time(moment: float) -> str:
    return f"at {moment:g}"


def programmed(at: float = 0) -> Health:
    health = Health()
    for family in Family:
        health.applied(family, at)
    return health


def body(answer: HealthAnswer) -> dict[str, Any]:
    return dict(json.loads(answer.body))


Report = Callable[[Health], None]


queued = partial(methodcaller, "queued", V4)
applied = partial(methodcaller, "applied", V4)
failed = partial(methodcaller, "failed", V4)
FAILING = [failed("no buffer space", 10), failed("not permitted", 15)]
RECEIVED = methodcaller("received", "Service", 1)


@pytest.mark.parametrize(
    ("reports", "now", "reasons", "warnings"),
    [
        ([], 9999, [], []),
        ([queued(10)], 69, [], []),
        ([queued(10)], 70, [LATE], []),
        ([queued(10), queued(60)], 70, [LATE], []),
        ([queued(10), applied(11)], 9999, [], []),
        (FAILING, 19, [], ["IPv4: not permitted"]),
        (FAILING, 20, ["IPv4: not permitted (for 10 s)"], []),
        ([*FAILING, applied(16)], 9999, [], []),
        ([queued(10), methodcaller("applied", V6, 11)], 70, [LATE], []),
        ([queued(1), queued(12), applied(15, begun=10)], 69, [], []),
        ([queued(1), queued(12), applied(15, begun=10)], 70, [LATE], []),
        ([queued(1), queued(9), applied(15, begun=10)], 9999, [], []),
        ([RECEIVED], 120, [], []),
        ([RECEIVED], 121, [], ["Service: no data received for 120 s"]),
    ],
)
def test_health_depends_on_the_time_that_changes_and_failures_last(
    reports: list[Report], now: float, reasons: list[str], warnings: list[str]
) -> None:
    health = programmed()
    for report in reports:
        report(health)
    assert (health.reasons(now), health.warnings(now)) == (reasons, warnings)
    assert health.is_healthy(now) is not bool(reasons)
    for answer in (health.healthz(now, format_time), health.livez(now, format_time)):
        assert answer.status == (503 if reasons else 200)
        assert (body(answer)["reasons"], body(answer)["warnings"]) == (reasons, warnings)


@pytest.mark.parametrize(("limit", "now", "status"), [(600, 600, 200), (600, 601, 503), (0, 99999, 200)])
def test_healthz_fails_if_a_source_is_silent_for_too_long(limit: float, now: float, status: int) -> None:
    health = Health(max_silence=limit)
    for family in (V4, V6):
        health.applied(family, 0)
    RECEIVED(health)
    answer = health.healthz(now, format_time)
    assert answer.status == status
    assert bool(body(answer)["reasons"]) is (status == 503)
    assert bool(body(answer)["warnings"]) is (status == 200)
    assert health.livez(now, format_time).status == 200
    assert health.is_healthy(now)  # for health check node ports: the programmed services work
    health.received("Service", now)
    assert health.healthz(now, format_time).status == 200


def test_before_the_first_round_kproxy_is_alive_but_not_healthy() -> None:
    health = Health()
    health.queued(V6, 0)
    health.applied(V4, 5)
    assert health.reasons(500) == ["IPv6: not programmed yet"]
    assert not health.is_healthy(500)
    assert (health.healthz(500, format_time).status, health.livez(500, format_time).status) == (503, 200)
    health.applied(V6, 501)
    assert (health.healthz(502, format_time).status, health.livez(502, format_time).status) == (200, 200)


def test_only_served_families_must_be_programmed() -> None:
    health = Health([V4])
    health.applied(V4, 5)
    assert health.is_healthy(6)


def test_the_object_is_kube_proxys_with_reasons() -> None:
    health = programmed(3)
    health.queued(V6, 10)
    assert body(health.healthz(69, format_time)) == {
        "lastUpdated": "at 69",
        "currentTime": "at 69",
        "nodeEligible": True,
        "healthy": True,
        "status": {
            "IPv4": {"lastUpdated": "at 3", "healthy": True},
            "IPv6": {"lastUpdated": "at 3", "healthy": True},
        },
        "reasons": [],
        "warnings": [],
    }
    health.applied(V4, 50)
    late = body(health.livez(80, format_time))
    assert late == {
        "lastUpdated": "at 50",
        "currentTime": "at 80",
        "healthy": False,
        "status": {
            "IPv4": {"lastUpdated": "at 50", "healthy": True},
            "IPv6": {"lastUpdated": "at 3", "healthy": False},
        },
        "reasons": ["IPv6: a change is not programmed yet (for 70 s)"],
        "warnings": [],
    }


def test_before_the_first_round_last_updated_is_zero() -> None:
    assert body(Health().healthz(1, format_time))["lastUpdated"] == "0001-01-01T00:00:00Z"


def test_on_a_node_that_is_being_removed_healthz_fails_and_livez_succeeds() -> None:
    health = programmed()
    health.node_eligible = False
    answer = health.healthz(1, format_time)
    assert (answer.status, body(answer)["nodeEligible"], body(answer)["healthy"]) == (503, False, True)
    assert health.livez(1, format_time).status == 200
    assert "nodeEligible" not in body(health.livez(1, format_time))
    assert health.is_healthy(1)


@pytest.mark.parametrize(
    ("count", "healthy", "status"), [(2, True, 200), (1, True, 200), (0, True, 503), (2, False, 503)]
)
def test_a_health_check_node_port_counts_local_endpoints(count: int, healthy: bool, status: int) -> None:
    answer = service_answer(NamespacedName("shop", "web"), count, healthy)
    assert answer.status == status
    assert body(answer) == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }


def test_a_change_that_waits_on_purpose_is_not_late() -> None:
    health = Health(pause=90)
    for family in Family:
        health.applied(family, 0)
    health.queued(V4, 10)
    assert health.livez(159, format_time).status == 200
    assert health.livez(160, format_time).status == 503

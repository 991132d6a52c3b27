"""What /healthz, /livez and health check node ports say, as time passes and the loop reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kproxy.model import Family, NamespacedName
from kproxy.observe.core.health import Health, HealthAnswer, service_answer

V4, V6 = Family.IPV4, Family.IPV6
LATE = "IPv4: a change waits to be programmed, for 60 s"


def written(moment: float) -> str:
    return f"at {moment:g}"


def programmed(at: float = 0) -> Health:
    health = Health()
    for family in Family:
        health.applied(family, at)
    return health


def body(answer: HealthAnswer) -> dict[str, Any]:
    return dict(json.loads(answer.body))


Report = Callable[[Health], None]


def waiting(health: Health) -> None:
    health.queued(V4, 10)


def waiting_for_two(health: Health) -> None:
    health.queued(V4, 10)
    health.queued(V4, 60)


def done(health: Health) -> None:
    health.queued(V4, 10)
    health.applied(V4, 11)


def failing(health: Health) -> None:
    health.failed(V4, "no buffer space", 10)
    health.failed(V4, "not permitted", 15)


def healed(health: Health) -> None:
    failing(health)
    health.applied(V4, 16)


def queued_by_the_other(health: Health) -> None:
    health.queued(V4, 10)
    health.applied(V6, 11)


def queued_meanwhile(health: Health) -> None:
    health.queued(V4, 1)
    health.queued(V4, 12)
    health.applied(V4, 15, begun=10)


def queued_before(health: Health) -> None:
    health.queued(V4, 1)
    health.queued(V4, 9)
    health.applied(V4, 15, begun=10)


def silent(health: Health) -> None:
    health.last_seen("10.0.0.1:6443", 1)


@pytest.mark.parametrize(
    ("report", "now", "reasons", "warnings"),
    [
        (lambda health: None, 9999, [], []),
        (waiting, 69, [], []),
        (waiting, 70, [LATE], []),
        (waiting_for_two, 70, [LATE], []),
        (done, 9999, [], []),
        (failing, 19, [], ["IPv4: not permitted"]),
        (failing, 20, ["IPv4: not permitted, for 10 s"], []),
        (healed, 9999, [], []),
        (queued_by_the_other, 70, [LATE], []),
        (queued_meanwhile, 69, [], []),
        (queued_meanwhile, 70, [LATE], []),
        (queued_before, 9999, [], []),
        (silent, 120, [], []),
        (silent, 121, [], ["10.0.0.1:6443: silent for 120 s"]),
    ],
)
def test_what_is_not_programmed_for_too_long_is_unhealthy(
    report: Report, now: float, reasons: list[str], warnings: list[str]
) -> None:
    health = programmed()
    report(health)
    assert (health.reasons(now), health.warnings(now)) == (reasons, warnings)
    assert health.is_healthy(now) is not bool(reasons)
    for answer in (health.healthz(now, written), health.livez(now, written)):
        assert answer.status == (503 if reasons else 200)
        assert (body(answer)["reasons"], body(answer)["warnings"]) == (reasons, warnings)


@pytest.mark.parametrize(("limit", "now", "status"), [(600, 600, 200), (600, 601, 503), (0, 99999, 200)])
def test_who_has_heard_nothing_for_long_does_not_say_that_all_is_well(
    limit: float, now: float, status: int
) -> None:
    health = Health(max_silence=limit)
    for family in (V4, V6):
        health.applied(family, 0)
    silent(health)
    answer = health.healthz(now, written)
    assert answer.status == status
    assert bool(body(answer)["reasons"]) is (status == 503)
    assert bool(body(answer)["warnings"]) is (status == 200)
    assert health.livez(now, written).status == 200
    assert health.is_healthy(now)  # what health check node ports ask: what is programmed works
    health.last_seen("10.0.0.1:6443", now)
    assert health.healthz(now, written).status == 200


def test_nothing_is_healthy_before_it_is_programmed_and_yet_it_is_alive() -> None:
    health = Health()
    health.queued(V6, 0)
    health.applied(V4, 5)
    assert health.reasons(500) == ["IPv6: not programmed yet"]
    assert not health.is_healthy(500)
    assert (health.healthz(500, written).status, health.livez(500, written).status) == (503, 200)
    health.applied(V6, 501)
    assert (health.healthz(502, written).status, health.livez(502, written).status) == (200, 200)


def test_a_family_that_is_not_served_is_not_waited_for() -> None:
    health = Health([V4])
    health.applied(V4, 5)
    assert health.is_healthy(6)


def test_the_object_is_kube_proxys_and_says_why() -> None:
    health = programmed(3)
    health.queued(V6, 10)
    assert body(health.healthz(69, written)) == {
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
    late = body(health.livez(80, written))
    assert late == {
        "lastUpdated": "at 50",
        "currentTime": "at 80",
        "healthy": False,
        "status": {
            "IPv4": {"lastUpdated": "at 50", "healthy": True},
            "IPv6": {"lastUpdated": "at 3", "healthy": False},
        },
        "reasons": ["IPv6: a change waits to be programmed, for 70 s"],
        "warnings": [],
    }


def test_before_anything_was_programmed_it_was_never_updated() -> None:
    assert body(Health().healthz(1, written))["lastUpdated"] == "0001-01-01T00:00:00Z"


def test_a_node_that_goes_leaves_its_load_balancers_and_lives() -> None:
    health = programmed()
    health.node_eligible = False
    answer = health.healthz(1, written)
    assert (answer.status, body(answer)["nodeEligible"], body(answer)["healthy"]) == (503, False, True)
    assert health.livez(1, written).status == 200
    assert "nodeEligible" not in body(health.livez(1, written))
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
    assert health.livez(159, written).status == 200
    assert health.livez(160, written).status == 503

"""Rates, totals, rows and the pace of `kproxy top`, from readings that a test makes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kproxy.model import ServicePortName
from kproxy.table.simulator import Reason
from kproxy.traffic.core.pace import LIVE_SHARE, SHARE, Pace
from kproxy.traffic.core.tally import EndpointReading, Live, LiveReading, Row, Tally
from kproxy.traffic.core.views import connections_json, connections_text, services_json, services_text
from tests.unit.make import name

WEB, SHOP = name("web"), name("shop")
HTTP, METRICS, CART = ServicePortName(WEB, "http"), ServicePortName(WEB, "metrics"), ServicePortName(SHOP, "")
NONE = Reason.NO_ENDPOINTS


def example() -> Tally:
    """Return a tally after two readings, two seconds apart."""
    tally = Tally()
    tally.take(10.0, {HTTP: 100, METRICS: 5, CART: 0}, {(CART, NONE): 40})
    tally.take_endpoints(EndpointReading(10.0, WEB, {"10.0.0.1:80": 60, "10.0.0.2:80": 40}))
    refused = {(CART, NONE): 46, (ServicePortName(WEB, ""), Reason.CLUSTER_IP_PORT): 1}
    tally.take(12.0, {HTTP: 130, METRICS: 7, CART: 0}, refused)
    tally.take_endpoints(EndpointReading(12.0, WEB, {"10.0.0.1:80": 80, "10.0.0.3:80": 6}))
    tally.take_live(LiveReading({(WEB, "10.0.0.1:80"): Live(3, 0), (WEB, "10.0.0.2:80"): Live(2, 1)}))
    return tally


def test_rates_and_totals_of_services() -> None:
    tally = example()
    assert tally.names == [SHOP, WEB]
    assert tally.row(WEB) == Row("default/web", 16.0, 137, Live(5, 1), 0.5, 1)
    assert tally.row(SHOP) == Row("default/shop", 0.0, 0, Live(0, 0), 3.0, 46)
    assert tally.total() == Row("", 16.0, 137, Live(5, 1), 3.5, 47)
    assert tally.reasons(WEB) == {Reason.CLUSTER_IP_PORT: 1}


def test_endpoints_are_those_with_a_counter_and_those_with_a_connection() -> None:
    tally = example()
    assert tally.endpoints(WEB) == [
        Row("10.0.0.1:80", 10.0, 80, Live(3, 0)),
        Row("10.0.0.2:80", 0.0, 0, Live(2, 1)),
        Row("10.0.0.3:80", 3.0, 6, Live(0, 0)),
    ]
    assert tally.endpoints(SHOP) == []


def test_endpoints_that_are_not_counted() -> None:
    tally = example()
    tally.take_endpoints(EndpointReading(14.0, WEB, {"10.0.0.1:80": None, "[fd00::1]:80": 9}))
    assert tally.endpoints(WEB) == [
        Row("10.0.0.1:80", None, None, Live(3, 0)),
        Row("10.0.0.2:80", None, None, Live(2, 1)),
        Row("[fd00::1]:80", 4.5, 9, Live(0, 0)),
    ]
    text = connections_text(tally, WEB)
    assert "10.0.0.1:80    -       -     3      0\n" in text
    assert "\nNew connections are not counted by endpoint (--max-endpoint-counters).\n" in text
    found = connections_json(tally, WEB)["endpoints"][0]
    assert found == {"endpoint": "10.0.0.1:80", "newPerSecond": None, "new": None, "live": 3, "unanswered": 0}
    assert "--max-endpoint-counters" not in connections_text(example(), WEB)


def test_the_first_reading_has_no_rates() -> None:
    tally = Tally()
    tally.take(10.0, {HTTP: 100}, {(HTTP, NONE): 3})
    assert tally.total() == Row("", 0.0, 100, None, 0.0, 3)


def test_a_removed_service_is_forgotten() -> None:
    tally = example()
    tally.take(14.0, {CART: 0}, {(CART, NONE): 46})
    assert (tally.names, tally.total().new, tally.new_rates) == ([SHOP], 0, {})


@given(st.lists(st.dictionaries(st.sampled_from([HTTP, METRICS, CART]), st.integers(0, 5)), max_size=6))
def test_a_total_is_the_sum_of_its_ports(increases: list[dict[ServicePortName, int]]) -> None:
    tally, totals = Tally(), dict.fromkeys([HTTP, METRICS, CART], 0)
    for second, more in enumerate(increases):
        totals = {port: total + more.get(port, 0) for port, total in totals.items()}
        tally.take(float(second), totals, {})
        assert tally.row(WEB).new == totals[HTTP] + totals[METRICS]
        expected = more.get(HTTP, 0) + more.get(METRICS, 0) if second else 0
        assert tally.row(WEB).new_rate == expected


def test_tables() -> None:
    tally = example()
    assert services_text(tally, [WEB, SHOP]) == (
        "SERVICE        NEW/S   NEW   LIVE   UNANSWERED   REFUSED/S   REFUSED\n"
        "default/web    16.0    137   5      1            0.5         1\n"
        "default/shop   0       0     0      0            3.0         46\n"
    )
    assert connections_text(tally, WEB) == (
        "Service: default/web\n"
        "\n"
        "ENDPOINT      NEW/S   NEW   LIVE   UNANSWERED\n"
        "10.0.0.1:80   10.0    80    3      0\n"
        "10.0.0.2:80   0       0     2      1\n"
        "10.0.0.3:80   3.0     6     0      0\n"
        "all           16.0    137   5      1\n"
        "\n"
        "Refused: 1, 0.5/s\n"
        "  cluster-ip-port   1\n"
    )


def test_json() -> None:
    tally = example()
    numbers = {"newPerSecond": 16.0, "new": 137, "live": 5, "unanswered": 1}
    refused = {"refusedPerSecond": 0.5, "refused": 1}
    web = {"namespace": "default", "name": "web", **numbers, **refused}
    web["refusedByReason"] = {"cluster-ip-port": 1}
    found = services_json(tally, [WEB])
    assert found["services"] == [web]
    assert (found["seconds"], found["liveComplete"], found["totals"]["refused"]) == (2.0, True, 47)
    one = connections_json(tally, WEB)
    assert one["endpoints"][0] == {
        "endpoint": "10.0.0.1:80",
        "newPerSecond": 10.0,
        "new": 80,
        "live": 3,
        "unanswered": 0,
    }
    assert {key: one[key] for key in web} == web
    tally.take_live(None)
    assert services_json(tally, [WEB])["services"][0]["live"] is None


def test_the_pause_grows_with_the_cost_of_a_reading() -> None:
    pace, now, cpu = Pace(2.0), 100.0, 5.0
    for cost, every in ((0.5, 2.0), (0.03, 2.0), (0.03, 0.03 / SHARE), (0.001, 2.0)):
        cpu += cost
        pace.record(now, cpu, 0.0)
        assert round(pace.every, 6) == round(every, 6)
        now += pace.every
    pace.record(now, cpu + 0.3, 0.3)
    assert pace.every == 2.0
    assert pace.live_due == now + 0.3 / LIVE_SHARE


@given(st.floats(0, 0.3), st.floats(0, 0.3))
def test_less_than_one_percent_of_a_cpu(cost: float, live: float) -> None:
    pace, now, cpu = Pace(2.0), 0.0, 0.0
    times = []
    for _ in range(400):
        is_due = now >= pace.live_due
        cpu += cost + live * is_due
        pace.record(now, cpu, live * is_due)
        times.append((now, cpu))
        now += pace.every
    (begun, before), (ended, after) = times[2], times[-1]
    assert (after - before) / (ended - begun) < 0.01

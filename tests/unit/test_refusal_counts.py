"""Counting refused connections, and telling of them: never a wrong number, and not too often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kproxy.model import Family, NamespacedName, Protocol, ServicePortName, parse_address
from kproxy.nft.elements import Verdict
from kproxy.observe.core.refused import (
    MAX_PAUSE,
    QUIET_SECONDS,
    Counter,
    Episodes,
    Refusal,
    Refused,
    Verdicts,
    frontend_counters,
    port_counters,
    refusal_reason,
    source_counters,
)
from kproxy.table.layout import EndpointScope, SetName, frontend_key
from kproxy.table.simulator import Reason

WEB = ServicePortName(NamespacedName("default", "web"), "http")
NONE = Refusal(WEB, Reason.NO_ENDPOINTS)
KEY = (WEB, Reason.NO_ENDPOINTS)
TODAY = 1.8e9
"""Seconds of the Unix epoch."""


def port(text: str) -> Refusal:
    return Refusal(WEB._replace(port=""), Reason.CLUSTER_IP_PORT, text)


def test_which_verdicts_refuse() -> None:
    assert refusal_reason(Verdict("goto no-endpoints", "a/b")) is Reason.NO_ENDPOINTS
    assert refusal_reason(Verdict("goto discard", "a/b")) is Reason.NO_LOCAL_ENDPOINTS
    assert refusal_reason(Verdict("goto lb-3", "a/b")) is refusal_reason(b"") is None


def test_increases_are_added_and_told_once() -> None:
    refused = Refused()
    refused.take([Counter("a", NONE, 5), Counter("b", NONE, 1)])
    assert (refused.totals, refused.take_news()) == ({KEY: 6}, {NONE: 6})
    refused.take([Counter("a", NONE, 7), Counter("b", NONE, 1)])
    assert (refused.totals, refused.take_news(), refused.take_news()) == ({KEY: 8}, {NONE: 2}, {})


def test_a_rewritten_element_counts_from_zero() -> None:
    refused = Refused()
    refused.take([Counter("a", NONE, 5)])
    refused.take([Counter("a", NONE, 2)])  # another program rewrote it
    refused.forget(["a", "never read"])  # kproxy rewrote it
    refused.take([Counter("a", NONE, 9)])
    other = Refusal(WEB, Reason.NO_LOCAL_ENDPOINTS)
    refused.take([Counter("a", other, 20)])
    assert refused.totals == {KEY: 5 + 2 + 9, (WEB, Reason.NO_LOCAL_ENDPOINTS): 20}


def test_the_totals_of_removed_services_and_ports_are_forgotten() -> None:
    refused = Refused()
    shop = Refusal(ServicePortName(NamespacedName("default", "shop"), ""), Reason.NO_ENDPOINTS)
    renamed = Refusal(WEB._replace(port="before"), Reason.NO_ENDPOINTS)
    refused.take([Counter("a", NONE, 5), Counter("b", shop, 5), Counter("c", renamed, 5)])
    refused.retain({WEB}.__contains__)
    assert refused.totals == {KEY: 5}


def test_the_log_tells_at_once_and_then_less_and_less_often() -> None:
    episodes, lines = Episodes(0.0), dict[float, list[str]]()
    for now in range(10, 80, 10):
        episodes.take({NONE: 41}, now, TODAY)
        lines[now] = list(episodes.lines(now))
    because = "no endpoint is ready"
    assert {now: found for now, found in lines.items() if found} == {
        10: [f"default/web refused 41 connections in 10 s: {because}"],
        30: [f"default/web refused 82 connections in 20 s: {because}"],
        70: [f"default/web refused 164 connections in 40 s: {because}"],
    }


def test_an_event_has_all_refusals_until_a_minute_without_one() -> None:
    episodes = Episodes(0.0)
    (first,) = episodes.take({NONE: 1}, 10.0, TODAY)
    assert first.event.message == "refused 1 connection in 10 s: no endpoint is ready"
    (again,) = episodes.take({NONE: 4}, 25.0, TODAY)
    assert (again.key, again.event.message) == (
        first.key,
        "refused 5 connections in 25 s: no endpoint is ready",
    )
    assert (again.event.reason, again.event.is_warning, again.event.last) == ("Refused", True, TODAY)
    assert episodes.take({}, 35.0, TODAY) == []
    assert list(episodes.lines(25.0 + QUIET_SECONDS + 1)) == [
        "default/web refused 5 connections in 86 s: no endpoint is ready"
    ]
    (new,) = episodes.take({NONE: 2}, 100.0, TODAY)
    assert new.key != first.key
    assert new.event.message == "refused 2 connections in 65 s: no endpoint is ready"


def test_ports_that_a_service_does_not_have() -> None:
    episodes = Episodes(0.0)
    (event,) = episodes.take({port("443/tcp"): 2, port("81/tcp"): 1}, 10.0, TODAY)
    assert event.event.message == "refused 3 connections in 10 s: it has no port 81/tcp, 443/tcp"
    (event,) = episodes.take({port(f"{number}/udp"): 1 for number in range(1000)}, 20.0, TODAY)
    assert event.event.message == (
        "refused 1003 connections in 20 s: it has no port 0/udp, 81/tcp, 443/tcp and others"
    )


@given(st.lists(st.integers(0, 9), max_size=80))
def test_the_log_tells_of_each_refusal_once(counts: list[int]) -> None:
    episodes, told, now = Episodes(0.0), 0, 0.0
    for count in [*counts, 0]:
        now += 10 if count else QUIET_SECONDS + MAX_PAUSE
        episodes.take({NONE: count} if count else {}, now, TODAY)
        told += sum(int(line.split()[2]) for line in episodes.lines(now))
    assert told == sum(counts)


CLUSTER_IP = frontend_key(parse_address("10.96.0.1"), Protocol.TCP, 80)
BALANCER = frontend_key(parse_address("192.0.2.80"), Protocol.TCP, 80)
LONG = ServicePortName(NamespacedName("n" * 63, "s" * 63), "http")
VERDICTS: Verdicts = {
    SetName.SERVICES: {
        CLUSTER_IP: Verdict("goto no-endpoints", str(WEB)),
        BALANCER: Verdict("goto lb-1", str(WEB)),
    },
    SetName.CLUSTER_IPS: {parse_address("10.96.0.1"): b""},
}


def test_elements_that_refuse_are_counted_for_their_owner() -> None:
    counted = [(key, verdict, 7) for key, verdict in VERDICTS[SetName.SERVICES].items()]
    foreign = (BALANCER, Verdict("goto no-endpoints", "by another program"), 3)
    found = list(frontend_counters(Family.IPV4, EndpointScope.ALL, [*counted, foreign], {}))
    assert [(each.refusal, each.packets) for each in found] == [(NONE, 7)]
    (named,) = frontend_counters(Family.IPV4, EndpointScope.ALL, counted, {CLUSTER_IP: LONG})
    assert named.refusal == Refusal(LONG, Reason.NO_ENDPOINTS)


def test_refused_sources_are_counted_for_the_owner_of_the_frontend() -> None:
    gone = frontend_key(parse_address("192.0.2.99"), Protocol.TCP, 80)
    found = list(source_counters(Family.IPV4, {BALANCER: 4, gone: 5}, VERDICTS, {}))
    assert [(each.refusal, each.packets) for each in found] == [(Refusal(WEB, Reason.SOURCE_RANGES), 4)]


def test_refused_ports_are_counted_for_the_owner_of_the_address() -> None:
    def key(address: str) -> bytes:
        return frontend_key(parse_address(address), Protocol.UDP, 53)

    packets = {key("10.96.0.1"): 1, key("192.0.2.80"): 2, key("192.0.2.99"): 3, b"": 4}
    found = list(port_counters(Family.IPV4, packets, VERDICTS, {}))
    service = WEB._replace(port="")
    assert [(each.refusal, each.packets) for each in found] == [
        (Refusal(service, Reason.CLUSTER_IP_PORT, "53/udp"), 1),
        (Refusal(service, Reason.LOAD_BALANCER_PORT, "53/udp"), 2),
    ]

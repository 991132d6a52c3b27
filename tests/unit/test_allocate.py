"""ClusterIPs and node ports: who gets what, by example."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from kproxy.controlplane.allocate import allocate
from kproxy.controlplane.ledger import NOTHING, Allocations, Claim, Resource
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import Resolution
from kproxy.decode import Document, decode
from kproxy.model import Service, format_address
from tests.unit.make import name, resolved, service

RANGES = Ranges((ip_network("10.96.0.0/16"), ip_network("fd00:96::/112")), (30000, 32767))
V4_ONLY = Ranges(RANGES.service_cidrs[:1], RANGES.node_ports)
PORT = {"port": 80}


def holds(*claims: tuple[str, str, str | int]) -> Allocations:
    """(service, what, address or number)."""
    made = {}
    for own, what, value in claims:
        kind = what if what in ("ip", "ip6") else what.rpartition("/")[2]
        made[Claim(name(own), what)] = Resource(
            kind, int(ip_address(value)) if isinstance(value, str) else value
        )
    return Allocations(made, {})


def given(*objects: dict[str, Any], held: Allocations = NOTHING, ranges: Ranges = RANGES) -> Resolution:
    return resolved(objects, ranges, held)


def complaints(outcome: Resolution) -> list[tuple[str, str, str]]:
    return [(problem.object, problem.field, problem.message) for problem in outcome.problems]


def ips(outcome: Resolution, own: str = "web") -> list[str]:
    return [format_address(address) for address in outcome.services[name(own)].cluster_ips]


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        ({}, [4]),
        ({"ipFamilyPolicy": "SingleStack"}, [4]),
        ({"ipFamilyPolicy": "PreferDualStack"}, [4, 6]),
        ({"ipFamilyPolicy": "RequireDualStack"}, [4, 6]),
        ({"ipFamilies": ["IPv6"]}, [6]),
        ({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "PreferDualStack"}, [6, 4]),
        ({"ipFamilies": ["IPv6", "IPv4"]}, [6, 4]),
        ({"clusterIP": "fd00:96::5"}, [6]),
        ({"clusterIP": "fd00:96::5", "ipFamilyPolicy": "PreferDualStack"}, [6, 4]),
    ],
)
def test_families(spec: dict[str, Any], families: list[int]) -> None:
    outcome = given(service(**spec))
    assert outcome.problems == []
    assert [ip_address(ip).version for ip in ips(outcome)] == families


def test_two_cluster_ips_are_two_families() -> None:
    outcome = given(service(clusterIPs=["10.96.0.5", "fd00:96::5"], ipFamilies=["IPv4"]))
    assert (ips(outcome), outcome.problems) == (["10.96.0.5", "fd00:96::5"], [])


@pytest.mark.parametrize(
    ("spec", "ranges", "field", "message"),
    [
        ({"clusterIP": "10.97.0.1"}, RANGES, "spec.clusterIP", "10.97.0.1 is not in --service-cidr 10.96.0.0/16"),
        ({"clusterIP": "10.96.0.0"}, RANGES, "spec.clusterIP", "10.96.0.0 is not in --service-cidr 10.96.0.0/16"),
        ({"clusterIP": "10.96.255.255"}, RANGES, "spec.clusterIP", "10.96.255.255 is not in --service-cidr 10.96.0.0/16"),
        ({"clusterIPs": ["10.96.0.1", "fd00::1"]}, RANGES, "spec.clusterIPs[1]", "fd00::1 is not in --service-cidr fd00:96::/112"),
        ({"type": "NodePort", "ports": [{**PORT, "nodePort": 80}]}, RANGES, "spec.ports[0].nodePort", "80/tcp is not in --service-node-port-range 30000-32767"),
        ({"ipFamilies": ["IPv6"]}, V4_ONLY, "spec.ipFamilies", "there is no --service-cidr of family ip6"),
        ({"ipFamilyPolicy": "RequireDualStack"}, V4_ONLY, "spec.ipFamilyPolicy", "RequireDualStack needs --service-cidr of both families"),
    ],
)  # fmt: skip
def test_what_cannot_be_given(spec: dict[str, Any], ranges: Ranges, field: str, message: str) -> None:
    outcome = given(service("bad", **spec), service("good"), ranges=ranges)
    assert complaints(outcome) == [("Service default/bad", field, message)]
    assert list(outcome.services) == [name("good")]
    assert outcome.protected(name("bad"))
    assert not outcome.protected(name("good"))


def created(own: str, when: str, **spec: Any) -> dict[str, Any]:
    made = service(own, **spec)
    made["metadata"]["creationTimestamp"] = when
    return made


ASK: dict[str, Any] = {"clusterIP": "10.96.0.5"}
ASK_PORT: dict[str, Any] = {"type": "NodePort", "ports": [{**PORT, "nodePort": 30001}]}


@pytest.mark.parametrize(
    ("objects", "held", "winner"),
    [
        pytest.param([service("a", **ASK), service("b", **ASK)], NOTHING, "a", id="the first of the input"),
        pytest.param([created("a", "2026-01-02", **ASK), created("b", "2026-01-01", **ASK)], NOTHING, "b", id="the older"),
        pytest.param([service("a", **ASK), created("b", "2026-01-01", **ASK)], NOTHING, "b", id="one that has an age"),
        pytest.param([service("a", **ASK), service("b", **ASK)], holds(("b", "ip", "10.96.0.5")), "b", id="who holds it"),
        pytest.param([service("a", **ASK), service("b")], holds(("b", "ip", "10.96.0.5")), "b", id="who was given it"),
        pytest.param([service("a", **ASK_PORT), service("b", **ASK_PORT)], NOTHING, "a", id="a node port"),
    ],
)  # fmt: skip
def test_of_two_that_want_the_same_one_gets_it(
    objects: list[dict[str, Any]], held: Allocations, winner: str
) -> None:
    outcome = given(*objects, held=held)
    loser = {"a": "b", "b": "a"}[winner]
    ((subject, _, message),) = complaints(outcome)
    assert subject == f"Service default/{loser}"
    assert f"belongs to Service default/{winner}" in message
    assert list(outcome.services) == [name(winner)]


def test_the_holder_is_not_called_older_when_it_is_younger() -> None:
    held = holds(("b", "ip", "10.96.0.5"))
    (problem,) = given(created("a", "2020-01-01", **ASK), created("b", "2026-01-01"), held=held).problems
    assert "older" not in problem.message


def test_one_node_port_of_two_protocols_is_no_conflict() -> None:
    ports = [{"name": p.lower(), "port": 53, "protocol": p, "nodePort": 30053} for p in ("TCP", "UDP")]
    assert given(service(type="NodePort", ports=ports)).problems == []


def test_what_is_asked_for_wins_over_what_would_be_allocated() -> None:
    """The place that a's name leads to is asked for by b, which comes later."""
    (ip,) = ips(given(service("a")), "a")
    outcome = given(service("a"), service("b", clusterIP=ip))
    assert ips(outcome, "b") == [ip]
    assert ips(outcome, "a") != [ip]


def test_allocation_depends_on_names_only() -> None:
    alone, among = given(service("a")), given(service("b"), service("c"), service("a"))
    assert ips(alone, "a") == ips(among, "a")


def test_the_lower_end_is_left_to_explicit_requests() -> None:
    outcome = given(*(service(f"s{n}", type="NodePort") for n in range(200)))
    values = outcome.allocations.held.values()
    assert min(r.value for r in values if r.kind == "ip") > int(ip_address("10.96.1.0"))
    assert min(r.value for r in values if r.kind == "tcp") >= 30000 + 86


@pytest.mark.parametrize(("bits", "room"), [(32, 0), (31, 0), (30, 2), (29, 6), (28, 14), (24, 254)])
def test_a_range_is_used_up_to_its_end(bits: int, room: int) -> None:
    ranges = Ranges((ip_network(f"10.96.0.0/{bits}"),), RANGES.node_ports)
    outcome = given(*(service(f"s{n}") for n in range(room + 1)), ranges=ranges)
    assert len(outcome.services) == room
    (problem,) = outcome.problems
    assert problem.message == f"nothing is free in --service-cidr 10.96.0.0/{bits}"


@pytest.mark.parametrize(
    ("held", "change", "stays"),
    [
        pytest.param(("web", "ip", "10.96.200.1"), {}, True, id="held"),
        pytest.param(("web", "ip", "10.96.200.1"), {"clusterIP": "10.96.0.5"}, False, id="asks for another"),
        pytest.param(("web", "ip", "10.97.0.1"), {}, False, id="out of the range by now"),
        pytest.param(("web", "ip", "10.96.200.1"), {"clusterIP": "None"}, False, id="headless by now"),
        pytest.param(("web", "/tcp", 30500), {"type": "NodePort"}, True, id="a node port"),
        pytest.param(("web", "/tcp", 30500), {}, False, id="no node port wanted any more"),
        pytest.param(("web", "/tcp", 20000), {"type": "NodePort"}, False, id="a node port out of the range"),
        pytest.param(("gone", "ip", "10.96.200.1"), {}, False, id="of a service that went"),
    ],
)
def test_what_was_given_out(held: tuple[str, str, Any], change: dict[str, Any], stays: bool) -> None:
    before = holds(held)
    after = given(service(**change), held=before).allocations
    assert (before.held.items() <= after.held.items()) == stays


def test_a_service_in_doubt_keeps_what_it_holds() -> None:
    held = holds(("bad", "ip", "10.96.0.5"), ("gone", "ip", "10.96.0.6"))
    outcome = given(service("bad", ports=[]), service("a", **ASK), held=held)
    assert [problem.object for problem in outcome.problems] == ["Service default/bad", "Service default/a"]
    assert outcome.allocations.held == holds(("bad", "ip", "10.96.0.5")).held


def test_who_is_refused_keeps_what_it_holds() -> None:
    held = holds(("a", "ip", "10.96.0.5"))
    outcome = given(service("a", clusterIP="10.0.0.1"), service("b"), held=held)
    assert held.held.items() <= outcome.allocations.held.items()


def with_node_ports(*node_ports: int) -> Service:
    """A service as no input yields it, since decoding refuses one node port for two ports."""
    decoded = decode([Document("f", service(type="NodePort", ports=NAMED[: len(node_ports)]))])
    (made,) = decoded.state.services.values()
    ports = zip(made.ports, node_ports, strict=True)
    return replace(made, ports=tuple(replace(port, node_port=number) for port, number in ports))


NAMED = [{"name": letter, "port": 80 + number} for number, letter in enumerate("abc")]


@pytest.mark.parametrize(
    ("node_ports", "last", "field", "message"),
    [
        pytest.param((30001, 30001), 32767, "spec.ports[1].nodePort", "30001/tcp belongs to another port", id="asked for twice"),
        pytest.param((30001, 30001, 1), 32767, "spec.ports[1].nodePort", "30001/tcp belongs to another port", id="and then refused"),
        pytest.param((0, 30001), 30001, "spec.ports[0].nodePort", "nothing is free in --service-node-port-range 30001-30001", id="the last one is asked for"),
        pytest.param((30002, 30001), 30002, None, None, id="one for each"),
        pytest.param((0, 30001), 30002, None, None, id="what is left"),
    ],
)  # fmt: skip
def test_a_resource_is_given_out_once(
    node_ports: tuple[int, ...], last: int, field: str | None, message: str | None
) -> None:
    ranges = RANGES._replace(node_ports=(30001, last))
    result = allocate([with_node_ports(*node_ports)], NOTHING, ranges, lambda _: False)
    assert len(set(result.allocations.held.values())) == len(result.allocations.held)
    assert [(p.field, p.message) for p in result.problems] == ([] if field is None else [(field, message)])


def test_one_port_is_not_given_what_another_has() -> None:
    ports = [NAMED[0], {**NAMED[1], "nodePort": 30001}]
    outcome = given(service(type="NodePort", ports=ports), ranges=RANGES._replace(node_ports=(30001, 30001)))
    assert [field for _, field, _ in complaints(outcome)] == ["spec.ports[0].nodePort"]
    assert outcome.allocations == NOTHING


# a is refused, and b asks for what a holds.
REFUSED: dict[str, dict[str, Any]] = {
    "out of the range": {"type": "NodePort", "clusterIP": "10.0.0.1"},
    "of a family without a range": {"type": "NodePort", "ipFamilies": ["IPv6"]},
    "no longer asks for it": {"type": "ClusterIP", "clusterIP": "10.0.0.1"},
    "asks for another": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{**PORT, "nodePort": 30002}]},
    "asks for one that is out of the range": {"type": "NodePort", "ports": [{**PORT, "nodePort": 1}]},
}


@pytest.mark.parametrize("spec", REFUSED)
@pytest.mark.parametrize("b_first", [True, False])
def test_a_held_node_port_is_not_given_away(spec: str, b_first: bool) -> None:
    held = holds(("a", "/tcp", 30001))
    a, b = service("a", **REFUSED[spec]), service("b", **ASK_PORT)
    outcome = given(*([b, a] if b_first else [a, b]), held=held, ranges=V4_ONLY)
    assert held.held.items() <= outcome.allocations.held.items()
    assert {subject for subject, _, _ in complaints(outcome)} == {"Service default/a", "Service default/b"}
    assert not outcome.services
    assert (outcome.protected(name("a")), outcome.protected(name("b"))) == (True, True)


@pytest.mark.parametrize("spec", [{}, ASK_PORT], ids=["any", "that one"])
@pytest.mark.parametrize("after", [{}, {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}])
def test_a_node_port_that_is_let_go_is_free_at_once(spec: dict[str, Any], after: dict[str, Any]) -> None:
    held = holds(("b", "ip", "10.96.0.9"), ("b", "/tcp", 30001))
    one = Ranges(RANGES.service_cidrs, (30001, 30001))
    wanted = {**spec, "type": "NodePort"}
    outcome = given(service("a", **wanted), service("b", **after), held=held, ranges=one)
    assert outcome.problems == []
    assert outcome.services[name("a")].ports[0].node_port == 30001


def test_an_address_of_a_family_without_a_range_is_taken_as_it_is() -> None:
    outcome = given(service("a", type="NodePort", clusterIP="fd00::10"), held=holds(("a", "/tcp", 30001)), ranges=V4_ONLY)  # fmt: skip
    assert outcome.problems == []
    assert outcome.allocations.held == holds(("a", "/tcp", 30001), ("a", "ip6", "fd00::10")).held


def test_who_was_refused_because_of_one_that_then_lost_is_served() -> None:
    """b takes what a holds and c is refused for it; a is refused, keeps it, and so c's port is free of b."""
    a = service("a", type="NodePort", clusterIP="10.0.0.1", ports=[{**PORT, "nodePort": 30002}])
    b = service("b", clusterIP="10.96.0.5", **ASK_PORT)
    c = service("c", clusterIP="10.96.0.5")
    outcome = given(b, c, a, held=holds(("a", "/tcp", 30001)))
    assert list(outcome.services) == [name("c")]
    assert ips(outcome, "c") == ["10.96.0.5"]


# --- health check node ports ---

BALANCED: dict[str, Any] = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


def health_check(outcome: Resolution, own: str = "web") -> int:
    return outcome.services[name(own)].health_check_node_port


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (BALANCED, True),
        ({**BALANCED, "allocateLoadBalancerNodePorts": False}, True),
        ({**BALANCED, "externalTrafficPolicy": "Cluster"}, False),
        ({**BALANCED, "type": "NodePort"}, False),
        ({**BALANCED, "externalTrafficPolicy": "Cluster", "healthCheckNodePort": 30001}, False),
    ],
)
def test_who_gets_a_health_check_node_port(spec: dict[str, Any], wanted: bool) -> None:
    outcome = given(service(**spec))
    assert outcome.problems == []
    assert (30000 <= health_check(outcome) <= 32767) == wanted
    assert (Claim(name("web"), "healthCheckNodePort/tcp") in outcome.allocations.held) == wanted


def test_a_health_check_node_port_stays_and_can_be_asked_for() -> None:
    first = given(service(**BALANCED))
    again = given(service(**BALANCED), held=first.allocations)
    assert health_check(again) == health_check(first)
    other = given(service(**BALANCED, healthCheckNodePort=30005), held=first.allocations)
    assert health_check(other) == 30005
    gone = given(service(type="LoadBalancer"), held=other.allocations)
    assert health_check(gone) == 0
    assert Resource("tcp", 30005) in gone.allocations.released


@pytest.mark.parametrize(
    ("objects", "field", "message"),
    [
        ([service("web", **BALANCED, healthCheckNodePort=80)], "spec.healthCheckNodePort", "80/tcp is not in --service-node-port-range 30001-30002"),
        ([service("a", **ASK_PORT), service("web", **BALANCED, healthCheckNodePort=30001)], "spec.healthCheckNodePort", "30001/tcp belongs to Service default/a"),
        ([service("web", **BALANCED, healthCheckNodePort=30001, ports=[{**PORT, "nodePort": 30001}])], "spec.healthCheckNodePort", "30001/tcp belongs to another port"),
        ([service("a", **ASK_PORT), service("web", **BALANCED)], "spec.healthCheckNodePort", "nothing is free in --service-node-port-range 30001-30002"),
    ],
)  # fmt: skip
def test_a_health_check_node_port_that_cannot_be(
    objects: list[dict[str, Any]], field: str, message: str
) -> None:
    outcome = given(*objects, ranges=RANGES._replace(node_ports=(30001, 30002)))
    assert complaints(outcome) == [("Service default/web", field, message)]
    assert name("web") not in outcome.services


def test_a_health_check_node_port_may_be_a_node_port_of_another_protocol() -> None:
    udp = {"port": 53, "protocol": "UDP", "nodePort": 30001}
    outcome = given(service(**BALANCED, healthCheckNodePort=30001, ports=[udp]))
    assert outcome.problems == []


def test_what_a_refused_service_held_for_a_moment_is_free_for_the_next() -> None:
    a, b = service("a", **BALANCED, ports=NAMED[:2]), service("b", type="NodePort")
    outcome = given(a, b, ranges=RANGES._replace(node_ports=(30001, 30002)))
    assert [field for _, field, _ in complaints(outcome)] == ["spec.healthCheckNodePort"]
    assert list(outcome.services) == [name("b")]


# --- what was released ---


def node_port(outcome: Resolution, own: str) -> int:
    return outcome.services[name(own)].ports[0].node_port


def test_what_was_released_is_given_to_another_last_and_longest_ago_first() -> None:
    ranges = RANGES._replace(node_ports=(30000, 30003))
    past, order = NOTHING, []
    for own in ("b", "a"):
        outcome = given(service(own, type="NodePort"), ranges=ranges, held=past)
        past = outcome.allocations
        order.append(node_port(outcome, own))
    past = given(held=past, ranges=ranges).allocations
    assert [resource.value for resource in past.released if resource.kind == "tcp"] == order
    got = []
    for own in "wxyz":
        others = [service(before, type="NodePort") for before in "wxyz" if before < own]
        outcome = given(*others, service(own, type="NodePort"), ranges=ranges, held=past)
        past = outcome.allocations
        got.append(node_port(outcome, own))
    assert set(got[:2]) == {30000, 30001, 30002, 30003} - set(order)
    assert got[2:] == order
    assert not [resource for resource in past.released if resource.kind == "tcp"]


def test_what_goes_as_another_comes_is_not_handed_over() -> None:
    held = given(service("a"), ranges=TINY).allocations
    for n in range(20):
        outcome = given(service(f"s{n}"), ranges=TINY, held=held)
        assert {*outcome.allocations.held.values()}.isdisjoint(held.held.values())


def test_only_what_goes_as_another_comes_is_left() -> None:
    held = given(*(service(own) for own in "abcdef"), ranges=TINY).allocations
    outcome = given(*(service(own) for own in "bcdefx"), ranges=TINY, held=held)
    assert outcome.problems == []
    assert outcome.allocations.held[Claim(name("x"), "ip")] == held.held[Claim(name("a"), "ip")]
    assert not outcome.allocations.released


TINY = Ranges((ip_network("10.96.0.0/29"),), (30000, 32767))


def test_who_comes_back_gets_back_what_it_had_while_nobody_has_it() -> None:
    past = holds(("web", "ip", "10.96.200.1"))
    gone = given(held=past).allocations
    assert ips(given(service(), held=gone)) == ["10.96.200.1"]
    taken = given(service("a", clusterIP="10.96.200.1"), held=gone).allocations
    assert ips(given(service("a", clusterIP="10.96.200.1"), service(), held=taken)) != ["10.96.200.1"]


def test_an_explicit_request_takes_what_was_just_released() -> None:
    outcome = given(service("a", **ASK), held=holds(("web", "ip", "10.96.0.5")))
    assert outcome.problems == []
    assert ips(outcome, "a") == ["10.96.0.5"]
    assert not outcome.allocations.released


@pytest.mark.parametrize(("size", "remembered"), [(40, 40), (100, 64), (1000, 500), (2768, 1024)])
def test_of_what_was_released_the_last_is_remembered(size: int, remembered: int) -> None:
    ranges = RANGES._replace(node_ports=(30000, 29999 + size))
    resources = [Resource("tcp", 30000 + n) for n in range(size)]
    claims = {resource: Claim(name(f"s{resource.value}"), "/tcp") for resource in resources}
    found = allocate([], Allocations({}, claims), ranges, lambda _: False).allocations.released
    assert list(found) == resources[size - remembered :]
    assert allocate([], Allocations({}, found), ranges, lambda _: False).allocations.released == found

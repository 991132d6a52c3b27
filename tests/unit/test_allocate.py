"""Allocation of ClusterIPs and node ports, by example."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from kproxy.controlplane.allocate import allocate
from kproxy.controlplane.ledger import NOTHING, Allocations, Claim, Resource
from kproxy.controlplane.ranges import Ranges
from kproxy.decode import Document, decode
from kproxy.model import Service, format_address
from tests.resolution import Resolution
from tests.unit.make import name, resolved, service

RANGES = Ranges((ip_network("10.96.0.0/16"), ip_network("fd00:96::/112")), (30000, 32767))
V4_ONLY = Ranges(RANGES.service_cidrs[:1], RANGES.node_ports)
PORT = {"port": 80}


def holds(*claims: tuple[str, str, str | int]) -> Allocations:
    """Allocations from (service, what, address or number)."""
    made = {}
    for own, what, value in claims:
        kind = what if what in ("ip", "ip6") else what.rpartition("/")[2]
        made[Claim(name(own), what)] = Resource(
            kind, int(ip_address(value)) if isinstance(value, str) else value
        )
    return Allocations(made, {})


def outcome_of(*objects: dict[str, Any], held: Allocations = NOTHING, ranges: Ranges = RANGES) -> Resolution:
    return resolved(objects, ranges, held)


def problems_of(outcome: Resolution) -> list[tuple[str, str, str]]:
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
    outcome = outcome_of(service(**spec))
    assert outcome.problems == []
    assert [ip_address(ip).version for ip in ips(outcome)] == families


def test_two_cluster_ips_are_two_families() -> None:
    outcome = outcome_of(service(clusterIPs=["10.96.0.5", "fd00:96::5"], ipFamilies=["IPv4"]))
    assert (ips(outcome), outcome.problems) == (["10.96.0.5", "fd00:96::5"], [])


@pytest.mark.parametrize(
    ("spec", "ranges", "field", "message"),
    [
        ({"clusterIP": "10.97.0.1"}, RANGES, "spec.clusterIP", "10.97.0.1 is not in --service-cidr 10.96.0.0/16"),
        ({"clusterIP": "10.96.0.0"}, RANGES, "spec.clusterIP", "10.96.0.0 is not in --service-cidr 10.96.0.0/16"),
        ({"clusterIP": "10.96.255.255"}, RANGES, "spec.clusterIP", "10.96.255.255 is not in --service-cidr 10.96.0.0/16"),
        ({"clusterIPs": ["10.96.0.1", "fd00::1"]}, RANGES, "spec.clusterIPs[1]", "fd00::1 is not in --service-cidr fd00:96::/112"),
        ({"type": "NodePort", "ports": [{**PORT, "nodePort": 80}]}, RANGES, "spec.ports[0].nodePort", "80/tcp is not in --service-node-port-range 30000-32767"),
        ({"ipFamilies": ["IPv6"]}, V4_ONLY, "spec.ipFamilies", "there is no IPv6 --service-cidr"),
        ({"ipFamilyPolicy": "RequireDualStack"}, V4_ONLY, "spec.ipFamilyPolicy", "RequireDualStack requires a --service-cidr of each family"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(spec: dict[str, Any], ranges: Ranges, field: str, message: str) -> None:
    outcome = outcome_of(service("bad", **spec), service("good"), ranges=ranges)
    assert problems_of(outcome) == [("Service default/bad", field, message)]
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
        pytest.param([created("a", "2026-01-02", **ASK), created("b", "2026-01-01", **ASK)], NOTHING, "b", id="the older one"),
        pytest.param([service("a", **ASK), created("b", "2026-01-01", **ASK)], NOTHING, "b", id="one with a timestamp"),
        pytest.param([service("a", **ASK), service("b", **ASK)], holds(("b", "ip", "10.96.0.5")), "b", id="its holder"),
        pytest.param([service("a", **ASK), service("b")], holds(("b", "ip", "10.96.0.5")), "b", id="its holder, which does not request it"),
        pytest.param([service("a", **ASK_PORT), service("b", **ASK_PORT)], NOTHING, "a", id="a node port"),
    ],
)  # fmt: skip
def test_two_services_with_the_same_claim(
    objects: list[dict[str, Any]], held: Allocations, winner: str
) -> None:
    outcome = outcome_of(*objects, held=held)
    loser = {"a": "b", "b": "a"}[winner]
    ((subject, _, message),) = problems_of(outcome)
    assert subject == f"Service default/{loser}"
    assert f"belongs to Service default/{winner}" in message
    assert list(outcome.services) == [name(winner)]


def test_the_message_does_not_call_the_holder_older() -> None:
    held = holds(("b", "ip", "10.96.0.5"))
    (problem,) = outcome_of(created("a", "2020-01-01", **ASK), created("b", "2026-01-01"), held=held).problems
    assert "older" not in problem.message


def test_one_node_port_for_two_protocols() -> None:
    ports = [{"name": p.lower(), "port": 53, "protocol": p, "nodePort": 30053} for p in ("TCP", "UDP")]
    assert outcome_of(service(type="NodePort", ports=ports)).problems == []


def test_a_request_has_priority_over_allocation() -> None:
    """b, which comes later, requests the address that is first for the name of a."""
    (ip,) = ips(outcome_of(service("a")), "a")
    outcome = outcome_of(service("a"), service("b", clusterIP=ip))
    assert ips(outcome, "b") == [ip]
    assert ips(outcome, "a") != [ip]


def test_allocation_depends_on_names_only() -> None:
    alone, among = outcome_of(service("a")), outcome_of(service("b"), service("c"), service("a"))
    assert ips(alone, "a") == ips(among, "a")


def test_the_lower_part_is_reserved_for_requests() -> None:
    outcome = outcome_of(*(service(f"s{n}", type="NodePort") for n in range(200)))
    values = outcome.allocations.held.values()
    assert min(r.value for r in values if r.kind == "ip") > int(ip_address("10.96.1.0"))
    assert min(r.value for r in values if r.kind == "tcp") >= 30000 + 86


@pytest.mark.parametrize(("bits", "room"), [(32, 0), (31, 0), (30, 2), (29, 6), (28, 14), (24, 254)])
def test_every_value_of_a_range_is_used(bits: int, room: int) -> None:
    ranges = Ranges((ip_network(f"10.96.0.0/{bits}"),), RANGES.node_ports)
    outcome = outcome_of(*(service(f"s{n}") for n in range(room + 1)), ranges=ranges)
    assert len(outcome.services) == room
    (problem,) = outcome.problems
    assert problem.message == f"--service-cidr 10.96.0.0/{bits} is full"


@pytest.mark.parametrize(
    ("held", "change", "stays"),
    [
        pytest.param(("web", "ip", "10.96.200.1"), {}, True, id="unchanged"),
        pytest.param(("web", "ip", "10.96.200.1"), {"clusterIP": "10.96.0.5"}, False, id="requests another"),
        pytest.param(("web", "ip", "10.97.0.1"), {}, False, id="no longer in the range"),
        pytest.param(("web", "ip", "10.96.200.1"), {"clusterIP": "None"}, False, id="now headless"),
        pytest.param(("web", "/tcp", 30500), {"type": "NodePort"}, True, id="a node port"),
        pytest.param(("web", "/tcp", 30500), {}, False, id="no longer a NodePort Service"),
        pytest.param(
            ("web", "/tcp", 20000),
            {"type": "NodePort"},
            False,
            id="a node port that is no longer in the range",
        ),
        pytest.param(("gone", "ip", "10.96.200.1"), {}, False, id="a deleted Service"),
    ],
)
def test_which_allocations_stay(held: tuple[str, str, Any], change: dict[str, Any], stays: bool) -> None:
    before = holds(held)
    after = outcome_of(service(**change), held=before).allocations
    assert (before.held.items() <= after.held.items()) == stays


def test_an_unreadable_service_keeps_its_allocations() -> None:
    held = holds(("bad", "ip", "10.96.0.5"), ("gone", "ip", "10.96.0.6"))
    outcome = outcome_of(service("bad", ports=[]), service("a", **ASK), held=held)
    assert [problem.object for problem in outcome.problems] == ["Service default/bad", "Service default/a"]
    assert outcome.allocations.held == holds(("bad", "ip", "10.96.0.5")).held


def test_a_refused_service_keeps_its_allocations() -> None:
    held = holds(("a", "ip", "10.96.0.5"))
    outcome = outcome_of(service("a", clusterIP="10.0.0.1"), service("b"), held=held)
    assert held.held.items() <= outcome.allocations.held.items()


def with_node_ports(*node_ports: int) -> Service:
    """A Service that may have one node port twice, which decoding refuses."""
    decoded = decode([Document("f", service(type="NodePort", ports=NAMED[: len(node_ports)]))])
    (made,) = decoded.state.services.values()
    ports = zip(made.ports, node_ports, strict=True)
    return replace(made, ports=tuple(replace(port, node_port=number) for port, number in ports))


NAMED = [{"name": letter, "port": 80 + number} for number, letter in enumerate("abc")]


@pytest.mark.parametrize(
    ("node_ports", "last", "field", "message"),
    [
        pytest.param((30001, 30001), 32767, "spec.ports[1].nodePort", "30001/tcp belongs to another port", id="a duplicate"),
        pytest.param((30001, 30001, 1), 32767, "spec.ports[1].nodePort", "30001/tcp belongs to another port", id="a duplicate, and then a refusal"),
        pytest.param((0, 30001), 30001, "spec.ports[0].nodePort", "--service-node-port-range 30001-30001 is full", id="the last free one is requested"),
        pytest.param((30002, 30001), 30002, None, None, id="two requests"),
        pytest.param((0, 30001), 30002, None, None, id="a request and the remaining one"),
    ],
)  # fmt: skip
def test_a_resource_is_allocated_once(
    node_ports: tuple[int, ...], last: int, field: str | None, message: str | None
) -> None:
    ranges = replace(RANGES, node_ports=(30001, last))
    result = allocate([with_node_ports(*node_ports)], NOTHING, ranges, lambda _: False)
    assert len(set(result.allocations.held.values())) == len(result.allocations.held)
    assert [(p.field, p.message) for p in result.problems] == ([] if field is None else [(field, message)])


def test_two_ports_cannot_share_a_node_port() -> None:
    ports = [NAMED[0], {**NAMED[1], "nodePort": 30001}]
    outcome = outcome_of(
        service(type="NodePort", ports=ports), ranges=replace(RANGES, node_ports=(30001, 30001))
    )
    assert [field for _, field, _ in problems_of(outcome)] == ["spec.ports[0].nodePort"]
    assert outcome.allocations == NOTHING


# a is refused, and b requests what a holds.
REFUSED: dict[str, dict[str, Any]] = {
    "not in the range": {"type": "NodePort", "clusterIP": "10.0.0.1"},
    "no range of its family": {"type": "NodePort", "ipFamilies": ["IPv6"]},
    "no longer requests it": {"type": "ClusterIP", "clusterIP": "10.0.0.1"},
    "requests another": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{**PORT, "nodePort": 30002}]},
    "requests one that is not in the range": {"type": "NodePort", "ports": [{**PORT, "nodePort": 1}]},
}


@pytest.mark.parametrize("spec", REFUSED)
@pytest.mark.parametrize("b_first", [True, False])
def test_the_node_port_of_a_refused_service_stays(spec: str, b_first: bool) -> None:
    held = holds(("a", "/tcp", 30001))
    a, b = service("a", **REFUSED[spec]), service("b", **ASK_PORT)
    outcome = outcome_of(*([b, a] if b_first else [a, b]), held=held, ranges=V4_ONLY)
    assert held.held.items() <= outcome.allocations.held.items()
    assert {subject for subject, _, _ in problems_of(outcome)} == {"Service default/a", "Service default/b"}
    assert not outcome.services
    assert (outcome.protected(name("a")), outcome.protected(name("b"))) == (True, True)


@pytest.mark.parametrize("spec", [{}, ASK_PORT], ids=["any", "the same one"])
@pytest.mark.parametrize("after", [{}, {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}])
def test_a_released_node_port_is_free_immediately(spec: dict[str, Any], after: dict[str, Any]) -> None:
    held = holds(("b", "ip", "10.96.0.9"), ("b", "/tcp", 30001))
    one = Ranges(RANGES.service_cidrs, (30001, 30001))
    requested = {**spec, "type": "NodePort"}
    outcome = outcome_of(service("a", **requested), service("b", **after), held=held, ranges=one)
    assert outcome.problems == []
    assert outcome.services[name("a")].ports[0].node_port == 30001


def test_an_address_of_a_family_without_a_range_is_accepted() -> None:
    outcome = outcome_of(service("a", type="NodePort", clusterIP="fd00::10"), held=holds(("a", "/tcp", 30001)), ranges=V4_ONLY)  # fmt: skip
    assert outcome.problems == []
    assert outcome.allocations.held == holds(("a", "/tcp", 30001), ("a", "ip6", "fd00::10")).held


def test_a_refusal_is_revised_if_its_cause_is_refused() -> None:
    """b takes a's node port and the address that c requests. a is refused and keeps the port, so b is refused."""
    a = service("a", type="NodePort", clusterIP="10.0.0.1", ports=[{**PORT, "nodePort": 30002}])
    b = service("b", clusterIP="10.96.0.5", **ASK_PORT)
    c = service("c", clusterIP="10.96.0.5")
    outcome = outcome_of(b, c, a, held=holds(("a", "/tcp", 30001)))
    assert list(outcome.services) == [name("c")]
    assert ips(outcome, "c") == ["10.96.0.5"]


# --- health check node ports ---

BALANCED: dict[str, Any] = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


def health_check(outcome: Resolution, own: str = "web") -> int:
    return outcome.services[name(own)].health_check_node_port


@pytest.mark.parametrize(
    ("spec", "needed"),
    [
        (BALANCED, True),
        ({**BALANCED, "allocateLoadBalancerNodePorts": False}, True),
        ({**BALANCED, "externalTrafficPolicy": "Cluster"}, False),
        ({**BALANCED, "type": "NodePort"}, False),
        ({**BALANCED, "externalTrafficPolicy": "Cluster", "healthCheckNodePort": 30001}, False),
    ],
)
def test_which_services_get_a_health_check_node_port(spec: dict[str, Any], needed: bool) -> None:
    outcome = outcome_of(service(**spec))
    assert outcome.problems == []
    assert (30000 <= health_check(outcome) <= 32767) == needed
    assert (Claim(name("web"), "healthCheckNodePort/tcp") in outcome.allocations.held) == needed


def test_a_health_check_node_port_stays_and_can_be_requested() -> None:
    first = outcome_of(service(**BALANCED))
    again = outcome_of(service(**BALANCED), held=first.allocations)
    assert health_check(again) == health_check(first)
    other = outcome_of(service(**BALANCED, healthCheckNodePort=30005), held=first.allocations)
    assert health_check(other) == 30005
    gone = outcome_of(service(type="LoadBalancer"), held=other.allocations)
    assert health_check(gone) == 0
    assert Resource("tcp", 30005) in gone.allocations.released


@pytest.mark.parametrize(
    ("objects", "field", "message"),
    [
        ([service("web", **BALANCED, healthCheckNodePort=80)], "spec.healthCheckNodePort", "80/tcp is not in --service-node-port-range 30001-30002"),
        ([service("a", **ASK_PORT), service("web", **BALANCED, healthCheckNodePort=30001)], "spec.healthCheckNodePort", "30001/tcp belongs to Service default/a"),
        ([service("web", **BALANCED, healthCheckNodePort=30001, ports=[{**PORT, "nodePort": 30001}])], "spec.healthCheckNodePort", "30001/tcp belongs to another port"),
        ([service("a", **ASK_PORT), service("web", **BALANCED)], "spec.healthCheckNodePort", "--service-node-port-range 30001-30002 is full"),
    ],
)  # fmt: skip
def test_a_health_check_node_port_that_is_refused(
    objects: list[dict[str, Any]], field: str, message: str
) -> None:
    outcome = outcome_of(*objects, ranges=replace(RANGES, node_ports=(30001, 30002)))
    assert problems_of(outcome) == [("Service default/web", field, message)]
    assert name("web") not in outcome.services


def test_a_health_check_node_port_may_be_a_node_port_of_another_protocol() -> None:
    udp = {"port": 53, "protocol": "UDP", "nodePort": 30001}
    outcome = outcome_of(service(**BALANCED, healthCheckNodePort=30001, ports=[udp]))
    assert outcome.problems == []


def test_what_a_refused_service_took_is_free_for_the_next() -> None:
    a, b = service("a", **BALANCED, ports=NAMED[:2]), service("b", type="NodePort")
    outcome = outcome_of(a, b, ranges=replace(RANGES, node_ports=(30001, 30002)))
    assert [field for _, field, _ in problems_of(outcome)] == ["spec.healthCheckNodePort"]
    assert list(outcome.services) == [name("b")]


# --- released resources ---


def node_port(outcome: Resolution, own: str) -> int:
    return outcome.services[name(own)].ports[0].node_port


def test_released_node_ports_are_reused_last_in_order_of_release() -> None:
    ranges = replace(RANGES, node_ports=(30000, 30003))
    past, order = NOTHING, []
    for own in ("b", "a"):
        outcome = outcome_of(service(own, type="NodePort"), ranges=ranges, held=past)
        past = outcome.allocations
        order.append(node_port(outcome, own))
    past = outcome_of(held=past, ranges=ranges).allocations
    assert [resource.value for resource in past.released if resource.kind == "tcp"] == order
    got = []
    for own in "wxyz":
        others = [service(before, type="NodePort") for before in "wxyz" if before < own]
        outcome = outcome_of(*others, service(own, type="NodePort"), ranges=ranges, held=past)
        past = outcome.allocations
        got.append(node_port(outcome, own))
    assert set(got[:2]) == {30000, 30001, 30002, 30003} - set(order)
    assert got[2:] == order
    assert not [resource for resource in past.released if resource.kind == "tcp"]


def test_a_new_service_does_not_get_the_address_of_a_deleted_one() -> None:
    held = outcome_of(service("a"), ranges=TINY).allocations
    for n in range(20):
        outcome = outcome_of(service(f"s{n}"), ranges=TINY, held=held)
        assert {*outcome.allocations.held.values()}.isdisjoint(held.held.values())


def test_a_new_service_gets_the_address_of_a_deleted_one_if_no_other_is_free() -> None:
    held = outcome_of(*(service(own) for own in "abcdef"), ranges=TINY).allocations
    outcome = outcome_of(*(service(own) for own in "bcdefx"), ranges=TINY, held=held)
    assert outcome.problems == []
    assert outcome.allocations.held[Claim(name("x"), "ip")] == held.held[Claim(name("a"), "ip")]
    assert not outcome.allocations.released


TINY = Ranges((ip_network("10.96.0.0/29"),), (30000, 32767))


def test_a_recreated_service_gets_its_address_again_if_it_is_free() -> None:
    past = holds(("web", "ip", "10.96.200.1"))
    gone = outcome_of(held=past).allocations
    assert ips(outcome_of(service(), held=gone)) == ["10.96.200.1"]
    taken = outcome_of(service("a", clusterIP="10.96.200.1"), held=gone).allocations
    assert ips(outcome_of(service("a", clusterIP="10.96.200.1"), service(), held=taken)) != ["10.96.200.1"]


def test_a_request_can_take_a_released_address() -> None:
    outcome = outcome_of(service("a", **ASK), held=holds(("web", "ip", "10.96.0.5")))
    assert outcome.problems == []
    assert ips(outcome, "a") == ["10.96.0.5"]
    assert not outcome.allocations.released


@pytest.mark.parametrize(("size", "remembered"), [(40, 40), (100, 64), (1000, 500), (2768, 1024)])
def test_the_last_released_resources_are_remembered(size: int, remembered: int) -> None:
    ranges = replace(RANGES, node_ports=(30000, 29999 + size))
    resources = [Resource("tcp", 30000 + n) for n in range(size)]
    claims = {resource: Claim(name(f"s{resource.value}"), "/tcp") for resource in resources}
    found = allocate([], Allocations({}, claims), ranges, lambda _: False).allocations.released
    assert list(found) == resources[size - remembered :]
    assert allocate([], Allocations({}, found), ranges, lambda _: False).allocations.released == found

"""Allocation: nobody gets what another has, nobody loses what he had, chance has no say."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kproxy.controlplane.allocate import Allocated, allocate
from kproxy.controlplane.ledger import NOTHING, Allocations, Claim, Resource
from kproxy.controlplane.ranges import LOAD_BALANCER, Ranges, parse_pool, spans
from kproxy.decode import Document, decode
from kproxy.model import Service, format_address
from tests.unit.make import name, service

SMALL = Ranges(
    (ip_network("10.96.0.0/28"), ip_network("fd00:96::/124")),
    (30000, 30005),
    parse_pool("192.0.2.1-192.0.2.3,2001:db8::1-2001:db8::2"),
)
NAMES = ["a", "b", "c", "d", "e", "f"]

specs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer"]),
        "ports": st.lists(st.sampled_from([0, 0, 30000, 30001, 30005]), min_size=1, max_size=2).map(
            lambda numbers: [{"name": f"p{i}", "port": 80 + i, "nodePort": n} for i, n in enumerate(numbers)]
        ),
    },
    optional={
        "clusterIP": st.sampled_from(["10.96.0.1", "10.96.0.2", "fd00:96::1", "10.96.0.14"]),
        "ipFamilyPolicy": st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "healthCheckNodePort": st.sampled_from([30000, 30005]),
        "loadBalancerIP": st.sampled_from(["192.0.2.1", "192.0.2.3", "192.0.2.9", "2001:db8::1", "nonsense"]),
    },
)
# Two ports of one service that ask for one node port are no input (tests/unit/test_allocate.py).
plain = specs.filter(
    lambda spec: len({p["nodePort"] or p["name"] for p in spec["ports"]}) == len(spec["ports"])
)
inputs = st.dictionaries(st.sampled_from(NAMES), plain, max_size=6)


NOT_NEEDED = ("spec.loadBalancerIP", "status.loadBalancer")
"""What a service is served without."""


def services(given_specs: dict[str, Any]) -> list[Service]:
    documents = [Document("in.yaml", service(own, **spec)) for own, spec in given_specs.items()]
    result = decode(documents)
    assert not result.problems
    return list(result.state.services.values())


def give(specs: dict[str, Any], past: Allocations = NOTHING, ranges: Ranges = SMALL) -> Allocated:
    return allocate(services(specs), past, ranges, lambda _: False)


def resources(service: Service) -> set[Resource]:
    addresses = {
        Resource("ip" if len(a) == 4 else "ip6", int.from_bytes(a, "big"))
        for a in (*service.cluster_ips, *service.load_balancer_ips)
    }
    node_ports = {Resource(p.protocol, p.node_port) for p in service.ports if p.node_port}
    health_check = service.health_check_node_port
    return addresses | node_ports | ({Resource("tcp", health_check)} if health_check else set())


@given(inputs)
def test_nobody_gets_what_another_has(specs: dict[str, Any]) -> None:
    result = give(specs)
    given_out = [resource for service in result.services.values() for resource in resources(service)]
    assert len(given_out) == len(set(given_out))
    assert sorted(result.allocations.held.values()) == sorted(given_out)
    assert result.services.keys() | result.left_out.keys() == {name(own) for own in specs}
    lacking = [problem for problem in result.problems if problem.field in NOT_NEEDED]
    assert len(result.problems) == len(result.left_out) + len(lacking)


@given(inputs)
def test_who_is_served_has_all_that_it_needs_and_asked_for(specs: dict[str, Any]) -> None:
    result = give(specs)
    asked = {service.name: service for service in services(specs)}
    for own, served in result.services.items():
        assert served.cluster_ips
        assert set(asked[own].cluster_ips) <= set(served.cluster_ips)
        for before, after in zip(asked[own].ports, served.ports, strict=True):
            if served.type != "ClusterIP":
                assert after.node_port == before.node_port or (not before.node_port and after.node_port)
            else:
                assert after.node_port == 0
        assert (served.health_check_node_port > 0) == served.wants_health_check
        assert asked[own].health_check_node_port in (0, served.health_check_node_port)
        if not any(problem.object == f"Service {own}" for problem in result.problems):
            ips = [format_address(ip) for ip in served.load_balancer_ips]
            assert len(ips) == (len(served.families) if served.type == "LoadBalancer" else 0)
            assert served.load_balancer_ip in ("", *ips)


@given(inputs)
def test_the_same_again_changes_nothing(specs: dict[str, Any]) -> None:
    first = give(specs)
    again = give(specs, first.allocations)
    assert again.services == first.services
    assert again.allocations == first.allocations


@given(inputs, inputs)
def test_what_is_held_stays(first: dict[str, Any], more: dict[str, Any]) -> None:
    held = give(first)
    result = give({**more, **first}, held.allocations)
    for own, served in held.services.items():
        assert result.services[own] == served


@given(inputs, inputs)
def test_who_is_refused_keeps_what_it_held(first: dict[str, Any], then: dict[str, Any]) -> None:
    held = give(first).allocations
    result = give({**first, **then}, held)
    theirs = {claim: resource for claim, resource in held.held.items() if claim.service in result.left_out}
    assert theirs.items() <= result.allocations.held.items()
    assert len(set(result.allocations.held.values())) == len(result.allocations.held)


@given(inputs, st.randoms(use_true_random=False))
def test_order_decides_only_between_equals(specs: dict[str, Any], random: Any) -> None:
    """With times of creation that differ, the order of the input does not matter."""
    aged = [
        msgspec.structs.replace(
            s, origin=s.origin._replace(created=f"2026-01-{1 + NAMES.index(s.name.name):02}")
        )
        for s in services(specs)
    ]
    shuffled = list(aged)
    random.shuffle(shuffled)
    one, other = (allocate(order, NOTHING, SMALL, lambda _: False) for order in (aged, shuffled))
    assert (one.services, one.allocations) == (other.services, other.allocations)


@given(st.integers(1, 20))
def test_an_exhausted_range_is_reported(count: int) -> None:
    result = give(
        {f"s{n:02}": {"type": "ClusterIP"} for n in range(count)},
        ranges=Ranges(SMALL.service_cidrs[:1], (1, 1)),
    )
    assert len(result.services) == min(count, 14)
    assert [(p.field, p.message) for p in result.problems] == [
        ("spec.clusterIP", "nothing is free in --service-cidr 10.96.0.0/28")
    ] * max(0, count - 14)


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_what_absent_services_hold_stays_theirs_if_they_are_kept(
    present: set[str], protected: set[str]
) -> None:
    held = give({own: {"type": "NodePort"} for own in NAMES}).allocations
    result = allocate(
        services({own: {"type": "NodePort"} for own in sorted(present)}),
        held,
        SMALL,
        lambda s: s.name in protected,
    )
    assert result.allocations.held == {
        c: r for c, r in held.held.items() if c.service.name in present | protected
    }


SPANS = spans(SMALL)


def automatic(before: Allocations, after: Allocations, specs: dict[str, Any]) -> dict[Claim, Resource]:
    """What was newly allocated, and neither asked for nor given back to who had it."""
    asked = {resource for service in services(specs) for resource in resources(service)}
    asked |= {Resource("ip", int(ip_address(text))) for text in ("192.0.2.1", "192.0.2.3")}
    asked |= {Resource("ip6", int(ip_address("2001:db8::1")))}
    return {
        claim: resource
        for claim, resource in after.held.items()
        if before.held.get(claim) != resource
        and before.released.get(resource) != claim
        and resource not in asked
    }


@given(st.lists(inputs, min_size=2, max_size=6))
def test_what_was_released_is_used_last(history: list[dict[str, Any]]) -> None:
    past = NOTHING
    for specs in history:
        result = give(specs, past)
        after = result.allocations
        used = [*past.released, *sorted(past.held.values())]
        assert not set(after.released) & set(after.held.values())
        assert set(used) <= {*after.released, *after.held.values()}
        remaining = [resource for resource in past.released if resource in after.released]
        assert list(after.released)[: len(remaining)] == remaining
        if not result.left_out:  # who was refused may have held something for a moment
            for claim, resource in automatic(past, after, specs).items():
                if resource not in used:
                    continue
                span = SPANS[claim.what if claim.what in SPANS else claim.what.rpartition("/")[2]]
                unused = {Resource(resource.kind, v) for v in span.places("")}.difference(used)
                assert unused <= set(after.held.values())
                longer_ago = [r for r in past.released if r.kind == resource.kind and span.has(r.value)]
                if resource in longer_ago:
                    longer_ago = longer_ago[: longer_ago.index(resource)]
                assert set(longer_ago) <= set(after.held.values())
        past = after


@given(inputs)
def test_addresses_of_the_pool_are_told_with_their_services(specs: dict[str, Any]) -> None:
    result = give(specs)
    told = result.allocations.pool_addresses()
    held = {claim for claim in result.allocations.held if claim.what.startswith(LOAD_BALANCER)}
    assert len(told) == len(held)
    assert told == {ip: own for own, served in result.services.items() for ip in served.load_balancer_ips}

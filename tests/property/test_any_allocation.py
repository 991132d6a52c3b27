"""Allocation: nobody gets what another has, nobody loses what he had, chance has no say."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kproxy.decode import Document, decode
from kproxy.model import Service
from kproxy.standalone.allocate import Allocated, Allocations, Ranges, Resource, allocate
from tests.unit.make import name, service

SMALL = Ranges((ip_network("10.96.0.0/28"), ip_network("fd00:96::/124")), (30000, 30005))
NAMES = ["a", "b", "c", "d", "e", "f"]

specs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ClusterIP", "NodePort"]),
        "ports": st.lists(st.sampled_from([0, 0, 30000, 30001, 30005]), min_size=1, max_size=2).map(
            lambda numbers: [{"name": f"p{i}", "port": 80 + i, "nodePort": n} for i, n in enumerate(numbers)]
        ),
    },
    optional={
        "clusterIP": st.sampled_from(["10.96.0.1", "10.96.0.2", "fd00:96::1", "10.96.0.14"]),
        "ipFamilyPolicy": st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack"]),
    },
)
# Two ports of one service that ask for one node port are no input (tests/unit/test_allocate.py).
plain = specs.filter(
    lambda spec: len({p["nodePort"] or p["name"] for p in spec["ports"]}) == len(spec["ports"])
)
inputs = st.dictionaries(st.sampled_from(NAMES), plain, max_size=6)


def services(given_specs: dict[str, Any]) -> list[Service]:
    documents = [Document("in.yaml", service(own, **spec)) for own, spec in given_specs.items()]
    result = decode(documents)
    assert not result.problems
    return list(result.state.services.values())


def give(specs: dict[str, Any], held: Allocations | None = None, ranges: Ranges = SMALL) -> Allocated:
    return allocate(services(specs), held or {}, ranges, lambda _: False)


def resources(service: Service) -> set[Resource]:
    addresses = {
        Resource("ip" if len(a) == 4 else "ip6", int.from_bytes(a, "big")) for a in service.cluster_ips
    }
    return addresses | {Resource(p.protocol, p.node_port) for p in service.ports if p.node_port}


@given(inputs)
def test_nobody_gets_what_another_has(specs: dict[str, Any]) -> None:
    result = give(specs)
    given_out = [resource for service in result.services.values() for resource in resources(service)]
    assert len(given_out) == len(set(given_out))
    assert sorted(result.allocations.values()) == sorted(given_out)
    assert result.services.keys() | result.left_out == {name(own) for own in specs}
    assert len(result.problems) == len(result.left_out)


@given(inputs)
def test_who_is_served_has_all_that_it_needs_and_asked_for(specs: dict[str, Any]) -> None:
    result = give(specs)
    asked = {service.name: service for service in services(specs)}
    for own, served in result.services.items():
        assert served.cluster_ips
        assert set(asked[own].cluster_ips) <= set(served.cluster_ips)
        for before, after in zip(asked[own].ports, served.ports, strict=True):
            if served.type == "NodePort":
                assert after.node_port == before.node_port or (not before.node_port and after.node_port)
            else:
                assert after.node_port == 0


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
    theirs = {claim: resource for claim, resource in held.items() if claim.service in result.left_out}
    assert theirs.items() <= result.allocations.items()
    assert len(set(result.allocations.values())) == len(result.allocations)


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
    one, other = (allocate(order, {}, SMALL, lambda _: False) for order in (aged, shuffled))
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
def test_what_absent_services_hold_stays_theirs_if_they_are_kept(present: set[str], kept: set[str]) -> None:
    held = give({own: {"type": "NodePort"} for own in NAMES}).allocations
    result = allocate(
        services({own: {"type": "NodePort"} for own in sorted(present)}),
        held,
        SMALL,
        lambda s: s.name in kept,
    )
    assert result.allocations == {c: r for c, r in held.items() if c.service.name in present | kept}

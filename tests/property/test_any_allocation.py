"""Properties of allocation: unique, stable and deterministic."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
# Decoding refuses a Service that requests one node port twice (see tests/unit/test_allocate.py).
plain = specs.filter(
    lambda spec: len({p["nodePort"] or p["name"] for p in spec["ports"]}) == len(spec["ports"])
)
inputs = st.dictionaries(st.sampled_from(NAMES), plain, max_size=6)


OPTIONAL = ("spec.loadBalancerIP", "status.loadBalancer")
"""The fields of problems with which a Service is served anyway."""


def services(specs: dict[str, Any]) -> list[Service]:
    documents = [Document("in.yaml", service(own, **spec)) for own, spec in specs.items()]
    result = decode(documents)
    assert not result.problems
    return list(result.state.services.values())


def allocated(specs: dict[str, Any], past: Allocations = NOTHING, ranges: Ranges = SMALL) -> Allocated:
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
def test_each_resource_is_allocated_once(specs: dict[str, Any]) -> None:
    result = allocated(specs)
    resources_held = [resource for service in result.services.values() for resource in resources(service)]
    assert len(resources_held) == len(set(resources_held))
    assert sorted(result.allocations.held.values()) == sorted(resources_held)
    assert result.services.keys() | result.refused.keys() == {name(own) for own in specs}
    lacking = [problem for problem in result.problems if problem.field in OPTIONAL]
    assert len(result.problems) == len(result.refused) + len(lacking)


@given(inputs)
def test_services_get_all_that_they_need_and_request(specs: dict[str, Any]) -> None:
    result = allocated(specs)
    requested = {service.name: service for service in services(specs)}
    for own, served in result.services.items():
        assert served.cluster_ips
        assert set(requested[own].cluster_ips) <= set(served.cluster_ips)
        for before, after in zip(requested[own].ports, served.ports, strict=True):
            if served.type != "ClusterIP":
                assert after.node_port == before.node_port or (not before.node_port and after.node_port)
            else:
                assert after.node_port == 0
        assert (served.health_check_node_port > 0) == served.wants_health_check
        assert requested[own].health_check_node_port in (0, served.health_check_node_port)
        if not any(problem.object == f"Service {own}" for problem in result.problems):
            ips = [format_address(ip) for ip in served.load_balancer_ips]
            assert len(ips) == (len(served.families) if served.type == "LoadBalancer" else 0)
            assert served.load_balancer_ip in ("", *ips)


@given(inputs)
def test_a_second_allocation_changes_nothing(specs: dict[str, Any]) -> None:
    first = allocated(specs)
    again = allocated(specs, first.allocations)
    assert again.services == first.services
    assert again.allocations == first.allocations


@given(inputs, inputs)
def test_allocations_stay(first: dict[str, Any], more: dict[str, Any]) -> None:
    held = allocated(first)
    result = allocated({**more, **first}, held.allocations)
    for own, served in held.services.items():
        assert result.services[own] == served


@given(inputs, inputs)
def test_refused_services_keep_their_allocations(first: dict[str, Any], then: dict[str, Any]) -> None:
    held = allocated(first).allocations
    result = allocated({**first, **then}, held)
    refused = {claim: resource for claim, resource in held.held.items() if claim.service in result.refused}
    assert refused.items() <= result.allocations.held.items()
    assert len(set(result.allocations.held.values())) == len(result.allocations.held)


@given(inputs, st.randoms(use_true_random=False))
def test_the_order_matters_only_for_services_of_equal_age(specs: dict[str, Any], random: Any) -> None:
    """If all creation timestamps differ, the order of the input does not matter."""
    aged = [
        msgspec.structs.replace(
            s, origin=replace(s.origin, created=f"2026-01-{1 + NAMES.index(s.name.name):02}")
        )
        for s in services(specs)
    ]
    shuffled = list(aged)
    random.shuffle(shuffled)
    one, other = (allocate(order, NOTHING, SMALL, lambda _: False) for order in (aged, shuffled))
    assert (one.services, one.allocations) == (other.services, other.allocations)


@given(st.integers(1, 20))
def test_an_exhausted_range_is_reported(count: int) -> None:
    result = allocated(
        {f"s{n:02}": {"type": "ClusterIP"} for n in range(count)},
        ranges=Ranges(SMALL.service_cidrs[:1], (1, 1)),
    )
    assert len(result.services) == min(count, 14)
    assert [(p.field, p.message) for p in result.problems] == [
        ("spec.clusterIP", "--service-cidr 10.96.0.0/28 is full")
    ] * max(0, count - 14)


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_absent_services_keep_their_allocations_if_they_are_protected(
    present: set[str], protected: set[str]
) -> None:
    held = allocated({own: {"type": "NodePort"} for own in NAMES}).allocations
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
    """New allocations that were neither requested nor held by the same claim before."""
    requested = {resource for service in services(specs) for resource in resources(service)}
    requested |= {Resource("ip", int(ip_address(text))) for text in ("192.0.2.1", "192.0.2.3")}
    requested |= {Resource("ip6", int(ip_address("2001:db8::1")))}
    return {
        claim: resource
        for claim, resource in after.held.items()
        if before.held.get(claim) != resource
        and before.released.get(resource) != claim
        and resource not in requested
    }


@given(st.lists(inputs, min_size=2, max_size=6))
def test_released_resources_are_reused_last(history: list[dict[str, Any]]) -> None:
    past = NOTHING
    for specs in history:
        result = allocated(specs, past)
        after = result.allocations
        used = [*past.released, *sorted(past.held.values())]
        assert not set(after.released) & set(after.held.values())
        assert set(used) <= {*after.released, *after.held.values()}
        remaining = [resource for resource in past.released if resource in after.released]
        assert list(after.released)[: len(remaining)] == remaining
        if not result.refused:  # a refused Service may have held something for a moment
            for claim, resource in automatic(past, after, specs).items():
                if resource not in used:
                    continue
                span = SPANS[claim.what if claim.what in SPANS else claim.what.rpartition("/")[2]]
                unused = {Resource(resource.kind, v) for v in span.values_from("")}.difference(used)
                assert unused <= set(after.held.values())
                longer_ago = [r for r in past.released if r.kind == resource.kind and span.has(r.value)]
                if resource in longer_ago:
                    longer_ago = longer_ago[: longer_ago.index(resource)]
                assert set(longer_ago) <= set(after.held.values())
        past = after


@given(inputs)
def test_pool_addresses(specs: dict[str, Any]) -> None:
    result = allocated(specs)
    found = result.allocations.pool_addresses()
    held = {claim for claim in result.allocations.held if claim.what.startswith(LOAD_BALANCER)}
    assert len(found) == len(held)
    assert found == {ip: own for own, served in result.services.items() for ip in served.load_balancer_ips}

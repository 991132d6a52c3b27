"""Totals of connections, from counters that restart when elements are rewritten."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kproxy.model import Family, NamespacedName, Protocol, ServicePortName, parse_address
from kproxy.nft.elements import Verdict
from kproxy.observe.core.counters import (
    MAX_INCOMPLETE,
    Connections,
    Counted,
    EndpointName,
    Owners,
    members_of,
    owners_of,
)
from kproxy.table.compile import compile_frontends
from kproxy.table.layout import EndpointScope, PackedSocket, frontend_key, frontend_socket, pack_socket
from tests.keys import slot_key
from tests.unit.make import frontend

WEB = ServicePortName(NamespacedName("default", "web"), "http")
SHOP = ServicePortName(NamespacedName("default", "shop"), "")
TCP, UDP = Protocol.TCP, Protocol.UDP


def packed(address: str, port: int = 80, protocol: Protocol = TCP) -> PackedSocket:
    return frontend_socket(frontend_key(parse_address(address), protocol, port))


def endpoint(number: int) -> PackedSocket:
    return pack_socket(bytes([10, 244, 0, number]), 8080)


OWNERS: Owners = {
    (TCP, packed("10.96.0.1")): WEB,
    (TCP, packed("192.0.2.1", 30080)): WEB,
    (TCP, packed("10.96.0.2")): SHOP,
    (UDP, packed("10.96.0.1")): SHOP,
}
A = packed("10.96.0.1")


def totals_of(*readings: dict[tuple[PackedSocket, int, int], int]) -> dict[EndpointName, int]:
    """Return the totals after some readings, each {(frontend, slot, endpoint): count}."""
    connections = Connections(by_endpoint=True)
    for reading in readings:
        counted = [(slot_key(p, slot), endpoint(e), count) for (p, slot, e), count in reading.items()]
        connections.take_endpoints(Family.IPV4, TCP, counted, OWNERS)
    connections.retain(frozenset(OWNERS.values()))
    return connections.endpoints


FIRST = EndpointName(WEB, endpoint(1))


def test_the_increase_of_a_counter_is_added() -> None:
    assert totals_of({(A, 0, 1): 5}, {(A, 0, 1): 7}, {(A, 0, 1): 7}) == {FIRST: 7}


def test_counts_before_the_first_reading_are_included() -> None:
    assert totals_of({(A, 0, 1): 5}) == {FIRST: 5}


def test_a_rewritten_element_counts_from_zero() -> None:
    assert totals_of({(A, 0, 1): 5}, {(A, 0, 1): 2}) == {FIRST: 7}


def test_a_slot_with_another_endpoint_counts_from_zero() -> None:
    assert totals_of({(A, 0, 1): 5}, {(A, 0, 2): 9}) == {FIRST: 5, EndpointName(WEB, endpoint(2)): 9}


def test_an_element_that_was_removed_and_added_counts_from_zero() -> None:
    assert totals_of({(A, 0, 1): 5}, {}, {(A, 0, 1): 5}) == {FIRST: 10}


def test_all_frontends_and_slots_of_a_service_port_have_one_total() -> None:
    totals = totals_of(
        {
            (A, 0, 1): 1,
            (A, 1 << 24, 1): 2,
            (packed("192.0.2.1", 30080), 0, 1): 4,
            (packed("10.96.0.2"), 0, 1): 8,
        }
    )
    assert totals == {FIRST: 7, EndpointName(SHOP, endpoint(1)): 8}


def test_elements_of_another_protocol_or_program_are_not_counted() -> None:
    connections = Connections(by_endpoint=True)
    connections.take_endpoints(Family.IPV4, UDP, [(slot_key(A, 0), endpoint(1), 3)], OWNERS)
    foreign = slot_key(packed("10.96.9.9"), 0)
    connections.take_endpoints(Family.IPV4, TCP, [(foreign, endpoint(1), 3)], OWNERS)
    connections.retain(frozenset(OWNERS.values()))
    assert connections.endpoints == {EndpointName(SHOP, endpoint(1)): 3}
    assert connections.services == {WEB: 0, SHOP: 0}


def test_totals_of_a_table_that_stops_counting_are_forgotten() -> None:
    connections = Connections(by_endpoint=True)
    other, reading = pack_socket(bytes(16), 8080), [(slot_key(A, 0), endpoint(1), 5)]
    owners = {**OWNERS, (TCP, pack_socket(bytes(16), 80)): WEB}
    v6 = [(slot_key(pack_socket(bytes(16), 80), 0), other, 4)]
    connections.take_endpoints(Family.IPV4, TCP, reading, owners)
    connections.take_endpoints(Family.IPV6, TCP, v6, owners)
    changes = connections.changes
    connections.forget_endpoints(Family.IPV4)
    assert connections.endpoints == {EndpointName(WEB, other): 4}
    assert connections.changes > changes
    connections.forget_endpoints(Family.IPV4)
    assert connections.changes == changes + 1
    connections.take_endpoints(Family.IPV4, TCP, reading, owners)  # counted again, from 0
    assert connections.endpoints[FIRST] == 5


KEY = frontend_key(parse_address("10.96.0.1"), TCP, 80)
NODE_PORT = frontend_key(parse_address("192.0.2.1"), TCP, 30080)


def served(*readings: dict[tuple[bytes, str], int], scope: EndpointScope = EndpointScope.ALL) -> Connections:
    """Return the totals after readings of a verdict map, each {(key, chain): count}. All belong to WEB."""
    connections = Connections()
    for reading in readings:
        counted = [
            (key, Verdict(f"goto {chain}", str(WEB)), count) for (key, chain), count in reading.items()
        ]
        connections.take_frontends(Family.IPV4, scope, counted)
    connections.retain(frozenset(OWNERS.values()))
    return connections


def test_a_total_includes_all_frontends_and_rewritten_elements() -> None:
    connections = served(
        {(KEY, "lb-2"): 5, (NODE_PORT, "lb-2"): 2},
        {(KEY, "lb-3"): 4, (NODE_PORT, "lb-2"): 3},  # scaled up: the element was rewritten
        {(KEY, "sticky-3"): 1},
    )
    assert connections.services == {WEB: 5 + 2 + 4 + 1 + 1, SHOP: 0}


def test_refused_connections_are_not_served() -> None:
    assert served({(KEY, "lb-1"): 5}, {(KEY, "no-endpoints"): 2}, {(KEY, "lb-1"): 1}).services[WEB] == 6
    assert served({(KEY, "discard"): 3}, scope=EndpointScope.LOCAL).services[WEB] == 0
    assert served({(KEY, "outside-lb-1"): 3}, scope=EndpointScope.LOCAL).services[WEB] == 3


def test_the_total_of_a_removed_service_is_forgotten() -> None:
    connections = served({(KEY, "lb-1"): 5})
    connections.retain(frozenset({SHOP}))
    assert connections.services == {SHOP: 0}


def test_elements_that_incomplete_readings_lack_are_not_counted_twice() -> None:
    connections = Connections()
    for count, complete, total in (
        (5, True, 5),
        (None, False, 5),
        (7, True, 7),
        (None, False, 7),
        (8, False, 8),
    ):
        counted = [] if count is None else [(KEY, Verdict("goto lb-1", str(WEB)), count)]
        connections.take_frontends(Family.IPV4, EndpointScope.ALL, counted, complete)
        connections.retain(frozenset(OWNERS.values() if counted else {SHOP}), complete)
        assert connections.services[WEB] == total
    for reading in range(1, MAX_INCOMPLETE + 1):
        connections.take_frontends(Family.IPV4, EndpointScope.ALL, [], complete=False)
        connections.retain(frozenset({SHOP}), complete=False)
        assert (WEB in connections.services) is (reading < MAX_INCOMPLETE)
    connections.take_frontends(Family.IPV4, EndpointScope.ALL, [(KEY, Verdict("goto lb-1", str(WEB)), 9)])
    connections.retain(frozenset(OWNERS.values()))
    assert connections.services[WEB] == 9  # after so many readings without it, it counts as a new element


def test_comments_of_frontends_name_the_owners() -> None:
    frontends = [
        frontend("10.96.0.1:80", ["10.244.0.1:1"]),
        frontend("10.96.0.1:53", protocol=UDP, owner="a/dns"),
    ]
    services = compile_frontends(frontends, Family.IPV4).specs
    elements = [(side.key, spec.verdict(side.scope, 1)) for side, spec in services.items()]
    assert owners_of([*elements, (elements[0][0], Verdict("goto lb-1", "a foreign comment"))]) == {
        (TCP, packed("10.96.0.1", 80)): ServicePortName(NamespacedName("default", "web"), ""),
        (UDP, packed("10.96.0.1", 53)): ServicePortName(NamespacedName("a", "dns"), ""),
    }
    named = [(elements[0][0], Verdict("goto lb-1", str(WEB)))]
    assert list(owners_of(named).values()) == [WEB]


def test_service_ports_without_a_local_endpoint_are_counted_by_policy() -> None:
    def without_local(*verdicts: Verdict) -> int:
        keys = (frontend_key(bytes([10, 96, 0, number]), TCP, 80) for number in range(9))
        return members_of(list(zip(keys, verdicts, strict=False))).without_local

    discarded, served, refused = (
        Verdict(f"goto {chain}", "a/b") for chain in ("discard", "lb-1", "no-endpoints")
    )
    assert without_local(discarded, discarded, served) == 1  # not once per frontend
    assert without_local(served, refused) == 0
    assert without_local(discarded, Verdict("goto discard", "a/c")) == 2


def test_members_are_summarized_again_when_an_element_changed() -> None:
    connections = Connections()
    for chain, count, discarding in (("lb-4", 1, 0), ("lb-4", 7, 0), ("discard", 7, 1)):
        elements: list[Counted] = [(KEY, Verdict(f"goto {chain}", str(WEB)), count)]
        found = connections.take_frontends(Family.IPV4, EndpointScope.ALL, elements)
        assert tuple(found) == (1, discarding, {WEB})


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 9)), max_size=3)))
def test_totals_never_decrease(readings: list[list[tuple[int, int, int]]]) -> None:
    connections = Connections(by_endpoint=True)
    before = 0
    for reading in readings:
        counted = {slot_key(A, slot): (endpoint(e), count) for slot, e, count in reading}
        elements = [(key, value, count) for key, (value, count) in counted.items()]
        connections.take_endpoints(Family.IPV4, TCP, elements, OWNERS)
        connections.retain(frozenset(OWNERS.values()))
        assert sum(connections.endpoints.values()) >= before
        before = sum(connections.endpoints.values())


@given(
    st.lists(st.dictionaries(st.integers(0, 3), st.tuples(st.integers(1, 2), st.integers(0, 9)))),
    st.randoms(use_true_random=False),
)
def test_the_order_of_elements_does_not_matter(
    readings: list[dict[int, tuple[int, int]]], random: Random
) -> None:
    """Readings with the same elements in the same order are compared in another way, which is faster."""
    sorted_, shuffled = Connections(by_endpoint=True), Connections(by_endpoint=True)
    for reading in readings:
        elements: list[Counted] = [
            (slot_key(A, slot), endpoint(e), count) for slot, (e, count) in sorted(reading.items())
        ]
        sorted_.take_endpoints(Family.IPV4, TCP, list(elements), OWNERS)
        random.shuffle(elements)
        shuffled.take_endpoints(Family.IPV4, TCP, elements, OWNERS)
        assert sorted_.endpoints == shuffled.endpoints


def test_elements_that_are_not_frontends_have_no_owner() -> None:
    """Other programs may add the element `*`, or one of a protocol that services cannot have."""
    icmp = KEY[:-8] + bytes([1, 0, 0, 0]) + KEY[-4:]
    assert owners_of([(b"", Verdict("goto c", "a/b")), (icmp, Verdict("goto c", "a/b"))]) == {}

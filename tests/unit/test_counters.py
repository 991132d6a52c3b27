"""Totals of connections, from counters that restart when elements are written anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kproxy.model import Family, NamespacedName, Protocol, ServicePortName, parse_address
from kproxy.nft.elements import Verdict
from kproxy.observe.core.counters import PATIENCE, Connections, EndpointName, Owners, no_local, owners_of
from kproxy.table.compile import compile_frontends
from kproxy.table.keys import PackedSocket, frontend_key, frontend_socket, pack_socket
from kproxy.table.layout import EndpointScope
from tests.keys import slot_key
from tests.unit.make import frontend

WEB = ServicePortName(NamespacedName("default", "web"), "http")
SHOP = ServicePortName(NamespacedName("default", "shop"), "")
TCP, UDP = Protocol.TCP, Protocol.UDP


def prefix(address: str, port: int = 80, protocol: Protocol = TCP) -> PackedSocket:
    return frontend_socket(frontend_key(parse_address(address), protocol, port))


def endpoint(number: int) -> PackedSocket:
    return pack_socket(bytes([10, 244, 0, number]), 8080)


OWNERS: Owners = {
    (TCP, prefix("10.96.0.1")): WEB,
    (TCP, prefix("192.0.2.1", 30080)): WEB,
    (TCP, prefix("10.96.0.2")): SHOP,
    (UDP, prefix("10.96.0.1")): SHOP,
}
A = prefix("10.96.0.1")


def taken(*readings: dict[tuple[PackedSocket, int, int], int]) -> dict[EndpointName, int]:
    """After these readings, each {(prefix, slot, endpoint): counted}."""
    connections = Connections(by_endpoint=True)
    for reading in readings:
        counted = [(slot_key(p, slot), endpoint(e), count) for (p, slot, e), count in reading.items()]
        connections.take_endpoints(Family.IPV4, TCP, counted, OWNERS)
    connections.keep(OWNERS)
    return connections.endpoints


FIRST = EndpointName(WEB, endpoint(1))


def test_a_counter_that_rises_adds_what_it_rose_by() -> None:
    assert taken({(A, 0, 1): 5}, {(A, 0, 1): 7}, {(A, 0, 1): 7}) == {FIRST: 7}


def test_what_there_was_before_the_first_reading_counts() -> None:
    assert taken({(A, 0, 1): 5}) == {FIRST: 5}


def test_an_element_that_was_written_anew_counts_from_zero() -> None:
    assert taken({(A, 0, 1): 5}, {(A, 0, 1): 2}) == {FIRST: 7}


def test_a_slot_with_another_endpoint_counts_from_zero() -> None:
    assert taken({(A, 0, 1): 5}, {(A, 0, 2): 9}) == {FIRST: 5, EndpointName(WEB, endpoint(2)): 9}


def test_an_element_that_went_and_came_counts_again() -> None:
    assert taken({(A, 0, 1): 5}, {}, {(A, 0, 1): 5}) == {FIRST: 10}


def test_all_frontends_and_slots_of_a_service_port_are_one_total() -> None:
    totals = taken(
        {
            (A, 0, 1): 1,
            (A, 1 << 24, 1): 2,
            (prefix("192.0.2.1", 30080), 0, 1): 4,
            (prefix("10.96.0.2"), 0, 1): 8,
        }
    )
    assert totals == {FIRST: 7, EndpointName(SHOP, endpoint(1)): 8}


def test_protocols_are_told_apart_and_strangers_are_nobodys() -> None:
    connections = Connections(by_endpoint=True)
    connections.take_endpoints(Family.IPV4, UDP, [(slot_key(A, 0), endpoint(1), 3)], OWNERS)
    stranger = slot_key(prefix("10.96.9.9"), 0)
    connections.take_endpoints(Family.IPV4, TCP, [(stranger, endpoint(1), 3)], OWNERS)
    connections.keep(OWNERS)
    assert connections.endpoints == {EndpointName(SHOP, endpoint(1)): 3}
    assert connections.services == connections.unserved == {WEB: 0, SHOP: 0}  # zero is said


KEY = frontend_key(parse_address("10.96.0.1"), TCP, 80)
NODE_PORT = frontend_key(parse_address("192.0.2.1"), TCP, 30080)


def served(*readings: dict[tuple[bytes, str], int], scope: EndpointScope = EndpointScope.ALL) -> Connections:
    """After these readings of a verdict map, each {(key, chain): counted}; all are of WEB."""
    connections = Connections()
    for reading in readings:
        counted = [
            (key, Verdict(f"goto {chain}", str(WEB)), count) for (key, chain), count in reading.items()
        ]
        connections.take_frontends(Family.IPV4, scope, counted)
    connections.keep(OWNERS)
    return connections


def test_frontends_of_a_service_port_are_one_total_whatever_becomes_of_them() -> None:
    connections = served(
        {(KEY, "lb-2"): 5, (NODE_PORT, "lb-2"): 2},
        {(KEY, "lb-3"): 4, (NODE_PORT, "lb-2"): 3},  # scaled up: its element was written anew
        {(KEY, "sticky-3"): 1},
    )
    assert connections.services == {WEB: 5 + 2 + 4 + 1 + 1, SHOP: 0}


def test_connections_that_meet_no_endpoint_are_told_apart() -> None:
    connections = served({(KEY, "lb-1"): 5}, {(KEY, "no-endpoints"): 2}, {(KEY, "lb-1"): 1})
    assert (connections.services[WEB], connections.unserved[WEB]) == (6, 2)
    assert served({(KEY, "discard"): 3}, scope=EndpointScope.LOCAL).unserved[WEB] == 3
    assert served({(KEY, "outside-lb-1"): 3}, scope=EndpointScope.LOCAL).services[WEB] == 3


def test_a_service_that_goes_is_forgotten() -> None:
    connections = served({(KEY, "lb-1"): 5})
    connections.keep({(TCP, prefix("10.96.0.2")): SHOP})
    assert connections.services == {SHOP: 0}


def test_what_a_disturbed_reading_lacks_is_not_counted_twice_and_not_kept_for_ever() -> None:
    connections = Connections()
    shop = {(TCP, prefix("10.96.0.2")): SHOP}
    for count, whole, total in (
        (5, True, 5),
        (None, False, 5),
        (7, True, 7),
        (None, False, 7),
        (8, False, 8),
    ):
        counted = [] if count is None else [(KEY, Verdict("goto lb-1", str(WEB)), count)]
        connections.take_frontends(Family.IPV4, EndpointScope.ALL, counted, whole)
        connections.keep(OWNERS if counted else shop, whole)
        assert connections.services[WEB] == total
    for reading in range(1, PATIENCE + 1):
        connections.take_frontends(Family.IPV4, EndpointScope.ALL, [], whole=False)
        connections.keep(shop, whole=False)
        assert (WEB in connections.services) is (reading < PATIENCE)
    connections.take_frontends(Family.IPV4, EndpointScope.ALL, [(KEY, Verdict("goto lb-1", str(WEB)), 9)])
    connections.keep(OWNERS)
    assert connections.services[WEB] == 9  # it was gone for so long that it is another one


def test_owners_are_what_the_comments_of_frontends_say() -> None:
    frontends = [
        frontend("10.96.0.1:80", ["10.244.0.1:1"]),
        frontend("10.96.0.1:53", protocol=UDP, owner="a/dns"),
    ]
    services = compile_frontends(frontends, Family.IPV4).specs
    elements = [(side.key, spec.verdict(side.scope, 1)) for side, spec in services.items()]
    assert owners_of([*elements, (elements[0][0], Verdict("goto lb-1", "somebody else's"))]) == {
        (TCP, prefix("10.96.0.1", 80)): ServicePortName(NamespacedName("default", "web"), ""),
        (UDP, prefix("10.96.0.1", 53)): ServicePortName(NamespacedName("a", "dns"), ""),
    }
    named = [(elements[0][0], Verdict("goto lb-1", str(WEB)))]
    assert list(owners_of(named).values()) == [WEB]


def test_service_ports_without_a_local_endpoint_are_counted_by_policy() -> None:
    gone, there, none = (Verdict(f"goto {chain}", "a/b") for chain in ("discard", "lb-1", "no-endpoints"))
    other = Verdict("goto discard", "a/c")
    assert no_local([gone, gone, there], [there, none]) == (1, 0)  # one service port, however many frontends
    assert no_local([there], [gone, other]) == (0, 2)


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 9)), max_size=3)))
def test_totals_never_fall(readings: list[list[tuple[int, int, int]]]) -> None:
    connections = Connections(by_endpoint=True)
    before = 0
    for reading in readings:
        counted = {slot_key(A, slot): (endpoint(e), count) for slot, e, count in reading}
        elements = [(key, value, count) for key, (value, count) in counted.items()]
        connections.take_endpoints(Family.IPV4, TCP, elements, OWNERS)
        connections.keep(OWNERS)
        assert sum(connections.endpoints.values()) >= before
        before = sum(connections.endpoints.values())


def test_who_is_no_frontend_has_no_owner() -> None:
    """Others may add elements for all other keys, or of a protocol that no service has."""
    icmp = KEY[:-8] + bytes([1, 0, 0, 0]) + KEY[-4:]
    assert owners_of([(b"", Verdict("goto c", "a/b")), (icmp, Verdict("goto c", "a/b"))]) == {}

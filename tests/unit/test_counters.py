"""Totals of connections, from counters that restart when elements are written anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kproxy.compile.elements import compile_frontends
from kproxy.daemon.counters import Connections, EndpointName, Owners, no_local, owners_of
from kproxy.model import Family, NamespacedName, Protocol, ServicePortName, parse_address
from kproxy.nft.elements import Verdict, endpoint_value, frontend_key, slot_key, slot_prefix
from tests.unit.make import frontend

WEB = ServicePortName(NamespacedName("default", "web"), "http")
SHOP = ServicePortName(NamespacedName("default", "shop"), "")
TCP, UDP = Protocol.TCP, Protocol.UDP


def prefix(address: str, port: int = 80, protocol: Protocol = TCP) -> bytes:
    return slot_prefix(frontend_key(parse_address(address), protocol, port))


def endpoint(number: int) -> bytes:
    return endpoint_value(bytes([10, 244, 0, number]), 8080)


OWNERS: Owners = {
    (TCP, prefix("10.96.0.1")): WEB,
    (TCP, prefix("192.0.2.1", 30080)): WEB,
    (TCP, prefix("10.96.0.2")): SHOP,
    (UDP, prefix("10.96.0.1")): SHOP,
}
A = prefix("10.96.0.1")


def taken(*readings: dict[tuple[bytes, int, int], int]) -> Connections:
    """After these readings, each {(prefix, slot, endpoint): counted}."""
    connections = Connections(by_endpoint=True)
    for reading in readings:
        counted = [(slot_key(p, slot), endpoint(e), count) for (p, slot, e), count in reading.items()]
        connections.take(Family.IPV4, TCP, counted, OWNERS)
    connections.keep(OWNERS)
    return connections


def test_a_counter_that_rises_adds_what_it_rose_by() -> None:
    assert taken({(A, 0, 1): 5}, {(A, 0, 1): 7}, {(A, 0, 1): 7}).services[WEB] == 7


def test_what_there_was_before_the_first_reading_counts() -> None:
    assert taken({(A, 0, 1): 5}).services[WEB] == 5


def test_an_element_that_was_written_anew_counts_from_zero() -> None:
    assert taken({(A, 0, 1): 5}, {(A, 0, 1): 2}).services[WEB] == 7


def test_a_slot_with_another_endpoint_counts_from_zero() -> None:
    connections = taken({(A, 0, 1): 5}, {(A, 0, 2): 9})
    assert connections.services[WEB] == 14
    assert connections.endpoints == {
        EndpointName(WEB, endpoint(1)): 5,
        EndpointName(WEB, endpoint(2)): 9,
    }


def test_an_element_that_went_and_came_counts_again() -> None:
    assert taken({(A, 0, 1): 5}, {}, {(A, 0, 1): 5}).services[WEB] == 10


def test_all_frontends_and_slots_of_a_service_port_are_one_total() -> None:
    connections = taken(
        {
            (A, 0, 1): 1,
            (A, 1 << 24, 1): 2,
            (prefix("192.0.2.1", 30080), 0, 1): 4,
            (prefix("10.96.0.2"), 0, 1): 8,
        }
    )
    assert connections.services == {WEB: 7, SHOP: 8}
    assert connections.endpoints == {EndpointName(WEB, endpoint(1)): 7, EndpointName(SHOP, endpoint(1)): 8}


def test_protocols_are_told_apart_and_strangers_are_nobodys() -> None:
    connections = Connections()
    connections.take(Family.IPV4, UDP, [(slot_key(A, 0), endpoint(1), 3)], OWNERS)
    connections.take(Family.IPV4, TCP, [(slot_key(prefix("10.96.9.9"), 0), endpoint(1), 3)], OWNERS)
    connections.keep(OWNERS)
    assert connections.services == {WEB: 0, SHOP: 3}
    assert connections.endpoints == {}  # not asked for


def test_a_service_that_goes_is_forgotten() -> None:
    connections = taken({(A, 0, 1): 5})
    connections.keep({(TCP, prefix("10.96.0.2")): SHOP})
    assert connections.services == {SHOP: 0}
    assert connections.endpoints == {}


def test_owners_are_what_the_comments_of_frontends_say() -> None:
    frontends = [
        frontend("10.96.0.1:80", ["10.244.0.1:1"]),
        frontend("10.96.0.1:53", protocol=UDP, owner="a/dns"),
    ]
    services = compile_frontends(frontends, Family.IPV4).targets
    elements = [(place.key, target.verdict(place.side, 1)) for place, target in services.items()]
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
        connections.take(Family.IPV4, TCP, [(k, v, n) for k, (v, n) in counted.items()], OWNERS)
        connections.keep(OWNERS)
        assert connections.services[WEB] >= before
        before = connections.services[WEB]
        assert sum(connections.endpoints.values()) == before

"""The zone changes with one Service at a time, and a large answer is truncated over UDP."""

from __future__ import annotations

from functools import cache

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kproxy.dns.core.respond import respond
from kproxy.dns.core.zone import Zone, key
from kproxy.model import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Origin,
    Protocol,
    parse_address,
)
from tests.dnszone.table import SERVERS, SERVICE_CIDRS, filled, inventory
from tests.unit.make import decoded, name

INVENTORY = inventory()
NAMES = sorted(INVENTORY.services)
PODS = sorted((pod.name.namespace, address) for pod in INVENTORY.pods for address in pod.addresses)


def empty() -> Zone:
    return Zone("cluster.local", SERVERS, SERVICE_CIDRS)


def content(zone: Zone) -> tuple[object, ...]:
    return zone.answers, zone.nodes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES))), st.lists(st.sets(st.sampled_from(PODS))))
def test_changes_in_any_order_give_what_a_new_zone_has(
    changes: list[tuple[bool, NamespacedName]], pods: list[set[tuple[str, bytes]]]
) -> None:
    zone, present = empty(), set[NamespacedName]()
    for there, service in changes:
        zone.update(
            service, INVENTORY.services[service] if there else None, INVENTORY.slices.get(service, ())
        )
        (present.add if there else present.discard)(service)
    for some in pods:
        zone.set_pods(frozenset(some))
    fresh = empty()
    for service in NAMES:
        if service in present:
            fresh.update(service, INVENTORY.services[service], INVENTORY.slices.get(service, ()))
    fresh.set_pods(frozenset(pods[-1] if pods else ()))
    assert content(zone) == content(fresh)


def test_nothing_remains_of_removed_services() -> None:
    zone = filled(empty(), INVENTORY)
    for service in NAMES:
        zone.update(service, None)
    zone.set_pods(frozenset())
    assert content(zone) == content(empty())


def test_each_change_has_its_own_serial_number() -> None:
    zone = empty()
    serials = [zone.serial]
    for service in NAMES[:3]:
        zone.update(service, INVENTORY.services[service])
        serials.append(zone.serial)
    assert len(set(serials)) == 4


# --- a headless Service with 5,000 endpoints, in 50 slices ---

HEADLESS = decoded("kind: Service\napiVersion: v1\nmetadata: {name: big}\nspec: {clusterIP: None}")
BIG = HEADLESS.state.services[name("big")]
PORTS = (EndpointPort("http", Protocol.TCP, 80),)


def slices(width: str, without: int = -1) -> list[EndpointSlice]:
    family = Family.IPV4 if width == "10.1.{}.{}" else Family.IPV6
    return [
        EndpointSlice(
            name("big"),
            Origin("", ""),
            f"big-{high}",
            family,
            PORTS,
            tuple(
                Endpoint(parse_address(width.format(high, low)), ready=100 * high + low != without)
                for low in range(100)
            ),
        )
        for high in range(50)
    ]


SOME = st.lists(
    st.builds(
        EndpointSlice,
        st.just(name("big")),
        st.just(Origin("", "")),
        st.sampled_from(["big-0", "big-1"]),
        st.just(Family.IPV4),
        st.sampled_from([PORTS, (), (*PORTS, EndpointPort("dns", Protocol.UDP, 53))]),
        st.lists(
            st.builds(
                Endpoint,
                st.integers(0, 20).map(lambda low: parse_address(f"10.1.0.{low}")),
                ready=st.booleans(),
                hostname=st.sampled_from(["", "", "db-0", "db-1", "not.a.label"]),
            ),
            max_size=12,
        ).map(tuple),
    ),
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(SOME, min_size=1, max_size=5))
def test_endpoints_in_any_slices_give_what_a_new_zone_has(states: list[list[EndpointSlice]]) -> None:
    zone = empty()
    for state in states:
        zone.update(name("big"), BIG, state)
        fresh = empty()
        fresh.update(name("big"), BIG, reversed(state))
        assert content(zone) == content(fresh)
        expected = {each.address for slice_ in state for each in slice_.endpoints if each.ready}
        assert addresses(zone) == expected


def test_a_change_of_one_endpoint_leaves_the_answers_of_others_as_they_are() -> None:
    zone = empty()
    zone.update(name("big"), BIG, slices("10.1.{}.{}"))
    before = dict(zone.answers)
    zone.update(name("big"), BIG, slices("10.1.{}.{}", without=42))
    assert len(before) == len(zone.answers) + 2  # the name of the endpoint, and its reverse name
    made = [at for at, answer in zone.answers.items() if answer is not before[at]]
    assert len(made) == 2, made  # those of the Service and of its port


@cache
def big(width: str, without: int = -1) -> Zone:
    zone = empty()
    zone.update(name("big"), BIG, slices(width, without))
    return zone


def ask(zone: Zone, kind: str, edns: int = -1, over_tcp: bool = False, ident: int = 0) -> dns.message.Message:
    query = dns.message.make_query("big.default.svc.cluster.local", kind, use_edns=edns, payload=4096)
    query.id = ident
    reply = respond(zone, query.to_wire(), over_tcp)
    assert isinstance(reply, bytes)
    assert len(reply) <= (65535 if over_tcp else 512 if edns < 0 else 1232)
    return dns.message.from_wire(reply)


def data(reply: dns.message.Message) -> list[str]:
    return [str(each) for rrset in reply.answer for each in rrset]


@pytest.mark.parametrize(
    ("width", "kind", "plain", "edns", "tcp"),
    [("10.1.{}.{}", "A", 29, 73, 4093), ("fd00::{}:{}", "AAAA", 16, 41, 2338)],
)
def test_a_large_answer_is_truncated(width: str, kind: str, plain: int, edns: int, tcp: int) -> None:
    zone = big(width)
    for size, over_tcp, expected in ((-1, False, plain), (0, False, edns), (-1, True, tcp)):
        reply = ask(zone, kind, size, over_tcp)
        assert len(set(data(reply))) == expected
        assert reply.flags & dns.flags.TC


def test_the_whole_answer_follows_over_tcp() -> None:
    zone = empty()
    zone.update(name("big"), BIG, slices("10.1.{}.{}")[:40])
    reply = ask(zone, "A", over_tcp=True)
    assert len(set(data(reply))) == 4000
    assert not reply.flags & dns.flags.TC


def test_all_addresses_occur_in_truncated_answers() -> None:
    zone = big("10.1.{}.{}")
    seen = {address for ident in range(0, 5000, 28) for address in data(ask(zone, "A", ident=ident))}
    assert len(seen) == 5000


def test_answers_rotate() -> None:
    zone = empty()
    zone.update(name("big"), BIG, slices("10.1.{}.{}")[:1])
    firsts = {data(ask(zone, "A", ident=ident))[0] for ident in range(100)}
    assert len(firsts) == 100


def test_an_endpoint_that_is_not_ready_leaves_the_answer() -> None:
    before, after = addresses(big("10.1.{}.{}")), addresses(big("10.1.{}.{}", without=42))
    assert before - after == {parse_address("10.1.0.42")}
    assert len(after) == 4999


def addresses(zone: Zone) -> set[bytes]:
    """The addresses of the only answer for them."""
    name_of_service = b"\3big\7default\3svc\7cluster\5local\0"
    found = zone.answers.get(key(name_of_service, 1))
    return {each[-4:] for each in found.records} if found else set()

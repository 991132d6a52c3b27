"""What clients get that ask for something else, or too often."""

from __future__ import annotations

import dns.message
import dns.rcode
import pytest

from kproxy.dns.resolver import Resolver
from kproxy.limits import DNS_ERRORS, DNS_NETWORKS
from tests.dnszone.table import world

ELSEWHERE = dns.message.make_query("example.org", "A").to_wire()
WEB = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()


class Clock:
    now = 100.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(clock: Clock) -> Resolver:
    found = Resolver(world(), clock)
    found.ready = True
    return found


def code(reply: object) -> str:
    assert reply is None or isinstance(reply, bytes)
    return "none" if reply is None else dns.rcode.to_text(dns.message.from_wire(reply).rcode())


def test_before_the_first_round_no_name_is_known(resolver: Resolver) -> None:
    resolver.ready = False
    assert code(resolver.answer(WEB, "192.0.2.1", False)) == "SERVFAIL"
    assert resolver.answer(b"\0" * 11, "192.0.2.1", False) is None


@pytest.mark.parametrize(
    ("host", "neighbour", "stranger"),
    [
        ("192.0.2.1", "192.0.2.77", "192.0.3.1"),
        ("2001:db8::1", "2001:db8:0:ff::7", "2001:db8:0:100::1"),
        ("fe80::1%eth0", "fe80::2", "fd00::1"),
    ],
)
def test_errors_are_limited_for_each_network(
    resolver: Resolver, clock: Clock, host: str, neighbour: str, stranger: str
) -> None:
    for number in range(DNS_ERRORS):
        assert code(resolver.answer(ELSEWHERE, neighbour if number % 2 else host, False)) == "REFUSED"
    assert resolver.answer(ELSEWHERE, host, False) is None
    assert resolver.answer(b"\0" * 12, neighbour, False) is None
    assert code(resolver.answer(ELSEWHERE, stranger, False)) == "REFUSED"
    assert code(resolver.answer(WEB, host, False)) == "NOERROR"
    assert code(resolver.answer(ELSEWHERE, host, True)) == "REFUSED"
    clock.now += 1
    assert code(resolver.answer(ELSEWHERE, host, False)) == "REFUSED"
    assert resolver.dropped == 2


def test_many_networks_share_a_limit(resolver: Resolver) -> None:
    replies = [
        resolver.answer(ELSEWHERE, f"10.{number >> 8}.{number & 255}.1", False)
        for number in range(DNS_NETWORKS + 2 * DNS_ERRORS)
    ]
    assert sum(reply is not None for reply in replies) == DNS_NETWORKS + DNS_ERRORS


def test_messages_are_counted(resolver: Resolver) -> None:
    resolver.answer(WEB, "192.0.2.1", False)
    resolver.answer(WEB, "fd00::1", True)
    resolver.answer(ELSEWHERE, "fd00::1", False)
    assert resolver.requests == {("udp", "1"): 1, ("tcp", "2"): 1, ("udp", "2"): 1}
    assert resolver.responses == {0: 2, 5: 1}

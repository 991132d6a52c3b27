"""What kproxy reads in rtnetlink's messages, and what of it becomes an address of the node."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from msgspec.structs import replace

from kproxy.kernel import host
from kproxy.kernel.host import ADDRESS_MARK, all_addresses, primary_addresses
from kproxy.kernel.netlink.core.codec import attribute
from kproxy.kernel.netlink.core.route import (
    DefaultRoute,
    HostAddress,
    list_request,
    read_address,
    read_default_route,
)
from kproxy.model import parse_address

IP, IP6 = parse_address("192.0.2.1"), parse_address("2001:db8::1")
PEER = parse_address("192.0.2.9")
INET, INET6 = socket.AF_INET, socket.AF_INET6


def number(value: int) -> bytes:
    return struct.pack("=I", value)


def hop(interface: int) -> bytes:
    return struct.pack("=HBBi", 8, 0, 0, interface)


ADDRESSES = {
    "IPv4": ({1: IP, 2: IP}, HostAddress(INET, IP, 3, 0, 0, prefix=24)),
    "IPv4 with a peer": ({1: PEER, 2: IP}, HostAddress(INET, IP, 3, 0, 0, prefix=24)),
    "IPv6, marked": ({1: IP6, 11: b"\x6b"}, HostAddress(INET6, IP6, 3, 0, ADDRESS_MARK, prefix=24)),
    "without an address": ({3: b"eth0\0"}, None),
}
STABLE = {
    "permanent": (IP6, 64, 0x80, True),
    "temporary": (IP6, 64, 0x01, False),
    "deprecated": (IP6, 64, 0xA0, False),
    "duplicate": (IP6, 64, 0x88, False),
    "not yet checked for duplicates": (IP6, 64, 0xC0, True),
    "a /128": (IP6, 128, 0x80, False),
    "a /32": (IP, 32, 0x80, False),
    "the second of an IPv4 network": (IP, 24, 0x81, False),
}


@pytest.mark.parametrize(("address", "prefix", "flags", "stable"), STABLE.values(), ids=STABLE)
def test_a_stable_address(address: bytes, prefix: int, flags: int, stable: bool) -> None:
    header = struct.pack("=BBBBI", INET if len(address) == 4 else INET6, prefix, flags, 0, 3)
    found = read_address(memoryview(header + attribute(1, address)))
    assert found is not None
    assert found.stable is stable


@pytest.mark.parametrize(("contents", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address(contents: dict[int, bytes], expected: HostAddress | None) -> None:
    packed = b"".join(attribute(kind, data) for kind, data in contents.items())
    family = expected.family if expected else INET
    assert read_address(memoryview(struct.pack("=BBBBI", family, 24, 0, 0, 3) + packed)) == expected


ROUTES = {
    "a gateway": ({4: number(3), 5: PEER, 6: number(100)}, DefaultRoute(INET, None, 3, 100, (PEER,))),
    "a source": ({4: number(3), 7: IP}, DefaultRoute(INET, IP, 3, 0)),
    "several hops": ({9: hop(5) + hop(3)}, DefaultRoute(INET, None, 5, 0)),
    "no interface": ({6: number(1)}, DefaultRoute(INET, None, None, 1)),
    "a destination": ({1: PEER, 4: number(3)}, None),
}


@pytest.mark.parametrize(("contents", "expected"), ROUTES.values(), ids=ROUTES)
def test_a_default_route(contents: dict[int, bytes], expected: DefaultRoute | None) -> None:
    packed = b"".join(attribute(kind, data) for kind, data in contents.items())
    header = struct.pack("=BBBBBBBBI", INET, 0, 0, 0, 254, 3, 0, 1, 0)
    assert read_default_route(memoryview(header + packed)) == expected


KINDS = {
    "of the main table": (254, 1, True, True),
    "of another table": (100, 1, True, False),
    "of a table with a large number": (252, 1, True, False),
    "unreachable": (254, 7, False, True),
    "to this host, for a transparent proxy": (100, 2, False, False),
}


@pytest.mark.parametrize(("table", "kind", "forwards", "main"), KINDS.values(), ids=KINDS)
def test_what_a_default_route_is_for(table: int, kind: int, forwards: bool, main: bool) -> None:
    header = struct.pack("=BBBBBBBBI", INET, 0, 0, 0, table, 3, 0, kind, 0)
    found = read_default_route(memoryview(header + attribute(4, number(3))))
    assert found == DefaultRoute(INET, None, 3, 0, (), forwards, main)


def test_a_request() -> None:
    length, kind, flags, _, port, family = struct.unpack("=IHHIIB3x", list_request(26, INET6))
    assert (length, kind, flags, port, family) == (17, 26, 0x301, 0, INET6)


A, B, C = (parse_address(f"192.0.2.{number}") for number in (1, 2, 3))
NEW6 = parse_address("2001:db8::9")
LOOPBACK = 1


def on(address: bytes, interface: int, stable: bool = True) -> HostAddress:
    return HostAddress(INET if len(address) == 4 else INET6, address, interface, 0, 0, stable)


def via(
    interface: int,
    priority: int = 0,
    source: bytes | None = None,
    forwards: bool = True,
    main: bool = True,
) -> DefaultRoute:
    return DefaultRoute(INET, source, interface, priority, (), forwards, main)


NODES = {
    "the preferred source": ([(A, 2)], [DefaultRoute(INET, C, 2, 0)], (C,)),
    "an address of the uplink": ([(A, 2), (B, 3)], [DefaultRoute(INET, None, 3, 0)], (B,)),
    "without a route, the first address": ([(A, 2), (B, 3)], [], (A,)),
    "one for each family": ([(A, 2), (IP6, 2), (B, 2)], [], (A, IP6)),
    "the route of the other family": ([(A, 2), (B, 3)], [DefaultRoute(INET6, None, 3, 0)], (A,)),
    "IPv6: the first one, which the kernel lists last": ([(NEW6, 2), (IP6, 2)], [], (IP6,)),
    "IPv6: of the first interface": ([(IP6, 2), (NEW6, 3)], [], (IP6,)),
    "a stable one": ([(A, 2, False), (IP6, 2), (B, 2), (NEW6, 2, False)], [], (B, IP6)),
    "one that is not stable, if it is the only one": ([(A, 2, False)], [], (A,)),
    "one of the uplink, though not stable": ([(A, 2), (B, 3, False)], [DefaultRoute(INET, None, 3, 0)], (B,)),
    "the preferred one of two routes": ([(A, 2), (B, 3)], [via(2, 200, A), via(3, 100, B)], (B,)),
    "not the route of a tunnel": ([(A, 2), (B, 3)], [via(2, 0, A, main=False), via(3, 100)], (B,)),
    "the route of another table, if there are no others": ([(A, 2), (B, 3)], [via(3, main=False)], (B,)),
    "not a route that drops packets": ([(A, 2), (B, 3)], [via(2, 0, A, forwards=False), via(3, 100)], (B,)),
    "loopback's is none": ([(A, LOOPBACK), (B, 2)], [], (B,)),
    "none": ([], [DefaultRoute(INET, None, 2, 0)], ()),
}


@pytest.mark.parametrize(("own", "routes", "expected"), NODES.values(), ids=NODES)
def test_the_primary_addresses(
    own: list[tuple[Any, ...]],
    routes: list[DefaultRoute],
    expected: tuple[bytes, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(LOOPBACK, "lo"), (2, "eth0"), (3, "eth1")])
    monkeypatch.setattr(host, "host_addresses", lambda: [on(*one) for one in own])
    monkeypatch.setattr(host, "default_routes", lambda: routes)
    assert primary_addresses() == expected


def test_all_addresses_are_global_and_not_kproxys(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [on(A, 2), replace(on(B, 2), scope=253), replace(on(C, 2), protocol=ADDRESS_MARK)]
    monkeypatch.setattr(host, "host_addresses", lambda: every)
    assert all_addresses() == (A,)

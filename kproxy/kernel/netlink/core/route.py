"""Decodes addresses and default routes in rtnetlink's messages (linux/rtnetlink.h, linux/if_addr.h).

A message consists of a structure (struct ifaddrmsg, struct rtmsg) and attributes. This module only lists.
pyroute2 changes addresses. It is not used here, because its import takes longer than the rest of a small
command.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from kproxy.kernel.netlink.core.codec import Message, attribute, attributes, nested, padded, read_string
from kproxy.kernel.netlink.core.constants import (
    AF_BRIDGE,
    IFA_ADDRESS,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_TEMPORARY,
    IFA_LOCAL,
    IFA_PROTO,
    IFF_PROMISC,
    IFLA_BRPORT_MODE,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_PROTINFO,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_HDRLEN,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_VIA,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTM_SETLINK,
    RTN_LOCAL,
    RTN_UNICAST,
)
from kproxy.model import Address, Protocol

_IFADDRMSG = struct.Struct("=BBBBI")
_IFINFOMSG = struct.Struct("=BxHiII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTNEXTHOP = struct.Struct("=HBBi")
_UNSTABLE = IFA_F_TEMPORARY | IFA_F_DEPRECATED | IFA_F_DADFAILED


class HostAddress(Struct, frozen=True):
    """An address on an interface of this host."""

    family: int
    """AF_*."""
    address: Address
    interface: int
    """The index of the interface."""
    scope: int
    """RT_SCOPE_*; 0 is global."""
    protocol: int
    """IFA_PROTO, which identifies the program that added the address; 0 if unset."""
    stable: bool = True
    """False for a temporary or deprecated address, one that failed duplicate address detection, a secondary
    IPv4 address, and an address alone, without its network (/32, /128)."""
    prefix: int = 0
    """The length of the prefix of its network."""


class Link(Struct, frozen=True):
    """An interface of this host."""

    number: int
    """Its index in the kernel."""
    name: str
    kind: str
    """The kind of a virtual interface: `veth`, `bridge`; "" for others."""
    promiscuous: bool
    master: int = 0
    """The index of the bridge or bond to which it belongs; 0 if there is none."""
    hairpin: bool = True
    """Whether a bridge sends a frame back through this port, if the way of the frame leads there."""


class ListeningSocket(Struct, frozen=True):
    """A socket that waits for connections or packets."""

    protocol: Protocol
    address: Address
    """All zeros for every address."""
    port: int


class DefaultRoute(Struct, frozen=True):
    """A default route of any table."""

    family: int
    """AF_*."""
    source: Address | None
    """The preferred source address."""
    interface: int | None
    """The index of the interface. If there are several next hops, that of the first."""
    priority: int
    """The route with the lowest one is preferred."""
    gateways: tuple[Address, ...] = ()
    """The gateways of all next hops."""
    forwards: bool = True
    """False for a route that refuses or drops packets, or delivers them to this host."""
    main: bool = True
    """Whether it is in the main table. Routes of others apply only to packets that a rule selects."""


def list_request(kind: int, family: int) -> bytes:
    """Return a request for a list. `kind` is RTM_GET*, and `family` AF_* (0: all).

    For all kinds, the kernel accepts a struct rtgenmsg, which contains only the family.
    """
    length = NLMSG_HDRLEN + 1
    return struct.pack("=IHHIIB3x", length, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, family)


def hairpin_request(interface: int) -> bytes:
    """Return a request that turns hairpin on for a port of a bridge. The kernel acknowledges it."""
    mode = nested(IFLA_PROTINFO, attribute(IFLA_BRPORT_MODE, b"\1"))
    body = _IFINFOMSG.pack(AF_BRIDGE, 0, interface, 0, 0) + mode
    return (
        struct.pack("=IHHII", NLMSG_HDRLEN + len(body), RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body
    )


def lookup_request(family: int, address: Address) -> bytes:
    """Return a request for the route that the kernel would take to an address. `family` is AF_*."""
    body = _RTMSG.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, address)
    return struct.pack("=IHHII", NLMSG_HDRLEN + len(body), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + body


def leads_here(reply: Message) -> bool:
    """Whether the answer to a `lookup_request` is a route to this host itself. False for an error."""
    return reply.kind == RTM_NEWROUTE and _route_type(reply.content) == RTN_LOCAL


def _route_type(content: memoryview) -> int:
    *_, kind, _ = _RTMSG.unpack_from(content)
    return int(kind)


def read_address(content: memoryview) -> HostAddress | None:
    """Decode an RTM_NEWADDR message. Returns None if it has no address."""
    family, prefix_length, flags, scope, interface = _IFADDRMSG.unpack_from(content)
    found = dict(attributes(content[_IFADDRMSG.size :]))
    address = found.get(IFA_LOCAL, found.get(IFA_ADDRESS))
    mark = found.get(IFA_PROTO, b"\0")[0]
    if address is None:
        return None
    stable = not flags & _UNSTABLE and prefix_length < 8 * len(address)
    return HostAddress(family, bytes(address), interface, scope, mark, stable, prefix_length)


def read_link(content: memoryview) -> Link:
    """Decode an RTM_NEWLINK message."""
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(content)
    found = dict(attributes(content[_IFINFOMSG.size :]))
    info = dict(attributes(found.get(IFLA_LINKINFO, memoryview(b""))))
    port = dict(attributes(info.get(IFLA_INFO_SLAVE_DATA, memoryview(b""))))
    hairpin = port.get(IFLA_BRPORT_MODE, b"\1") if IFLA_INFO_SLAVE_DATA in info else b"\1"
    return Link(
        index,
        read_string(found[IFLA_IFNAME]),
        read_string(info[IFLA_INFO_KIND]) if IFLA_INFO_KIND in info else "",
        bool(flags & IFF_PROMISC),
        _u32(found[IFLA_MASTER]) if IFLA_MASTER in found else 0,
        bool(hairpin[0]),
    )


def read_default_route(content: memoryview) -> DefaultRoute | None:
    """Decode an RTM_NEWROUTE message. Returns None if it is not a default route."""
    family, _, _, _, table, *_ = _RTMSG.unpack_from(content)
    found = dict(attributes(content[_RTMSG.size :]))
    if RTA_DST in found:
        return None
    source, priority = found.get(RTA_PREFSRC), found.get(RTA_PRIORITY)
    return DefaultRoute(
        family,
        None if source is None else bytes(source),
        next(_interfaces(found), None),
        0 if priority is None else _u32(priority),
        tuple(_gateways(found)),
        _route_type(content) == RTN_UNICAST,
        table == RT_TABLE_MAIN,
    )


def uplink_routes(routes: Iterable[DefaultRoute], family: int) -> list[DefaultRoute]:
    """Return the default routes that lead other hosts' packets out of this one, the preferred one first.

    Only if the main table has none, routes of other tables count. Programs put some there for packets of
    their own: a tunnel, a transparent proxy, a second provider.
    """
    found = [each for each in routes if each.family == family and each.forwards and each.interface]
    return sorted([each for each in found if each.main] or found, key=lambda each: each.priority)


def _interfaces(found: Mapping[int, memoryview]) -> Iterator[int]:
    if RTA_OIF in found:
        yield _u32(found[RTA_OIF])
    if RTA_MULTIPATH in found:
        _, _, _, interface = _RTNEXTHOP.unpack_from(found[RTA_MULTIPATH])
        yield interface


def _gateways(found: Mapping[int, memoryview]) -> Iterator[Address]:
    if RTA_GATEWAY in found:
        yield bytes(found[RTA_GATEWAY])
    if RTA_VIA in found:  # of another family than the route's: struct rtvia, whose first field is the family
        yield bytes(found[RTA_VIA][2:])
    hops = found.get(RTA_MULTIPATH, memoryview(b""))
    while len(hops) >= _RTNEXTHOP.size:
        length = max(_RTNEXTHOP.unpack_from(hops)[0], _RTNEXTHOP.size)
        yield from _gateways(dict(attributes(hops[_RTNEXTHOP.size : length])))
        hops = hops[padded(length) :]


def _u32(data: memoryview) -> int:
    return int.from_bytes(data, sys.byteorder)

"""Load-balancer addresses on this node's uplink: put there, announced, and taken back.

An address of ours is a /32 or /128 on the interface that leads to the network. The kernel then
answers ARP, neighbour solicitations and ping for it by itself. What is ours is marked in the kernel
(IFA_PROTO, 5.18 and later), so no file has to remember it, and what a killed process left is known
to the next one. An address that somebody else configured is never touched.

No connection of the node's own may start from such an address, since it can be elsewhere a moment
later. So the IPv4 ones have scope host: the kernel takes no source of a scope that is narrower than
the route's. With scope link, one was chosen where the default route has no gateway, and with scope
global where it came first (6.18). The IPv6 ones are deprecated, which does the same. They are usable
at once, without duplicate address detection: the owner is decided elsewhere, and the probe would
meet a node that has not yet let go.

Announcing is what makes neighbours that know the address learn its new place: a gratuitous ARP,
in both of its forms since there are hosts that take only one, and an unsolicited neighbour
advertisement that overrides. Linux counts a reply as gratuitous only if its target is its sender.
pyroute2 takes a third of a sync's time to import, so it is imported where it is used.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Set
from functools import partial
from typing import Any, NamedTuple

from kproxy.kernel.host import ADDRESS_MARK, kernel_since, routing
from kproxy.kernel.netlink.core.constants import IFA_F_NODAD, IFA_F_NOPREFIXROUTE, RT_SCOPE_HOST
from kproxy.model import Address, AddressChange, Family, family_of, format_address, parse_address
from kproxy.problems import HostError

INFINITY_LIFE_TIME = 0xFFFFFFFF  # net/addrconf.h
AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
# linux/if_arp.h, linux/if_ether.h
ARPHRD_ETHER = 1
ARPOP_REQUEST, ARPOP_REPLY = 1, 2
ETH_P_IP, ETH_P_ARP = 0x0800, 0x0806
BROADCAST, UNKNOWN = b"\xff" * 6, b"\0" * 6
"""Hardware addresses."""
# net/ndisc.h; the flag is icmp6_override in linux/icmpv6.h
NDISC_NEIGHBOUR_ADVERTISEMENT = 136
ND_OPT_TARGET_LL_ADDR = 2
OVERRIDE = 0x20000000
ALL_NODES = "ff02::1"
ROUNDS, PAUSE = 3, 0.1
"""How often an address that is new is announced, and the seconds between: a frame may be lost."""


class AddressReport(NamedTuple):
    """What came of it."""

    changes: tuple[AddressChange, ...] = ()
    warnings: tuple[str, ...] = ()
    """What could not be done: sentences."""


class _Held(NamedTuple):
    """An address on one of this host's interfaces."""

    address: Address
    interface: int
    """Its number."""
    ours: bool


class Uplink:
    """The interface by which others reach this node, in the network namespace that the process is in."""

    def __init__(self, interface: str | None = None) -> None:
        """`interface`: its name; None: that of the default route, for each family."""
        self.interface = interface

    def withdraw(self, keep: Set[Address] = frozenset()) -> AddressReport:
        """Take back every address of ours but these, whatever the interface."""
        with routing() as ip:
            gone = [held for held in _held(ip) if held.ours and held.address not in keep]
            return _shown(map(partial(_remove, ip), gone))

    def show(self, addresses: Collection[Address]) -> AddressReport:
        """Put these addresses on the interface, and announce them: each one once, a new one several times.

        One that somebody else configured is left as it is, with a warning. Other addresses of ours
        stay. HostError if the interface does not exist or the kernel cannot mark addresses.
        """
        if not addresses:
            return AddressReport()
        if not kernel_since(5, 18):
            raise HostError("Load-balancer addresses need Linux 5.18, which can mark whose an address is.")
        with routing() as ip:
            held = list(_held(ip))
            done = _shown(result for address in _sorted(addresses) for result in self._put(ip, address, held))
        warnings = self.announce(addresses)
        new = [change.address for change in done.changes if change.added]
        for _ in range(ROUNDS - 1 if new else 0):
            time.sleep(PAUSE)
            self.announce(new)
        return done._replace(warnings=done.warnings + warnings)

    def announce(self, addresses: Collection[Address]) -> tuple[str, ...]:
        """Tell all neighbours, once, that those of `addresses` that are here and ours are here.

        Returns why it could not be done, in sentences.
        """
        with routing() as ip:
            mine = [held for held in _held(ip) if held.ours and held.address in addresses]
            names = {held.interface: socket.if_indextoname(held.interface) for held in mine}
        warnings = []
        for index, where in sorted(names.items()):
            try:
                _announce([held.address for held in mine if held.interface == index], index)
            except OSError as error:
                warnings.append(f"addresses on {where} cannot be announced: {error.strerror}")
        return tuple(warnings)

    def _put(self, ip: Any, address: Address, held: Collection[_Held]) -> Iterator[AddressChange | str]:
        text, places = format_address(address), [place for place in held if place.address == address]
        if any(not place.ours for place in places):
            yield f"{text} is configured here by somebody else: it is left as it is, and not announced"
            return
        index = self._index(ip, family_of(address))
        if index is None:
            yield f"{text} is put nowhere: no default route says where; --load-balancer-interface can"
            return
        if all(place.interface != index for place in places):
            yield _add(ip, address, index)
        yield from (_remove(ip, place) for place in places if place.interface != index)

    def _index(self, ip: Any, family: Family) -> int | None:
        """The number of the interface for one family; None without a default route."""
        if self.interface is None:
            return default_interface(ip, family)
        found = ip.link_lookup(ifname=self.interface)
        if not found:
            raise HostError(f"There is no interface {self.interface}.", "See --load-balancer-interface.")
        return int(found[0])


def default_interface(ip: Any, family: Family) -> int | None:
    """The number of the interface that the default route, of several the preferred one, leads to.

    Asked for the routes of a family that it does not have, the kernel lists all.
    """
    found = []
    for route in ip.get_default_routes(family=AF[family]):
        if route["family"] != AF[family]:
            continue
        hops = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()]
        index = route.get_attr("RTA_OIF") or (hops[0] if hops else None)
        if index:
            found.append((route.get_attr("RTA_PRIORITY") or 0, index))
    return min(found)[1] if found else None


def _sorted(addresses: Iterable[Address]) -> list[Address]:
    return sorted(addresses, key=lambda address: (len(address), address))


def _shown(results: Iterable[AddressChange | str]) -> AddressReport:
    results = list(results)
    return AddressReport(
        tuple(result for result in results if isinstance(result, AddressChange)),
        tuple(result for result in results if isinstance(result, str)),
    )


def _held(ip: Any) -> Iterator[_Held]:
    for message in ip.get_addr():
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        yield _Held(parse_address(text), message["index"], message.get_attr("IFA_PROTO") == ADDRESS_MARK)


def _add(ip: Any, address: Address, index: int) -> AddressChange | str:
    options = {"scope": RT_SCOPE_HOST}
    if family_of(address) is Family.IPV6:
        flags = IFA_F_NODAD | IFA_F_NOPREFIXROUTE
        options = {"flags": flags, "preferred_lft": 0, "valid_lft": INFINITY_LIFE_TIME}
    return _change(ip, "add", address, index, proto=ADDRESS_MARK, **options)


def _remove(ip: Any, held: _Held) -> AddressChange | str:
    return _change(ip, "del", held.address, held.interface)


def _change(ip: Any, what: str, address: Address, index: int, **options: int) -> AddressChange | str:
    from pyroute2.netlink.exceptions import NetlinkError

    text, interface = format_address(address), socket.if_indextoname(index)
    try:
        ip.addr(what, index=index, address=text, prefixlen=8 * len(address), **options)
    except NetlinkError as error:
        action = "put on" if what == "add" else "taken from"
        return f"{text} cannot be {action} {interface}: {os.strerror(error.code)}"
    return AddressChange(address, interface, what == "add")


def _announce(addresses: Collection[Address], index: int) -> None:
    """One round of frames; none where neighbours have no hardware addresses to learn."""
    # One socket for all of them: to close one of this kind takes the kernel 15 ms.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((socket.if_indextoname(index), 0))
        *_, kind, hardware = sender.getsockname()
        if kind != ARPHRD_ETHER:
            return
        for address in addresses:
            if family_of(address) is Family.IPV4:
                sender.send(arp_frame(ARPOP_REQUEST, hardware, address, UNKNOWN))
                sender.send(arp_frame(ARPOP_REPLY, hardware, address, hardware))
    for address in addresses:
        if family_of(address) is Family.IPV6:
            _advertise(address, hardware, index)


def _advertise(address: Address, hardware: bytes, index: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        sender.bind((format_address(address), 0))
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)  # else it is not believed
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sender.sendto(neighbour_advertisement(address, hardware), (ALL_NODES, 0, 0, index))


def arp_frame(operation: int, hardware: bytes, address: Address, target: bytes) -> bytes:
    """A broadcast Ethernet frame: `address`, sender and target of it, is at `hardware`."""
    head = struct.pack("!6s6sH", BROADCAST, hardware, ETH_P_ARP)
    fixed = struct.pack("!HHBBH", ARPHRD_ETHER, ETH_P_IP, 6, 4, operation)
    return head + fixed + hardware + address + target + address


def neighbour_advertisement(address: Address, hardware: bytes) -> bytes:
    """An ICMPv6 message; the kernel puts the checksum in."""
    option = struct.pack("!BB6s", ND_OPT_TARGET_LL_ADDR, 1, hardware)
    return struct.pack("!BBHI", NDISC_NEIGHBOUR_ADVERTISEMENT, 0, 0, OVERRIDE) + address + option

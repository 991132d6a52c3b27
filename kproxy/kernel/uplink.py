"""Load-balancer addresses on this node's uplink: add, announce and withdraw them.

kproxy adds a /32 or /128 to the interface that leads to the network. Then the kernel itself answers
ARP, neighbour solicitations and ping for it. kproxy marks its addresses in the kernel (IFA_PROTO,
Linux 5.18 and later). So it needs no file to recognize them, even after a process was killed. It
never changes an address that another program configured.

The node must not use such an address as a source, because it may move to another node at any time.
So the IPv4 addresses have scope host: the kernel does not select a source whose scope is narrower
than that of the route. (With scope link, Linux 6.18 selected one if the default route has no gateway,
and with scope global if it is the first address.) The IPv6 addresses are deprecated, with the same
effect. They are usable immediately, without duplicate address detection: the owner is decided
elsewhere, and the detection would find a node that has not withdrawn the address yet.

An announcement updates neighbours that know the address: a gratuitous ARP, both as request and as
reply, since some hosts accept only one of them, and an unsolicited neighbour advertisement with the
override flag. Linux treats a reply as gratuitous only if its target is its sender.

The import of pyroute2 takes a third of a sync's time, so it is imported only to change addresses.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Set
from typing import NamedTuple

from kproxy.kernel.host import ADDRESS_MARK, MARKS_SINCE, kernel_since
from kproxy.kernel.netlink.core.constants import IFA_F_NODAD, IFA_F_NOPREFIXROUTE, RT_SCOPE_HOST
from kproxy.kernel.netlink.core.route import HostAddress, uplink_routes
from kproxy.kernel.netlink.route import default_routes, host_addresses
from kproxy.model import Address, AddressChange, Family, family_of, format_address
from kproxy.problems import HostError

INFINITY_LIFE_TIME = 0xFFFFFFFF  # net/addrconf.h
AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
# linux/if_arp.h, linux/if_ether.h
ARPHRD_ETHER = 1
ARPOP_REQUEST, ARPOP_REPLY = 1, 2
ETH_P_IP, ETH_P_ARP = 0x0800, 0x0806
BROADCAST, UNKNOWN = b"\xff" * 6, b"\0" * 6
"""MAC addresses."""
# net/ndisc.h; the flag is icmp6_override in linux/icmpv6.h
NDISC_NEIGHBOUR_ADVERTISEMENT = 136
ND_OPT_TARGET_LL_ADDR = 2
OVERRIDE = 0x20000000
ALL_NODES = "ff02::1"
LOOPBACK = "lo"
ROUNDS, PAUSE = 3, 0.1
"""How often a new address is announced, and the seconds between. Frames may be lost."""


class AddressReport(NamedTuple):
    """The changes of addresses, and warnings about failed ones."""

    changes: tuple[AddressChange, ...] = ()
    warnings: tuple[str, ...] = ()
    """Messages."""


class Uplink:
    """The interface through which other hosts reach this node, in the process's network namespace."""

    def __init__(self, interface: str | None = None, preview: bool = False) -> None:
        """`interface` is its name; None for the interface of the default route of each family.

        With `preview`, nothing is changed or announced. Reports say what would be.
        """
        self.interface = interface
        self._preview = preview

    def withdraw(self, keep: Set[Address] = frozenset()) -> AddressReport:
        """Remove all addresses that kproxy added, on any interface, except for those in `keep`."""
        removed = [one for one in _own_addresses() if one.address not in keep]
        return _report(map(self._remove, removed))

    def add(self, addresses: Collection[Address]) -> AddressReport:
        """Add these addresses to the interface and announce them: new ones several times, others once.

        An address that another program configured is not changed; it causes a warning. Raises HostError if
        the interface does not exist or the kernel cannot mark addresses.
        """
        if not addresses:
            return AddressReport()
        _require_marks("Load-balancer addresses")
        present = host_addresses()
        done = _report(result for address in _sorted(addresses) for result in self._ensure(address, present))
        if self._preview:
            return done
        warnings = self.announce(addresses)
        new = [change.address for change in done.changes if change.added]
        for _ in range(ROUNDS - 1 if new else 0):
            time.sleep(PAUSE)
            self.announce(new)
        return done._replace(warnings=done.warnings + warnings)

    def add_loopback(self, addresses: Collection[Address]) -> AddressReport:
        """Add these addresses to `lo`, unless another program has configured them. Raises HostError."""
        if not addresses:
            return AddressReport()
        _require_marks("The addresses of the name server")
        present, index = host_addresses(), socket.if_nametoindex(LOOPBACK)
        foreign = {one.address for one in present if one.protocol != ADDRESS_MARK}
        missing = _sorted(address for address in addresses if address not in foreign)
        return _report(result for address in missing for result in self._place(address, present, index))

    def announce(self, addresses: Collection[Address]) -> tuple[str, ...]:
        """Announce once those of `addresses` that kproxy has added. Returns warnings."""
        mine = [one for one in _own_addresses() if one.address in addresses]
        names = {one.interface: _name(one.interface) for one in mine}
        warnings = []
        for index, name in sorted(names.items()):
            try:
                _announce([one.address for one in mine if one.interface == index], index)
            except OSError as error:
                warnings.append(f"addresses on {name} cannot be announced: {error.strerror}")
        return tuple(warnings)

    def _ensure(self, address: Address, present: Collection[HostAddress]) -> Iterator[AddressChange | str]:
        """Add a missing address, and remove it from other interfaces. Yields changes and warnings."""
        text, same = format_address(address), [one for one in present if one.address == address]
        if any(one.protocol != ADDRESS_MARK for one in same):
            yield f"{text} is already configured by another program: not changed and not announced"
            return
        index = self._index(family_of(address))
        if index is None:
            state = f"stays on {_name(same[0].interface)}" if same else "cannot be added"
            yield f"{text} {state}: there is no default route; use --load-balancer-interface"
            return
        yield from self._place(address, same, index)

    def _place(
        self, address: Address, present: Collection[HostAddress], index: int
    ) -> Iterator[AddressChange | str]:
        """Add a missing address to an interface, and remove it from others."""
        same = [one for one in present if one.address == address]
        if all(one.interface != index for one in same):
            yield self._add(address, index)
        yield from (self._remove(one) for one in same if one.interface != index)

    def _add(self, address: Address, index: int) -> AddressChange | str:
        options = {"scope": RT_SCOPE_HOST}
        if family_of(address) is Family.IPV6:
            flags = IFA_F_NODAD | IFA_F_NOPREFIXROUTE
            options = {"flags": flags, "preferred_lft": 0, "valid_lft": INFINITY_LIFE_TIME}
        return self._change("add", address, index, proto=ADDRESS_MARK, **options)

    def _remove(self, one: HostAddress) -> AddressChange | str:
        return self._change("del", one.address, one.interface)

    def _change(self, what: str, address: Address, index: int, **options: int) -> AddressChange | str:
        if self._preview:
            return AddressChange(address, _name(index), what == "add")
        return _change(what, address, index, **options)

    def _index(self, family: Family) -> int | None:
        """Return the index of the interface for one family; None without a default route."""
        if self.interface is None:
            return default_interface(family)
        try:
            return socket.if_nametoindex(self.interface)
        except OSError:
            message = f"There is no interface {self.interface}."
            raise HostError(message, "See --load-balancer-interface.") from None


def _require_marks(what: str) -> None:
    if not kernel_since(*MARKS_SINCE):
        raise HostError(f"{what} require Linux 5.18 or later, to mark them (IFA_PROTO).")


def default_interface(family: Family) -> int | None:
    """Return the index of the interface of the default route; of several routes, the preferred one."""
    return next((route.interface for route in uplink_routes(default_routes(), AF[family])), None)


def _sorted(addresses: Iterable[Address]) -> list[Address]:
    return sorted(addresses, key=lambda address: (len(address), address))


def _report(results: Iterable[AddressChange | str]) -> AddressReport:
    results = list(results)
    return AddressReport(
        tuple(result for result in results if isinstance(result, AddressChange)),
        tuple(result for result in results if isinstance(result, str)),
    )


def _own_addresses() -> list[HostAddress]:
    """Return the addresses that kproxy added to this host."""
    return [one for one in host_addresses() if one.protocol == ADDRESS_MARK]


def _name(interface: int) -> str:
    try:
        return socket.if_indextoname(interface)
    except OSError as error:
        raise HostError(f"An interface of this host has been removed: {error.strerror}.") from None


def _change(what: str, address: Address, index: int, **options: int) -> AddressChange | str:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    text, interface = format_address(address), _name(index)
    try:
        with IPRoute() as ip:
            ip.addr(what, index=index, address=text, prefixlen=8 * len(address), **options)
    except NetlinkError as error:
        action = "added to" if what == "add" else "removed from"
        return f"{text} cannot be {action} {interface}: {os.strerror(error.code)}"
    except OSError as error:
        raise HostError(f"Cannot change the kernel's addresses: {error.strerror}.") from None
    return AddressChange(address, interface, what == "add")


def _announce(addresses: Collection[Address], index: int) -> None:
    """Send one announcement of each address. None is sent on interfaces without MAC addresses."""
    # One socket for all addresses: closing a packet socket takes the kernel 15 ms.
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
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)  # receivers require it
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sender.sendto(neighbour_advertisement(address, hardware), (ALL_NODES, 0, 0, index))


def arp_frame(operation: int, hardware: bytes, address: Address, target: bytes) -> bytes:
    """Return a broadcast Ethernet frame that says that `address` has the MAC address `hardware`."""
    head = struct.pack("!6s6sH", BROADCAST, hardware, ETH_P_ARP)
    fixed = struct.pack("!HHBBH", ARPHRD_ETHER, ETH_P_IP, 6, 4, operation)
    return head + fixed + hardware + address + target + address


def neighbour_advertisement(address: Address, hardware: bytes) -> bytes:
    """Return an ICMPv6 message without checksum, which the kernel fills in."""
    option = struct.pack("!BB6s", ND_OPT_TARGET_LL_ADDR, 1, hardware)
    return struct.pack("!BBHI", NDISC_NEIGHBOUR_ADVERTISEMENT, 0, 0, OVERRIDE) + address + option

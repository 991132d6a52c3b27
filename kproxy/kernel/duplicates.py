"""Finds other hosts that have an address of this host.

They answer a probe: for IPv4 an ARP request from no address (RFC 5227), for IPv6 a neighbour solicitation
from no address (RFC 4862, duplicate address detection). A probe changes no neighbour's cache. The kernel
itself looks for duplicates of IPv6 addresses only, and only when they are added.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack

from kproxy.kernel.netlink.core.route import HostAddress
from kproxy.kernel.uplink import ARPHRD_ETHER, ARPOP_REQUEST, BROADCAST, ETH_P_ARP, ETH_P_IP, UNKNOWN
from kproxy.model import Address

SECONDS = 0.5
"""How long to wait for answers."""
MOST_ADDRESSES = 256
ETH_P_IPV6, ETH_ALEN = 0x86DD, 6
# linux/icmpv6.h, net/ndisc.h
SOLICITATION, ADVERTISEMENT, HOPS = 135, 136, 255
UNSPECIFIED, SOLICITED_NODES = bytes(16), bytes.fromhex("ff0200000000000000000001ff")
MULTICAST = b"\x33\x33"
"""The first bytes of the MAC addresses of IPv6 multicast groups."""


def claimants(addresses: Collection[HostAddress]) -> dict[Address, str]:
    """Return the MAC addresses of other hosts that answer for addresses of this host. Raises OSError."""
    by_interface: dict[int, list[Address]] = defaultdict(list)
    for one in list(addresses)[:MOST_ADDRESSES]:
        by_interface[one.interface].append(one.address)
    found: dict[Address, str] = {}
    with ExitStack() as stack:
        listeners = {}
        for interface, own in by_interface.items():
            for kind in (ETH_P_ARP, ETH_P_IPV6):
                listener = stack.enter_context(_listener(interface, kind))
                listeners[listener] = frozenset(own)
            _probe(interface, own)
        for listener, frame in _frames(list(listeners)):
            address, hardware = _claim(frame)
            if address in listeners[listener] and hardware != listener.getsockname()[4]:
                found[address] = hardware.hex(":")
    return found


def _listener(interface: int, kind: int) -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    listener.setblocking(False)
    listener.bind((socket.if_indextoname(interface), kind))
    return listener


def _frames(listeners: list[socket.socket]) -> Iterator[tuple[socket.socket, bytes]]:
    """Return the frames that arrive within `SECONDS`."""
    end = time.monotonic() + SECONDS
    while listeners and (left := end - time.monotonic()) > 0:
        for listener in select.select(listeners, [], [], left)[0]:
            yield listener, listener.recv(128)


def _probe(interface: int, addresses: Iterable[Address]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sender:
        sender.bind((socket.if_indextoname(interface), 0))
        *_, kind, hardware = sender.getsockname()
        if kind == ARPHRD_ETHER:
            for address in addresses:
                sender.send((arp_probe if len(address) == 4 else solicitation)(address, hardware))


def arp_probe(address: Address, hardware: bytes) -> bytes:
    """Return a frame that asks who has an IPv4 address, and does not say who asks."""
    head = struct.pack("!6s6sH", BROADCAST, hardware, ETH_P_ARP)
    fixed = struct.pack("!HHBBH", ARPHRD_ETHER, ETH_P_IP, ETH_ALEN, 4, ARPOP_REQUEST)
    return head + fixed + hardware + bytes(4) + UNKNOWN + address


def solicitation(address: Address, hardware: bytes) -> bytes:
    """Return a frame that asks who has an IPv6 address, and does not say who asks."""
    group = SOLICITED_NODES + address[13:]
    body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + address
    pseudo = UNSPECIFIED + group + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!6s6sH", MULTICAST + group[12:], hardware, ETH_P_IPV6)
    ip = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, HOPS)
    return head + ip + UNSPECIFIED + group + body


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _claim(frame: bytes) -> tuple[Address, bytes]:
    """Return the address that the sender of a frame says it has, and its MAC address; b"" if none."""
    hardware, kind = frame[6:12], int.from_bytes(frame[12:14], "big")
    if kind == ETH_P_ARP and len(frame) >= 42:
        return frame[28:32], hardware
    is_icmp = kind == ETH_P_IPV6 and len(frame) >= 78 and frame[20] == socket.IPPROTO_ICMPV6
    return (frame[62:78], hardware) if is_icmp and frame[54] == ADVERTISEMENT else (b"", hardware)

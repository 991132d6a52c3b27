"""A node in a network namespace whose interfaces are tunnels: the test writes and reads packets.

This is a fast way to send many packets of any kind: no other host, no sockets, no waiting. conntrack shows
what happened to a packet (it has no entry of a packet that a hook dropped or refused), and refusals arrive in
the tunnels.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from kproxy.kernel.duplicates import checksum
from kproxy.model import Address, Protocol, parse_address
from kproxy.table.layout import PackedSocket, pack_socket
from kproxy.table.simulator import Packet

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
IPV6_HDRINCL = 36
ETH_P_ALL = 3
SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/icmp/ratelimit": 0,
    "net/ipv6/icmp/ratemask": 0,  # rate-limits no type
}
UNCHECKED = "net/netfilter/nf_conntrack_checksum"  # exists when connections are tracked
# A reset by the node itself, from a port without a listener, would delete the connection in conntrack.
OBSERVE = """
table inet observe {
	chain resets { type filter hook output priority raw; tcp flags & rst == rst notrack; }
	chain tracked { type filter hook prerouting priority 0; ct state new counter; }
}
"""


class Entry(NamedTuple):
    """The conntrack entry of a packet."""

    endpoint: PackedSocket
    """The source of the expected answers, as packed address . port."""
    client: tuple[Address, int]
    """The destination of the expected answers."""


class Tunnels:
    """Makes the calling process a node. The process must be alone in a network namespace."""

    def __init__(
        self, interfaces: Iterable[str], addresses: Iterable[Address], routes: dict[str, str]
    ) -> None:
        """`addresses` are the node's own. `routes` maps destinations to interfaces."""
        _write_sysctls(SYSCTLS)
        self._files = {name: _open_tunnel(name) for name in interfaces}
        uplink = next(iter(self._files))
        commands = ["link set lo up", *(f"link set {name} up" for name in self._files)]
        for address in addresses:
            commands.append(
                f"addr add {ip_address(address)} dev {uplink}{' nodad' if len(address) == 16 else ''}"
            )
        commands += [f"route add {network} dev {name}" for network, name in routes.items()]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
        subprocess.run(["nft", "-f", "-"], input=OBSERVE, text=True, check=True)
        _write_sysctls({UNCHECKED: 0})
        self._loopback = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._loopback.bind(("lo", ETH_P_ALL))
        self._loopback.setblocking(False)
        self._own = {
            4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            16: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
        }
        self._own[16].setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)

    def send(self, packet: Packet) -> bool:
        """Send a packet with a unique source port. Returns whether it was refused."""
        data = packet_bytes(packet)
        if packet.interface:
            os.write(self._files[packet.interface], data)
        else:
            with suppress(PermissionError):  # dropped in the output hook
                self._own[len(packet.source)].sendto(data, (str(ip_address(packet.destination)), 0))
        refused = [refused_port(answer) for answer in self._answers()]
        return packet.source_port in refused

    def _answers(self) -> Iterable[bytes]:
        with suppress(BlockingIOError):
            while True:
                yield self._loopback.recv(2048)
        for file in self._files.values():
            with suppress(BlockingIOError):
                while True:
                    yield os.read(file, 2048)

    def connections(self) -> dict[tuple[str, int], Entry]:
        """Return the conntrack entries by protocol and source port (for a ping, its id)."""
        return dict(map(_entry, Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines()))


def _entry(line: str) -> tuple[tuple[str, int], Entry]:
    protocol, fields = line.split()[2], re.findall(r"\b(src|dst|sport|dport|id)=(\S+)", line)
    if protocol.startswith("icmp"):
        (_, source), _, (_, number), (_, by), _, _ = fields
        return ("ping", int(number)), Entry(pack_socket(parse_address(by), 0), (parse_address(source), 0))
    _, _, (_, sport), _, (_, by), (_, to), (_, from_port), (_, to_port) = fields
    endpoint = pack_socket(parse_address(by), int(from_port))
    return (protocol, int(sport)), Entry(endpoint, (parse_address(to), int(to_port)))


def _write_sysctls(sysctls: dict[str, int]) -> None:
    for name, value in sysctls.items():
        Path("/proc/sys", name).write_text(str(value))


def _open_tunnel(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


# --- packets as bytes ---


def packet_bytes(packet: Packet) -> bytes:
    """Return the bytes of a packet; SCTP without a checksum."""
    v4 = len(packet.source) == 4
    ports = struct.pack(">HH", packet.source_port, packet.port)
    match packet.protocol:
        case Protocol.TCP:
            number, at, body = 6, 16, ports + struct.pack(">IIBBHHH", 1, 0, 0x50, 0x02, 65535, 0, 0)
        case Protocol.UDP:
            number, at, body = 17, 6, ports + struct.pack(">HH", 8, 0)
        case Protocol.SCTP:  # an INIT
            init = struct.pack(">BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
            number, at, body = 132, 0, ports + bytes(8) + init
        case None:
            number, at, body = (
                1 if v4 else 58,
                2,
                struct.pack(">BBHHH", 8 if v4 else 128, 0, 0, packet.source_port, 1),
            )
    if at:
        pseudo = packet.source + packet.destination + struct.pack(">II", len(body), number)
        summed = body if number == 1 else pseudo + body
        body = body[:at] + struct.pack(">H", checksum(summed)) + body[at + 2 :]
    if v4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0)
        header += packet.source + packet.destination
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + body
    return struct.pack(">IHBB", 6 << 28, len(body), number, 64) + packet.source + packet.destination + body


def refused_port(data: bytes) -> int:
    """Return the source port of the packet that a reset or ICMP port unreachable refuses; 0 if none."""
    number, body = _payload(data)
    if number == 6 and body[13] & 0x04:
        return int.from_bytes(body[2:4], "big")
    if (number, body[:2]) in ((1, b"\x03\x03"), (58, b"\x01\x04")):
        _, quoted = _payload(body[8:])
        return int.from_bytes(quoted[:2], "big")
    return 0


def _payload(data: bytes) -> tuple[int, bytes]:
    """Return the protocol number, and the bytes after the IP header."""
    return (data[9], data[20:]) if data[0] >> 4 == 4 else (data[6], data[40:])

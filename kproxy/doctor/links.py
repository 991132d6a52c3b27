"""Reads facts about the interfaces of this host: bridges, the sizes of packets, and duplicates of addresses.

Only the last sends packets: one for each load-balancer address that kproxy added to this host.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from kproxy.doctor.core.facts import Bridge, PathMTU
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.duplicates import claimants
from kproxy.kernel.host import ADDRESS_MARK, socket_family
from kproxy.kernel.netlink.core.route import Link
from kproxy.kernel.netlink.route import host_addresses, links
from kproxy.kernel.uplink import LOOPBACK
from kproxy.model import Address, Family, family_of, format_address

IP_MTU, IPV6_MTU = 14, 24  # linux/in.h, linux/in6.h
MOST = 256
"""The maximum number of endpoints to look up a route for."""


def find_bridges(objects: Objects) -> tuple[Bridge, ...]:
    """Return the bridges to which endpoints of this node are connected: those that a route to them uses."""
    every = {link.number: link for link in links()}
    interface = {one.address: one.interface for one in host_addresses()}
    own, _ = _endpoints(objects)
    used = {
        (interface[source], family_of(source))
        for source in map(_source, own)
        if source in interface and every[interface[source]].kind == "bridge"
    }
    return tuple(_bridge(every.values(), every[index], family) for index, family in sorted(used))


def find_claimants() -> Mapping[Address, str]:
    """Return the MAC addresses of other hosts that have a load-balancer address of this host."""
    names = dict(socket.if_nameindex())
    added = [one for one in host_addresses() if one.protocol == ADDRESS_MARK]
    return claimants([one for one in added if names.get(one.interface) != LOOPBACK])


def _bridge(every: Iterable[Link], bridge: Link, family: Family) -> Bridge:
    ports = [link for link in every if link.master == bridge.number]
    stuck = () if bridge.promiscuous else tuple(link.name for link in ports if not link.hairpin)
    return Bridge(bridge.name, family, len(ports), stuck)


def find_mtu(objects: Objects) -> PathMTU:
    """Return the sizes of packets on the ways to endpoints on this node, and on other nodes."""
    own, others = _endpoints(objects)
    local = max((size for _, size in _sizes(own)), default=0)
    return PathMTU(local, dict(_sizes(others)))


def _endpoints(objects: Objects) -> tuple[list[Address], list[Address]]:
    """Return endpoints on this node, and on other nodes."""
    node = objects.snapshot.node
    placed = {
        each.address: each.node
        for service in objects.served
        for slice_ in objects.slices(service)
        for each in slice_.endpoints
        if each.address not in node.addresses
    }
    own = [address for address, where in sorted(placed.items()) if where == node.name]
    others = [address for address, where in sorted(placed.items()) if where not in ("", node.name)]
    return own[:MOST], others[:MOST]


def _source(address: Address) -> Address:
    """Return the address from which this node connects to another one; b"" without a route."""
    with suppress(OSError), _connected(address) as probe:
        return socket.inet_pton(socket_family(address), probe.getsockname()[0].partition("%")[0])
    return b""


def _sizes(addresses: Iterable[Address]) -> Iterator[tuple[Address, int]]:
    for address in addresses:
        with suppress(OSError), _connected(address) as probe:
            ip4 = family_of(address) is Family.IPV4
            level, option = (socket.IPPROTO_IP, IP_MTU) if ip4 else (socket.IPPROTO_IPV6, IPV6_MTU)
            yield address, probe.getsockopt(level, option)


def _connected(address: Address) -> socket.socket:
    """Return a UDP socket, which sends nothing to connect. Raises OSError without a route."""
    probe = socket.socket(socket_family(address), socket.SOCK_DGRAM)
    try:
        probe.connect((format_address(address), 9))
    except OSError:
        probe.close()
        raise
    return probe

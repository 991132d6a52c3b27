"""This host's name, addresses and kernel version. Name and primary addresses are the defaults of flags."""

from __future__ import annotations

import os
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

from kproxy.dns.core.resolv import ResolvConf, parse
from kproxy.kernel.netlink.core.constants import RT_SCOPE_UNIVERSE
from kproxy.kernel.netlink.core.route import DefaultRoute, HostAddress, uplink_routes
from kproxy.kernel.netlink.route import default_routes, host_addresses, links
from kproxy.model import Address, Bridge, Family, family_of, node_name_of
from kproxy.problems import HostError

ADDRESS_MARK = 107
"""IFA_PROTO of the addresses that kproxy adds to the uplink (uplink.py). The kernel itself uses 1 to 3."""
RESOLV_CONF = Path("/etc/resolv.conf")
RESOLV_CONF_BYTES = 1 << 16
"""The maximum number of bytes to read of it."""
FILTERED = {
    Family.IPV4: Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    Family.IPV6: Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
}
"""Whether the packets that bridges forward pass the rules. br_netfilter has these settings."""
BRIDGE = re.compile(r"[^\s\"*]+")
"""The names of bridges that a rule can contain."""
T = TypeVar("T")
MARKS_SINCE = (5, 18)
"""The version of Linux since which addresses can be marked."""


def host_name() -> str:
    """Return this host's name, as the name of its node."""
    return node_name_of(socket.gethostname())


def require_root(purpose: str = "change the kernel's tables") -> None:
    """Raise HostError unless the process runs as root."""
    if os.geteuid() != 0:
        raise HostError(f"kproxy must run as root to {purpose}.", "Run it with sudo.")


def socket_family(address: Address) -> socket.AddressFamily:
    """Return the family of sockets that reach an address."""
    return socket.AF_INET if family_of(address) is Family.IPV4 else socket.AF_INET6


def kernel_since(*version: int) -> bool:
    """Whether the running kernel has this version (major, minor) or a later one. False if unknown."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= version


class HostAddresses:
    """A cache of this host's addresses. It may be used by several threads."""

    def __init__(self) -> None:
        self._cache: dict[Callable[[], Any], Any] = {}

    def forget(self) -> None:
        """Drop the cache, because addresses may have changed. The result of a running query is not cached."""
        self._cache = {}

    def primary(self) -> tuple[Address, ...]:
        """Return the result of `primary_addresses`."""
        return self._cached(primary_addresses)

    def all(self) -> tuple[Address, ...]:
        """Return the result of `all_addresses`."""
        return self._cached(all_addresses)

    def gateways(self) -> tuple[Address, ...]:
        """Return the gateways of the default routes."""
        return self._cached(gateways)

    def bridges(self) -> tuple[Bridge, ...]:
        """Return the result of `bridges`."""
        return self._cached(bridges)

    def name_servers(self) -> tuple[Address, ...]:
        """Return the result of `name_servers`."""
        return self._cached(name_servers)

    def _cached(self, query: Callable[[], T]) -> T:
        cache = self._cache
        if query not in cache:
            cache[query] = query()
        found: T = cache[query]
        return found


def primary_addresses() -> tuple[Address, ...]:
    """Return one address per family: the source of the default route, else the first global address.

    Addresses of the default route's interface precede others, and stable addresses precede those that may
    move or expire. An address that is added later does not replace the first one.
    """
    own, routes = _own(), default_routes()
    found = (_primary(own, routes, family) for family in (socket.AF_INET, socket.AF_INET6))
    return tuple(address for address in found if address is not None)


def all_addresses() -> tuple[Address, ...]:
    """Return every global address of this host, except for loopback's and those that kproxy added."""
    return tuple(one.address for one in _own())


def local_addresses() -> frozenset[Address]:
    """Return all addresses of this host, which `fib saddr type local` matches."""
    return frozenset(one.address for one in host_addresses())


def gateways() -> tuple[Address, ...]:
    """Return the gateways of the default routes; () if the kernel does not list them."""
    try:
        found = default_routes()
    except HostError:
        return ()
    return tuple(dict.fromkeys(gateway for route in found for gateway in route.gateways))


def bridges() -> tuple[Bridge, ...]:
    """Return the bridges with their networks; () if the kernel does not list them."""
    try:
        found = {link.number: link.name for link in links() if link.kind == "bridge"}
        own = [one for one in host_addresses() if one.interface in found and one.scope == RT_SCOPE_UNIVERSE]
    except HostError:
        return ()
    filtered = tuple(family for family, path in FILTERED.items() if _is_set(path))
    networks = defaultdict(set)
    for one in own:
        networks[one.interface].add(ip_network((one.address, one.prefix), strict=False))
    return tuple(
        Bridge(name, tuple(sorted(networks[index], key=str)), filtered)
        for index, name in sorted(found.items(), key=lambda item: item[1])
        if BRIDGE.fullmatch(name)
    )


def _is_set(path: Path) -> bool:
    """Whether a setting of the kernel is not 0. False if it does not exist."""
    try:
        return path.read_text().strip() != "0"
    except OSError:
        return False


def name_servers() -> tuple[Address, ...]:
    """Return the addresses of the DNS servers in resolv.conf; () if it cannot be read."""
    return tuple(dict.fromkeys(resolv_conf(RESOLV_CONF).servers))


def resolv_conf(path: Path) -> ResolvConf:
    """Read a resolv.conf. A file that cannot be read is empty, as for resolvers."""
    try:
        with path.open("rb") as file:
            return parse(file.read(RESOLV_CONF_BYTES).decode(errors="replace"))
    except OSError:
        return ResolvConf()


def _own() -> list[HostAddress]:
    try:
        loopback = {index for index, name in socket.if_nameindex() if name == "lo"}
    except OSError as error:
        raise HostError(f"Cannot read the kernel's interfaces: {error.strerror}.") from None
    return [
        one
        for one in host_addresses()
        if one.scope == RT_SCOPE_UNIVERSE and one.interface not in loopback and one.protocol != ADDRESS_MARK
    ]


def _primary(own: Sequence[HostAddress], routes: Sequence[DefaultRoute], family: int) -> Address | None:
    uplinks = uplink_routes(routes, family)
    for route in uplinks:
        if route.source:
            return route.source
    addresses = [one for one in own if one.family == family]
    if family == socket.AF_INET6:  # the kernel lists those of an interface in reverse order of their addition
        addresses.reverse()
    preferred = {route.interface for route in uplinks}
    addresses.sort(key=lambda one: (one.interface not in preferred, not one.stable, one.interface))
    return addresses[0].address if addresses else None

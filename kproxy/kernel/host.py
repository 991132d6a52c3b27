"""This host's name, addresses and kernel version.

Name and primary addresses are the defaults of flags. The import of pyroute2 takes a third of a
sync's time, so it is imported only where it is used.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kproxy.model import Address, format_address, parse_address
from kproxy.problems import HostError

GLOBAL_SCOPE = 0
ADDRESS_MARK = 107
"""IFA_PROTO of the addresses that kproxy adds to the uplink (uplink.py). The kernel itself uses 1 to 3."""


def host_name() -> str:
    """Return this host's name in lower case, as Kubernetes names nodes."""
    return socket.gethostname().strip().lower()


def require_root() -> None:
    """Raise HostError unless the process runs as root."""
    if os.geteuid() != 0:
        raise HostError("kproxy must run as root to change the kernel's tables.", "Run it with sudo.")


def kernel_since(*version: int) -> bool:
    """Whether the running kernel has this version (major, minor) or a later one. False if unknown."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= version


def is_local(address: Address) -> bool:
    """Whether it is an address of this host: a socket can be bound to it."""
    with socket.socket(socket.AF_INET if len(address) == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((format_address(address), 0))
        except OSError:
            return False
    return True


class HostAddresses:
    """A cache of this host's addresses. It may be used by several threads."""

    def __init__(self) -> None:
        self._cache: dict[Callable[[], tuple[Address, ...]], tuple[Address, ...]] = {}

    def forget(self) -> None:
        """Drop the cache, because addresses may have changed. The result of a running query is not cached."""
        self._cache = {}

    def primary(self) -> tuple[Address, ...]:
        """Return the result of `primary_addresses`."""
        return self._cached(primary_addresses)

    def all(self) -> tuple[Address, ...]:
        """Return the result of `all_addresses`."""
        return self._cached(all_addresses)

    def _cached(self, query: Callable[[], tuple[Address, ...]]) -> tuple[Address, ...]:
        cache = self._cache
        if query not in cache:
            cache[query] = query()
        return cache[query]


@contextmanager
def routing() -> Iterator[Any]:
    """Yield pyroute2's IPRoute. Errors of the kernel in the block become HostError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            yield ip
    except (OSError, NetlinkError) as error:
        message = f"Cannot access the kernel's addresses and routes: {error.args[-1]}."
        raise HostError(message) from None


def primary_addresses() -> tuple[Address, ...]:
    """Return one address per family: the source of the default route, else the first global address."""
    found: list[Address] = []
    with routing() as ip:
        for family in (socket.AF_INET, socket.AF_INET6):
            address = _primary(ip, family)
            if address is not None:
                found.append(parse_address(address))
    return tuple(found)


def all_addresses() -> tuple[Address, ...]:
    """Return every global address of this host, except for loopback's and those that kproxy added."""
    with routing() as ip:
        texts = [text for _, text in _own(ip)]
    return tuple(parse_address(text) for text in texts)


def _own(ip: Any, **family: int) -> list[tuple[int, str]]:
    """Return interface and address of each address of the host itself.

    The families are compared here, because a kernel without the requested family returns all addresses.
    """
    loopback = set(ip.link_lookup(ifname="lo"))
    return [
        (message["index"], message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        for message in ip.get_addr(scope=GLOBAL_SCOPE, **family)
        if message["index"] not in loopback
        and message.get_attr("IFA_PROTO") != ADDRESS_MARK
        and message["family"] == family.get("family", message["family"])
    ]


def _primary(ip: Any, family: int) -> str | None:
    uplinks = [
        (route.get_attr("RTA_PREFSRC"), route.get_attr("RTA_OIF"))
        for route in ip.get_default_routes(family=family)
        if route["family"] == family
    ]
    for source, _ in uplinks:
        if source:
            return str(source)
    addresses = _own(ip, family=family)
    preferred = {interface for _, interface in uplinks}
    addresses.sort(key=lambda entry: entry[0] not in preferred)
    return str(addresses[0][1]) if addresses else None

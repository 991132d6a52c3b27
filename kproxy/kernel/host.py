"""This host's name and primary addresses, for where no flag says them.

pyroute2 takes a third of a sync's time to import, so it is imported where it is used.
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
"""IFA_PROTO of the addresses that kproxy puts on the uplink (uplink.py); the kernel's own are 1 to 3."""


def host_name() -> str:
    """This host's name, in lower case as Kubernetes names nodes."""
    return socket.gethostname().strip().lower()


def require_root() -> None:
    """HostError unless the process may change the kernel's tables."""
    if os.geteuid() != 0:
        raise HostError("kproxy has to be root to change the kernel's tables.", "Run it with sudo.")


def kernel_since(*version: int) -> bool:
    """Whether the running kernel has this version (major, minor) or a later one."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= version


def is_local(address: Address) -> bool:
    """Whether it is one of this host's: the kernel lets a socket have it."""
    with socket.socket(socket.AF_INET if len(address) == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((format_address(address), 0))
        except OSError:
            return False
    return True


class HostAddresses:
    """This host's addresses, asked of the kernel once, until they are forgotten. For several threads."""

    def __init__(self) -> None:
        self._known: dict[Callable[[], tuple[Address, ...]], tuple[Address, ...]] = {}

    def forget(self) -> None:
        """They may be others now, and what a thread is just being told may be those of before."""
        self._known = {}

    def primary(self) -> tuple[Address, ...]:
        """As `primary_addresses`."""
        return self._ask(primary_addresses)

    def all(self) -> tuple[Address, ...]:
        """As `all_addresses`."""
        return self._ask(all_addresses)

    def _ask(self, question: Callable[[], tuple[Address, ...]]) -> tuple[Address, ...]:
        known = self._known
        if question not in known:
            known[question] = question()
        return known[question]


@contextmanager
def routing() -> Iterator[Any]:
    """pyroute2's way to addresses and routes; what the kernel refuses in the block is a HostError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            yield ip
    except (OSError, NetlinkError) as error:
        message = f"The kernel's addresses and routes cannot be used: {error.args[-1]}."
        raise HostError(message) from None


def primary_addresses() -> tuple[Address, ...]:
    """One address per family: the default route's source, else the first global one."""
    found: list[Address] = []
    with routing() as ip:
        for family in (socket.AF_INET, socket.AF_INET6):
            address = _primary(ip, family)
            if address is not None:
                found.append(parse_address(address))
    return tuple(found)


def all_addresses() -> tuple[Address, ...]:
    """Every global address of this host, loopback's and those that kproxy puts there aside."""
    with routing() as ip:
        texts = [text for _, text in _own(ip)]
    return tuple(parse_address(text) for text in texts)


def _own(ip: Any, **family: int) -> list[tuple[int, str]]:
    """Interface and address of each. Asked for a family that it does not have, the kernel lists all."""
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

"""Lists addresses and default routes of this host, with rtnetlink. Tells whether an address is its own."""

from __future__ import annotations

import os
import socket

from kproxy.kernel.netlink.core.codec import messages, read_error
from kproxy.kernel.netlink.core.constants import (
    NETLINK_ROUTE,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
)
from kproxy.kernel.netlink.core.route import (
    DefaultRoute,
    HostAddress,
    Link,
    leads_here,
    list_request,
    lookup_request,
    read_address,
    read_default_route,
    read_link,
)
from kproxy.limits import NETLINK_SECONDS
from kproxy.model import Address
from kproxy.problems import HostError

DATAGRAM = 1 << 18
TRIES = 5
"""The maximum number of readings while a list changes. The result of the last one is used."""


def host_addresses() -> list[HostAddress]:
    """Return the addresses in the thread's network namespace. Raises HostError."""
    return [found for found in map(read_address, _list(RTM_GETADDR)) if found]


def links() -> list[Link]:
    """Return the interfaces in the thread's network namespace. Raises HostError."""
    return [read_link(content) for content in _list(RTM_GETLINK)]


def default_routes() -> list[DefaultRoute]:
    """Return the default routes of both families, IPv4 first. Raises HostError."""
    # A kernel that does not support a family lists the routes of the others.
    return [
        route
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in map(read_default_route, _list(RTM_GETROUTE, family))
        if route and route.family == family
    ]


def is_local(address: Address) -> bool:
    """Whether it is an address of this host, for which the kernel is asked. False if it does not answer.

    To bind a socket to the address would be no test: with `net.ipv4.ip_nonlocal_bind`, that works with any.
    """
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    try:
        with _open() as route:
            route.send(lookup_request(family, address))
            return any(map(leads_here, messages(memoryview(route.recv(DATAGRAM)))))
    except OSError:
        return False


def _open() -> socket.socket:
    """Return a socket to rtnetlink. Raises OSError."""
    route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    route.settimeout(NETLINK_SECONDS)
    return route


def _list(kind: int, family: int = 0) -> list[memoryview]:
    try:
        for _ in range(TRIES):
            contents, complete = _read(kind, family)
            if complete:
                break
    except OSError as error:
        message = f"Cannot read the kernel's addresses and routes: {error.strerror}."
        raise HostError(message) from None
    return contents


def _read(kind: int, family: int) -> tuple[list[memoryview], bool]:
    """Return the messages of a list, and whether it stayed unchanged during the dump."""
    contents: list[memoryview] = []
    complete = True
    with _open() as route:
        route.send(list_request(kind, family))
        while True:
            for reply in messages(memoryview(route.recv(DATAGRAM))):
                complete = complete and not reply.flags & NLM_F_DUMP_INTR
                if reply.kind == NLMSG_DONE:
                    return contents, complete
                if reply.kind == NLMSG_ERROR:
                    number = read_error(reply).errno
                    raise OSError(number, os.strerror(number))
                contents.append(reply.content)

"""The kernel's lists of this host's addresses and default routes."""

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
    RTM_GETROUTE,
)
from kproxy.kernel.netlink.core.route import (
    DefaultRoute,
    HostAddress,
    list_request,
    read_address,
    read_default_route,
)
from kproxy.problems import HostError

TIMEOUT = 30
"""Seconds that the kernel has to answer."""
DATAGRAM = 1 << 18
TRIES = 5
"""How often a list is read anew because it changed meanwhile. The last one is taken as it is."""


def host_addresses() -> list[HostAddress]:
    """All addresses of this host in the thread's network namespace; HostError."""
    return [found for found in map(read_address, _list(RTM_GETADDR)) if found]


def default_routes() -> list[DefaultRoute]:
    """The default routes of both families, IPv4 first; HostError."""
    # Without the family that it is asked for, a kernel lists the others.
    return [
        route
        for family in (socket.AF_INET, socket.AF_INET6)
        for route in map(read_default_route, _list(RTM_GETROUTE, family))
        if route and route.family == family
    ]


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
    """The messages of a list, and whether it did not change meanwhile."""
    contents: list[memoryview] = []
    complete = True
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as route:
        route.settimeout(TIMEOUT)
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

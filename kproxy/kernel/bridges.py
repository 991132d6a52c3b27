"""Turns hairpin on for the ports of bridges: a pod then reaches itself through a Service.

With br_netfilter, the kernel forwards a translated packet on the bridge. Without hairpin, the bridge drops a
packet that would leave through the port from which it came.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator

from kproxy.kernel.netlink.core.codec import messages, read_error
from kproxy.kernel.netlink.core.constants import NETLINK_ROUTE, NLMSG_ERROR
from kproxy.kernel.netlink.core.route import Link, hairpin_request
from kproxy.kernel.netlink.route import DATAGRAM, links
from kproxy.limits import NETLINK_SECONDS

TO_PODS = ("veth", "tun")
"""The kinds of ports that lead to pods. Others lead to the network, where a returned frame does harm."""


def turn_hairpin_on(bridges: Collection[str]) -> list[str]:
    """Turn hairpin on for the ports of these bridges that lead to pods. Returns a sentence for each failure.

    Raises HostError if the kernel does not list its interfaces.
    """
    every = list(links()) if bridges else []
    present = {link.name: link.number for link in every if link.kind == "bridge"}
    missing = [
        f"cannot turn hairpin on: there is no bridge {name}" for name in bridges if name not in present
    ]
    ports = list(_ports(every, {present[name] for name in bridges if name in present}))
    if not ports:
        return missing
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as route:
        route.settimeout(NETLINK_SECONDS)
        return missing + [failure for port in ports if (failure := _turn_on(route, port))]


def _ports(every: Iterable[Link], bridges: Collection[int]) -> Iterator[Link]:
    """Yield the ports of these bridges that lead to pods, and have no hairpin."""
    yield from (
        link for link in every if link.master in bridges and link.kind in TO_PODS and not link.hairpin
    )


def _turn_on(route: socket.socket, port: Link) -> str:
    """Return why it failed, or ""."""
    try:
        route.send(hairpin_request(port.number))
        numbers = [
            read_error(reply).errno or 0
            for reply in messages(memoryview(route.recv(DATAGRAM)))
            if reply.kind == NLMSG_ERROR
        ]
    except OSError as error:
        numbers = [error.errno or 0]
    reasons = [os.strerror(number) for number in numbers if number]
    return f"cannot turn hairpin on for {port.name}: {reasons[0]}" if reasons else ""

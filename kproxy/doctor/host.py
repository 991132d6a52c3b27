"""Reads facts about this host from /proc, and looks up routes. Sends no packet, and needs no root."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from kproxy.doctor.core.facts import Routes, Tracking
from kproxy.doctor.core.node import FILTERED, FORWARDING
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.host import socket_family
from kproxy.model import Address, Family, FrontendKind, family_of, format_address

SYSCTLS = Path("/proc/sys")
NETSTAT = Path("/proc/net/netstat")
RP_FILTERS = "net/ipv4/conf/*/rp_filter"
MOST_FILES = 5000
"""The maximum number of settings to read: one per interface."""
MOST_ROUTES = 512
"""The maximum number of addresses to look up a route for. Of each /24 or /64, one address is enough."""


def read_sysctls(folder: Path = SYSCTLS) -> Mapping[str, int]:
    """Return the settings that the checks look at, by name. Those that the kernel lacks are missing."""
    names = [folder / name.replace(".", "/") for name in (*FORWARDING.values(), *FILTERED.values())]
    names += sorted(folder.glob(RP_FILTERS))[:MOST_FILES]
    found: dict[str, int] = {}
    for path in names:
        with suppress(OSError, ValueError):
            found[".".join(path.relative_to(folder).parts)] = int(path.read_text())
    return found


def read_counters(file: Path = NETSTAT) -> Mapping[str, int]:
    """Return the counters TcpExt. Of its two lines, the first has the names and the second the numbers."""
    lines = [line.split()[1:] for line in file.read_text().splitlines() if line.startswith("TcpExt:")]
    names, numbers = lines[:2]
    return {name: int(number) for name, number in zip(names, numbers, strict=True)}


def read_tracking(folder: Path = SYSCTLS) -> Tracking:
    """Return the numbers of connection tracking in this network namespace."""
    own = folder / "net/netfilter"
    return Tracking(
        int((own / "nf_conntrack_count").read_text()), int((own / "nf_conntrack_max").read_text())
    )


def find_routes(objects: Objects) -> Routes:
    """Look up the routes to the ClusterIPs and endpoints in question, in the families that this node has."""
    families = {family_of(address) for address in objects.snapshot.node.addresses}
    frontends = [f for f in objects.snapshot.frontends if objects.concerns(f.owner.service)]
    cluster_ips = {f.address for f in frontends if f.kind is FrontendKind.CLUSTER_IP}
    endpoints = {address for f in frontends for address, _ in f.backends.endpoints}
    return Routes(
        _unreachable(address for address in _samples(cluster_ips) if family_of(address) in families),
        _unreachable(address for address in _samples(endpoints) if family_of(address) in families),
    )


def _samples(addresses: Iterable[Address]) -> list[Address]:
    """Return one address of each network, since routes lead to networks."""
    networks = {
        address[: 3 if family_of(address) is Family.IPV4 else 8]: address for address in sorted(addresses)
    }
    return list(networks.values())[:MOST_ROUTES]


def _unreachable(addresses: Iterable[Address]) -> dict[Address, str]:
    failures = {address: _route_error(address) for address in addresses}
    return {address: os.strerror(number) for address, number in failures.items() if number}


def _route_error(address: Address) -> int:
    """Return the error of a route lookup, 0 if there is a route. A UDP socket sends nothing to connect."""
    with socket.socket(socket_family(address), socket.SOCK_DGRAM) as probe:
        return probe.connect_ex((format_address(address), 9))

"""Checks of this node: settings of its kernel, connection tracking, and routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.endpoints import accepts
from kproxy.doctor.core.facts import Bridge, PathMTU, Routes, Tracking
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.netlink.core.route import ListeningSocket
from kproxy.model import (
    Address,
    Family,
    Frontend,
    FrontendKind,
    NamespacedName,
    Protocol,
    family_of,
    format_address,
    format_socket,
    owner_text,
)
from kproxy.problems import enumeration
from kproxy.reconcile.core.report import plural

FORWARDING = {Family.IPV4: "net.ipv4.ip_forward", Family.IPV6: "net.ipv6.conf.all.forwarding"}
FILTERED = {
    Family.IPV4: "net.bridge.bridge-nf-call-iptables",
    Family.IPV6: "net.bridge.bridge-nf-call-ip6tables",
}
"""Whether packets that a bridge forwards pass the rules. br_netfilter has these settings."""
FULL, NEAR = 1.0, 0.9
"""Shares of the maximum number of tracked connections."""
REVERSE_PATH = "IPReversePathFilter"
"""The counter of packets that rp_filter dropped (TcpExt in /proc/net/netstat)."""


def forwarding(objects: Objects, sysctls: Mapping[str, int]) -> Iterator[Sighting]:
    """The kernel does not forward packets from clients to pods."""
    families = {family_of(address) for address in _endpoints(objects)}
    for family in sorted(families):
        if sysctls.get(FORWARDING[family]) == 0:
            version = "IPv4" if family is Family.IPV4 else "IPv6"
            what = f"this node does not forward {version} packets between its interfaces"
            yield Sighting(NODE, what, (f"{FORWARDING[family]} = 0",))


def _endpoints(objects: Objects) -> set[Address]:
    """Return the addresses of endpoints that are not this node itself."""
    every = {address for f in objects.snapshot.frontends for address, _ in f.backends.endpoints}
    return every - set(objects.snapshot.node.addresses)


def reverse_path(sysctls: Mapping[str, int], counters: Mapping[str, int]) -> Iterator[Sighting]:
    """The kernel dropped packets whose sender it would reach through another interface."""
    dropped = counters.get(REVERSE_PATH, 0)
    modes = {name.split(".")[3]: mode for name, mode in sysctls.items() if name.endswith(".rp_filter")}
    strict = sorted(name for name, mode in modes.items() if max(mode, modes.get("all", 0)) == 1)
    strict = [name for name in strict if name not in ("all", "default", "lo")]
    if dropped and strict:
        what = f"rp_filter dropped {plural(dropped, 'packet')} since the start of this host"
        evidence = f"TcpExt{REVERSE_PATH} = {dropped}", f"rp_filter is 1 (strict) on {enumeration(strict)}"
        yield Sighting(NODE, what, evidence, sure=False)


def tracking_full(tracking: Tracking) -> Iterator[Sighting]:
    """The table of tracked connections is full, or almost."""
    share = tracking.entries / tracking.maximum if tracking.maximum else 0.0
    if share >= NEAR:
        state = "full: new connections are dropped" if share >= FULL else "almost full"
        evidence = f"nf_conntrack_count = {tracking.entries}, nf_conntrack_max = {tracking.maximum}"
        yield Sighting(NODE, f"the table of tracked connections is {state}", (evidence,), sure=share >= FULL)


def no_route_to_cluster_ips(routes: Routes) -> Iterator[Sighting]:
    """This node itself cannot connect to ClusterIPs, because the kernel looks up a route first."""
    if routes.to_cluster_ips:
        evidence = tuple(_unreachable(routes.to_cluster_ips))
        yield Sighting(NODE, "this node has no route to ClusterIPs, so it cannot use them itself", evidence)


def no_route_to_endpoints(routes: Routes) -> Iterator[Sighting]:
    """This node cannot reach endpoints, for example those on another node."""
    if routes.to_endpoints:
        evidence = tuple(_unreachable(routes.to_endpoints))
        count = plural(len(routes.to_endpoints), "endpoint")
        yield Sighting(NODE, f"this node has no route to {count}", evidence)


SHOWN = 5
"""The maximum number of addresses in the evidence."""


def _unreachable(failures: Mapping[Address, str]) -> Iterator[str]:
    for address in sorted(failures)[:SHOWN]:
        yield f"{format_address(address)}: {failures[address]}"
    if len(failures) > SHOWN:
        yield f"and {len(failures) - SHOWN} more"


def taken_ports(objects: Objects, programs: tuple[ListeningSocket, ...]) -> Iterator[Sighting]:
    """A program of this node listens on a port of the node that a Service has."""
    losing: dict[tuple[NamespacedName, str], set[ListeningSocket]] = {}
    for frontend in _of_node(objects):
        taken = frontend.owner.service, f"{frontend.port}/{frontend.protocol}"
        for each in programs:
            same = each.port == frontend.port and each.protocol is frontend.protocol
            if same and accepts(each, frontend.address):
                losing.setdefault(taken, set()).add(each)
    for (service, port), found in losing.items():
        what = f"a program of this node listens on {port}, and the Service gets its connections"
        where = sorted(format_socket(each.address, each.port) for each in found)
        sure = any(each.protocol is Protocol.TCP for each in found)
        yield Sighting(owner_text(service), what, (f"it listens on {enumeration(where)}",), sure)


def _of_node(objects: Objects) -> Iterator[Frontend]:
    """Yield the frontends that take a port of the node, except from a program that is an endpoint of them."""
    own = frozenset(objects.snapshot.node.addresses)
    for frontend in objects.snapshot.frontends:
        if not (frontend.kind is FrontendKind.NODE_PORT or frontend.address in own):
            continue
        endpoints = {each for side in frontend.sides for each in side.endpoints}
        if objects.concerns(frontend.owner.service) and not any((a, frontend.port) in endpoints for a in own):
            yield frontend


def no_hairpin(bridges: tuple[Bridge, ...], sysctls: Mapping[str, int]) -> Iterator[Sighting]:
    """A pod on a bridge cannot reach itself through a Service."""
    for bridge in bridges:
        if bridge.no_hairpin and sysctls.get(FILTERED[bridge.family]):
            what = f"pods on bridge {bridge.name} cannot reach themselves through a Service"
            evidence = f"{FILTERED[bridge.family]} = 1", f"hairpin is off on {enumeration(bridge.no_hairpin)}"
            yield Sighting(NODE, what, evidence, sure=False)


def smaller_mtu(mtu: PathMTU) -> Iterator[Sighting]:
    """The way to endpoints on other nodes takes smaller packets than the interfaces of pods."""
    smaller = {address: size for address, size in mtu.remote.items() if size < mtu.local}
    if smaller:
        address, size = min(smaller.items(), key=lambda item: (item[1], item[0]))
        count = plural(len(smaller), "endpoint")
        what = f"the way to {count} on other nodes takes smaller packets than pods send"
        evidence = f"pods: MTU {mtu.local}", f"to {format_address(address)}: MTU {size}"
        yield Sighting(NODE, what, evidence, sure=False)

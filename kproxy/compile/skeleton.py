"""The chains and maps of the table: constant, whichever services there are.

All base chains are of type nat: the kernel runs them for the first packet of a
connection only. Nothing is marked: masquerading is decided in postrouting from the
connection's original tuple. docs/packet-path.md walks through it; the quirks of nft
and of the kernel that shape it are noted where they bite.
"""

from __future__ import annotations

from typing import NamedTuple

from kproxy.model import Family, Network, Protocol, network_family
from kproxy.nft.elements import Field, Verdict
from kproxy.nft.ruleset import AffinityUpdate, Chain, SetDeclaration, Skeleton

STICKY_PROTOCOLS = (Protocol.TCP, Protocol.UDP)
AFFINITY_ENTRIES = 262144
"""Clients times frontends that affinity can hold per protocol and family."""
JHASH_SEED = 0x6B70726F


class Options(NamedTuple):
    """What the rules depend on, besides the services."""

    cluster_cidrs: tuple[Network, ...] = ()
    """Where pods are; () if not known."""
    service_cidrs: tuple[Network, ...] = ()
    """Where ClusterIPs are, if the operator says so: the rest of it is dropped."""
    masquerade_all: bool = False
    stateless_ipv6_affinity: bool = False
    """For scripts that libnftables before 1.1 can load: IPv6 clients are hashed, not remembered."""

    def cidrs(self, networks: tuple[Network, ...], family: Family) -> tuple[str, ...]:
        """Those of `networks` that are of `family`, as nft text."""
        return tuple(str(network) for network in networks if network_family(network) is family)


class Shapes(NamedTuple):
    """Which of the numbered chains are needed."""

    balanced: frozenset[int]
    """Endpoint counts in use without affinity."""
    sticky: frozenset[int]
    """Endpoint counts in use with affinity."""
    timeouts: frozenset[int]
    """Affinity timeouts in use, seconds."""


def target_verdict(count: int, sticky: bool, comment: str = "") -> Verdict:
    """Where a frontend with `count` endpoints leads."""
    if not count:
        return Verdict("goto no-endpoints", comment)
    return Verdict(f"goto {'sticky' if sticky else 'lb'}-{count}", comment)


def verdict_count(verdict: Verdict) -> int:
    """How many slots a frontend's verdict makes use of (the inverse of `target_verdict`)."""
    name, _, number = verdict.chain.rpartition("-")
    return int(number) if name in ("lb", "sticky") and number.isdigit() else 0


def is_sticky(verdict: Verdict) -> bool:
    """Whether a frontend's verdict looks into the affinity maps."""
    return verdict.chain.startswith("sticky-")


def skeleton(family: Family, options: Options, shapes: Shapes) -> Skeleton:
    """The table of one family. Equal arguments give equal results."""
    stateless = options.stateless_ipv6_affinity and family is Family.IPV6
    if stateless:
        shapes = shapes._replace(timeouts=frozenset())
    return Skeleton(family, _sets(family, options), tuple(_chains(family, options, shapes, stateless)))


def _sets(family: Family, options: Options) -> tuple[SetDeclaration, ...]:
    address = "ipv4_addr" if family is Family.IPV4 else "ipv6_addr"
    frontend = f"type {address} . inet_proto . inet_service : verdict"
    frontend_fields = (Field.ADDRESS, Field.PROTOCOL, Field.PORT)
    interval = (f"type {address}", "flags interval")

    def verdicts(name: str, about: str) -> SetDeclaration:
        return SetDeclaration(name, (frontend,), about, frontend_fields, is_map=True)

    return (
        SetDeclaration(
            "pod-cidrs",
            interval,
            "where pods are (--cluster-cidr)",
            (Field.ADDRESS,),
            constant=options.cidrs(options.cluster_cidrs, family),
        ),
        SetDeclaration(
            "service-cidrs",
            interval,
            "where ClusterIPs are (--service-cidr)",
            (Field.ADDRESS,),
            constant=options.cidrs(options.service_cidrs, family),
        ),
        SetDeclaration("cluster-ips", (f"type {address}",), "every ClusterIP", (Field.ADDRESS,)),
        SetDeclaration(
            "hairpin",
            (f"type {address} . {address}",),
            "endpoints of this node, twice: who reaches itself is masqueraded",
            (Field.ADDRESS, Field.ADDRESS),
        ),
        verdicts("services", "frontend -> how many endpoints it has"),
        verdicts(
            "masquerade-rules", "frontend -> whose source is replaced (ClusterIPs have a rule of their own)"
        ),
        verdicts("affinity-rules", "frontend -> how long its clients are remembered"),
        *(_endpoints_map(family, protocol) for protocol in Protocol),
        *(_affinity_map(family, protocol) for protocol in STICKY_PROTOCOLS),
    )


def _endpoints_map(family: Family, protocol: Protocol) -> SetDeclaration:
    # `numgen` gets into a concatenation only through typeof (the 2 limits nothing). One map per
    # protocol: with `th dport` in the value, nft refuses to add rules to it later.
    key = f"{family} daddr . {protocol} dport . numgen random mod 2"
    return SetDeclaration(
        f"endpoints-{protocol}",
        (f"typeof {key} : {family} daddr . {protocol} dport", "counter"),
        "frontend . slot -> endpoint; the counter is of new connections",
        (Field.ADDRESS, Field.PORT, Field.SLOT),
        (Field.ADDRESS, Field.PORT),
        is_map=True,
    )


def _affinity_map(family: Family, protocol: Protocol) -> SetDeclaration:
    key = f"{family} saddr . {family} daddr . {protocol} dport"
    return SetDeclaration(
        f"affinity-{protocol}",
        (
            f"typeof {key} : {family} daddr . {protocol} dport",
            f"size {AFFINITY_ENTRIES}",
            "flags dynamic,timeout",
            "timeout 3h",
        ),
        "client . frontend -> the endpoint it last got; written by packets",
        (Field.ADDRESS, Field.ADDRESS, Field.PORT),
        (Field.ADDRESS, Field.PORT),
        is_map=True,
        dynamic=True,
    )


def _chains(family: Family, options: Options, shapes: Shapes, stateless: bool) -> list[Chain]:
    frontend = f"{family} daddr . meta l4proto . th dport"
    icmp = "icmp" if family is Family.IPV4 else "icmpv6"
    services = [
        f"{frontend} vmap @services",
        f'{family} daddr @cluster-ips meta l4proto {icmp} drop comment "a ClusterIP does not answer ping"',
        f'{family} daddr @cluster-ips goto no-endpoints comment "nor a port that it does not have"',
    ]
    if options.cidrs(options.service_cidrs, family):
        services.append(f'{family} daddr @service-cidrs drop comment "nor an address that no service has"')
    chains = [
        Chain(
            "prerouting",
            ("goto services",),
            "packets from elsewhere",
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        Chain(
            "output",  # nft does not take the name dstnat here
            ("goto services",),
            "packets of this node itself",
            "type nat hook output priority -100; policy accept;",
        ),
        Chain("services", tuple(services), "is it for a service?"),
        Chain(
            "no-endpoints",
            ("meta l4proto tcp reject with tcp reset", "reject"),
            "refused at once; a reset is not rate-limited as ICMP errors are",
        ),
    ]
    for count in sorted(shapes.balanced | shapes.sticky):
        chains.append(_lb(family, count))
    for count in sorted(shapes.sticky):
        chains.append(_stateless_sticky(family, count) if stateless else _sticky(family, count))
    chains += [
        Chain(
            "input",
            ("ct status dnat goto remember",),
            "translated, for an endpoint in the node's own namespace",
            "type nat hook input priority 100; policy accept;",
        ),
        Chain(
            "postrouting",
            ("ct status dnat goto translated",),
            "translated, on its way out",
            "type nat hook postrouting priority srcnat; policy accept;",
        ),
        Chain("translated", _translated(family, options), "remember the client; replace its source?"),
        Chain("masq-always", ("masquerade fully-random",), "the reply must come back through this node"),
        Chain(
            "remember",
            _by_original_frontend("affinity-rules", family, STICKY_PROTOCOLS),
            "has the frontend affinity?",
        ),
    ]
    for timeout in sorted(shapes.timeouts):
        updates = tuple(AffinityUpdate(family, protocol, timeout) for protocol in STICKY_PROTOCOLS)
        chains.append(Chain(f"remember-{timeout}", updates, f"affinity for {timeout} seconds"))
    return chains


def _lb(family: Family, count: int) -> Chain:
    rules = [
        f"dnat {family} to {family} daddr . {protocol} dport . numgen random mod {count} "
        f"map @endpoints-{protocol}"
        for protocol in Protocol
    ]
    # A packet between two transactions can miss: dropped, it comes again; let through, conntrack
    # would keep the connection untranslated.
    about = f"one of {count} endpoint{'s' if count > 1 else ''}, each as likely"
    return Chain(f"lb-{count}", (*rules, "drop"), about)


def _sticky(family: Family, count: int) -> Chain:
    rules = [
        f"dnat {family} to {family} saddr . {family} daddr . {protocol} dport map @affinity-{protocol}"
        for protocol in STICKY_PROTOCOLS
    ]
    return Chain(f"sticky-{count}", (*rules, f"goto lb-{count}"), "the client's own endpoint, or any")


def _stateless_sticky(family: Family, count: int) -> Chain:
    rules = [
        f"dnat {family} to {family} daddr . {protocol} dport . "
        f"jhash {family} saddr mod {count} seed {JHASH_SEED:#x} map @endpoints-{protocol}"
        for protocol in STICKY_PROTOCOLS
    ]
    return Chain(
        f"sticky-{count}", (*rules, f"goto lb-{count}"), "the endpoint that the client's address hashes to"
    )


def _by_original_frontend(map_name: str, family: Family, protocols: tuple[Protocol, ...]) -> tuple[str, ...]:
    # `ct original proto-dst` has no type before the protocol is known in the same rule: one rule each.
    return tuple(
        f"meta l4proto {protocol} ct original {family} daddr . meta l4proto . ct original proto-dst "
        f"vmap @{map_name}"
        for protocol in protocols
    )


def _translated(family: Family, options: Options) -> tuple[str, ...]:
    rules = ["jump remember", f"{family} saddr . {family} daddr @hairpin masquerade fully-random"]
    to_cluster_ip = f"ct original {family} daddr @cluster-ips"
    if options.masquerade_all:
        rules.append(f"{to_cluster_ip} masquerade fully-random")
    elif options.cidrs(options.cluster_cidrs, family):
        rules.append(f"{to_cluster_ip} {family} saddr != @pod-cidrs masquerade fully-random")
    return (*rules, *_by_original_frontend("masquerade-rules", family, tuple(Protocol)))

"""The skeleton: the chains, sets and maps of the table, which do not depend on the services.

All base chains have the type nat, so the kernel runs them only for the first packet of a connection.
No packet is marked: postrouting decides about masquerading by the connection's original tuple.
docs/packet-path.md explains the rules. Comments here explain rules that are shaped by a limitation of nft
or of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kproxy.model import Balance, Family, Network, Protocol, network_family
from kproxy.nft.elements import Field, Value, Verdict
from kproxy.nft.ruleset import Chain, MapUpdate, SetDeclaration, Skeleton, TupleField
from kproxy.table.layout import EndpointScope, SlotChain, slot_chain_of
from kproxy.table.names import (
    TABLE,
    ChainName,
    SetName,
    affinity_map,
    endpoints_map,
    remember_chain,
    remember_timeout,
)

AFFINITY_ENTRIES = 262144
"""The size of an affinity map: entries (clients times frontends) per protocol and family."""
FIRST_NAT_PRIORITY = -199
"""The lowest priority of nat chains that the kernel accepts.

When a nat chain of any program replaces the source, the kernel skips the nat chains after it. Of two chains
with the same priority, the one that was added later comes first. The priority orders nat chains only among
each other: the kernel calls all of them where srcnat (100) is, after the filter chains before that.
"""
JHASH_SEED = 0x6B70726F
"""The seed of the hashes. It is the same on every node, so that all nodes choose the same endpoint."""


class Options(NamedTuple):
    """The settings that the rules depend on."""

    pod_cidrs: tuple[Network, ...] = ()
    """The networks of pods; () if unknown."""
    service_cidrs: tuple[Network, ...] = ()
    """The networks of ClusterIPs, if configured. Packets to their other addresses are dropped."""
    masquerade_all: bool = False
    stateless_ipv6_affinity: bool = False
    """Use a hash instead of entries for affinity of IPv6 clients: for scripts for nft before 1.1."""
    pod_interface: str = ""
    """The interface of pods, or a pattern such as `veth*`; "": pods are recognized by `pod_cidrs`."""

    def cidrs(self, networks: tuple[Network, ...], family: Family) -> tuple[str, ...]:
        """Return the networks of one family, as nft text."""
        return tuple(str(network) for network in networks if network_family(network) is family)

    def not_a_pod(self, family: Family) -> str:
        """Return the expression that matches packets not sent by a pod; "" if pods cannot be recognized."""
        if self.pod_interface:
            return f'iifname != "{self.pod_interface}"'
        return f"{family} saddr != @{SetName.POD_CIDRS}" if self.cidrs(self.pod_cidrs, family) else ""


class NumberedChains(NamedTuple):
    """A selection of the numbered chains."""

    slot_chains: frozenset[SlotChain]
    timeouts: frozenset[int]
    """The affinity timeouts of the `remember-SECONDS` chains, in seconds."""


NO_NUMBERED_CHAINS = NumberedChains(frozenset(), frozenset())


def numbered_chains(elements: Mapping[str, Mapping[bytes, Value]]) -> NumberedChains:
    """Return the numbered chains that `elements` lead to."""
    slot_chains = {
        slot_chain_of(Verdict(text)) for scope in EndpointScope for text in _texts(elements[scope.verdicts])
    }
    rules = {Verdict(text) for text in _texts(elements.get(SetName.AFFINITY_RULES, {}))}
    timeouts = {remember_timeout(verdict.chain) for verdict in rules}
    return NumberedChains(
        frozenset(slot_chain for slot_chain in slot_chains if slot_chain is not None),
        frozenset(seconds for seconds in timeouts if seconds is not None),
    )


def _texts(members: Mapping[bytes, Value]) -> set[str]:
    return {value.text for value in members.values() if isinstance(value, Verdict)}


def skeleton(family: Family, options: Options, needed: NumberedChains) -> Skeleton:
    """Return the table of one family. Equal arguments give equal results."""
    stateless = options.stateless_ipv6_affinity and family is Family.IPV6
    chains = tuple(_chains(family, options, needed, stateless))
    return Skeleton(family, TABLE, _sets(family, options), chains)


def _sets(family: Family, options: Options) -> tuple[SetDeclaration, ...]:
    address = "ipv4_addr" if family is Family.IPV4 else "ipv6_addr"
    frontend = f"type {address} . inet_proto . inet_service : verdict"
    frontend_fields = (Field.ADDRESS, Field.PROTOCOL, Field.PORT)
    interval = (f"type {address}", "flags interval")

    def verdicts(name: SetName, about: str, *counter: str) -> SetDeclaration:
        return SetDeclaration(name, (frontend, *counter), about, frontend_fields, is_map=True)

    return (
        SetDeclaration(
            SetName.POD_CIDRS,
            interval,
            "the networks of pods (--cluster-cidr, or the pod CIDRs of the node)",
            (Field.ADDRESS,),
            constant=options.cidrs(options.pod_cidrs, family),
        ),
        SetDeclaration(
            SetName.SERVICE_CIDRS,
            interval,
            "the networks of ClusterIPs (--service-cidr, or the cluster's ServiceCIDRs)",
            (Field.ADDRESS,),
            constant=options.cidrs(options.service_cidrs, family),
        ),
        SetDeclaration(SetName.CLUSTER_IPS, (f"type {address}",), "all ClusterIPs", (Field.ADDRESS,)),
        SetDeclaration(
            SetName.LOAD_BALANCER_IPS,
            (f"type {address}",),
            "load-balancer addresses allocated from --load-balancer-pool",
            (Field.ADDRESS,),
        ),
        SetDeclaration(
            SetName.HAIRPIN,
            (f"type {address} . {address}",),
            "endpoint . the same endpoint: masquerade what an endpoint sends to itself",
            (Field.ADDRESS, Field.ADDRESS),
        ),
        SetDeclaration(
            SetName.SOURCE_RESTRICTED,
            (f"type {address} . inet_proto . inet_service",),
            "load-balancer frontends with loadBalancerSourceRanges",
            frontend_fields,
        ),
        SetDeclaration(
            SetName.SOURCE_RANGES,
            (f"type {address} . inet_proto . inet_service . {address}", "flags interval"),
            "frontend . clients that may connect to it (loadBalancerSourceRanges)",
            (*frontend_fields, Field.ADDRESS),
        ),
        verdicts(
            SetName.SERVICES,
            "frontend -> chain that selects an endpoint; the counter counts new connections",
            "counter",
        ),
        verdicts(
            SetName.SERVICES_FROM_OUTSIDE,
            "the same for externalTrafficPolicy Local and clients that are neither pods nor this node",
            "counter",
        ),
        verdicts(
            SetName.MASQUERADE_RULES,
            "frontend -> chain that masquerades (for ClusterIPs, rules in the chain translated do)",
        ),
        verdicts(
            SetName.AFFINITY_RULES, "frontend with sessionAffinity -> chain that stores the client's endpoint"
        ),
        *(_endpoints_map(family, protocol) for protocol in Protocol),
        *(_affinity_map(family, protocol) for protocol in Protocol),
    )


def _endpoints_map(family: Family, protocol: Protocol) -> SetDeclaration:
    # Only `typeof` allows `numgen` in a concatenation; the number after `mod` does not limit the keys. There
    # is one map per protocol because with `th dport` in the value, nft refuses to add rules to the map later.
    key = f"{family} daddr . {protocol} dport . numgen random mod 2"
    return SetDeclaration(
        endpoints_map(protocol),
        (f"typeof {key} : {family} daddr . {protocol} dport", "counter"),
        "frontend . slot -> endpoint; the counter counts new connections without an affinity entry",
        (Field.ADDRESS, Field.PORT, Field.NUMBER),
        (Field.ADDRESS, Field.PORT),
        is_map=True,
    )


def _affinity_map(family: Family, protocol: Protocol) -> SetDeclaration:
    key = f"{family} saddr . {family} daddr . {protocol} dport"
    return SetDeclaration(
        affinity_map(protocol),
        (
            f"typeof {key} : {family} daddr . {protocol} dport",
            f"size {AFFINITY_ENTRIES}",
            "flags dynamic,timeout",
            "timeout 3h",
        ),
        "client . frontend -> the client's last endpoint; rules write these entries",
        (Field.ADDRESS, Field.ADDRESS, Field.PORT),
        (Field.ADDRESS, Field.PORT),
        is_map=True,
        dynamic=True,
    )


def _chains(family: Family, options: Options, needed: NumberedChains, stateless: bool) -> list[Chain]:
    frontend = f"{family} daddr . meta l4proto . th dport"
    icmp = "icmp" if family is Family.IPV4 else "icmpv6"
    check_source = f"{frontend} @{SetName.SOURCE_RESTRICTED} jump {ChainName.CHECK_SOURCE}"
    outside = " ".join(filter(None, (options.not_a_pod(family), "fib saddr type != local")))
    cluster_ip = f"{family} daddr @{SetName.CLUSTER_IPS}"
    load_balancer_ip = f"{family} daddr @{SetName.LOAD_BALANCER_IPS}"
    refuse = f"goto {ChainName.NO_ENDPOINTS}"
    services = [
        f"{frontend} vmap @{SetName.SERVICES}",
        f'{cluster_ip} meta l4proto {icmp} drop comment "ClusterIPs do not answer ping"',
        f'{cluster_ip} {refuse} comment "refuse ports that the Service does not have"',
        # `ct state new` excludes the reset for a connection of the node to itself, which passes here, too.
        f"{load_balancer_ip} meta l4proto != {icmp} ct state new {refuse} "
        'comment "refuse ports that the Service does not have, answer ping"',
    ]
    if options.cidrs(options.service_cidrs, family):
        unassigned = f"{family} daddr @{SetName.SERVICE_CIDRS}"
        services.append(f'{unassigned} drop comment "drop packets to ClusterIPs that no Service has"')
    return [
        Chain(
            ChainName.PREROUTING,
            (
                check_source,
                f"{outside} {frontend} vmap @{SetName.SERVICES_FROM_OUTSIDE}",
                f"goto {ChainName.SERVICES}",
            ),
            "packets from pods and from other hosts",
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        Chain(
            ChainName.OUTPUT,  # nft does not accept `priority dstnat` for this hook
            (check_source, f"goto {ChainName.SERVICES}"),
            "packets from this node itself",
            "type nat hook output priority -100; policy accept;",
        ),
        Chain(ChainName.SERVICES, tuple(services), "select the endpoint of a packet to a frontend"),
        Chain(
            ChainName.CHECK_SOURCE,
            (f"{frontend} . {family} saddr @{SetName.SOURCE_RANGES} return", "drop"),
            "drop packets of clients outside loadBalancerSourceRanges",
        ),
        Chain(
            ChainName.NO_ENDPOINTS,
            ("meta l4proto tcp reject with tcp reset", "reject"),
            "refuse at once; the kernel limits the rate of ICMP errors, not of TCP resets",
        ),
        Chain(ChainName.DISCARD, ("drop",), "traffic policy Local, and all endpoints are on other nodes"),
        *_slot_chains(family, needed.slot_chains, stateless),
        Chain(
            ChainName.INPUT,
            (f"ct status dnat goto {ChainName.REMEMBER}",),
            "translated packets to endpoints in the network namespace of the node",
            f"type nat hook input priority {FIRST_NAT_PRIORITY}; policy accept;",
        ),
        Chain(
            ChainName.EARLY_POSTROUTING,
            (f"ct status dnat goto {ChainName.REMEMBER}",),
            "translated packets that leave, before other programs replace their source",
            f"type nat hook postrouting priority {FIRST_NAT_PRIORITY}; policy accept;",
        ),
        Chain(
            ChainName.POSTROUTING,
            (f"ct status dnat goto {ChainName.TRANSLATED}",),
            "translated packets that leave",
            "type nat hook postrouting priority srcnat; policy accept;",
        ),
        Chain(
            ChainName.TRANSLATED,
            _translated(family, options),
            "decide whether to masquerade",
        ),
        Chain(
            ChainName.MASQ_ALWAYS,
            ("masquerade fully-random",),
            "masquerade, so that replies return through this node",
        ),
        Chain(
            ChainName.MASQ_NODE,
            ("fib saddr type local masquerade fully-random",),
            "externalTrafficPolicy Local: masquerade only what this node itself sends",
        ),
        Chain(
            ChainName.REMEMBER,
            _by_original_frontend(SetName.AFFINITY_RULES, family),
            "store the client's endpoint if the frontend has sessionAffinity",
        ),
        *(
            Chain(
                remember_chain(timeout),
                tuple(_affinity_update(family, protocol, timeout) for protocol in Protocol),
                f"store the client's endpoint for {timeout} seconds",
            )
            for timeout in sorted(needed.timeouts)
        ),
    ]


def _affinity_update(family: Family, protocol: Protocol, timeout: int) -> MapUpdate:
    """Return the rule that stores a client's endpoint, as the connection's tuples contain it."""
    return MapUpdate(
        family,
        protocol,
        affinity_map(protocol),
        (TupleField.ORIGINAL_SADDR, TupleField.ORIGINAL_DADDR, TupleField.ORIGINAL_PROTO_DST),
        (TupleField.REPLY_SADDR, TupleField.REPLY_PROTO_SRC),
        timeout,
    )


def _slot_chains(family: Family, slot_chains: frozenset[SlotChain], stateless: bool) -> list[Chain]:
    """Return the slot chains. A sticky chain leads to a random one for clients without an affinity entry."""
    needed = slot_chains | {
        s._replace(balance=Balance.RANDOM) for s in slot_chains if s.balance is Balance.STICKY
    }
    return [
        _slot_chain(family, slot_chain, stateless) for slot_chain in sorted(needed, key=_slot_chain_order)
    ]


def _slot_chain_order(slot_chain: SlotChain) -> tuple[int, int, int]:
    return (
        list(EndpointScope).index(slot_chain.scope),
        list(Balance).index(slot_chain.balance),
        slot_chain.slots,
    )


def _slot_chain(family: Family, slot_chain: SlotChain, stateless: bool) -> Chain:
    scope, balance, count = slot_chain
    at_random = f"one of {count} endpoints, at random" if count > 1 else "the only endpoint"
    offset = f" offset {scope.base}" if scope.base else ""
    hashed = f"jhash {family} saddr{{}} mod {count} seed {JHASH_SEED:#x}{offset}"

    def by(pick: str) -> tuple[str, ...]:
        # A lookup fails only for a packet between two transactions. It is dropped, so that the client sends
        # it again. If it passed, conntrack would keep the connection untranslated.
        rules = (
            f"dnat {family} to {family} daddr . {protocol} dport . {pick.replace('PROTOCOL', protocol)} "
            f"map @{endpoints_map(protocol)}"
            for protocol in Protocol
        )
        return (*rules, "drop")

    match balance:
        case Balance.RANDOM:
            rules = by(f"numgen random mod {count}{offset}")
            about = at_random
        case Balance.STICKY if stateless:
            rules, about = by(hashed.format("")), "the endpoint that a hash of the client's address selects"
        case Balance.STICKY:
            by_entry = (
                f"dnat {family} to {family} saddr . {family} daddr . {protocol} dport "
                f"map @{affinity_map(protocol)}"
                for protocol in Protocol
            )
            rules = (*by_entry, f"goto {slot_chain._replace(balance=Balance.RANDOM).chain}")
            about = f"the endpoint in the client's affinity entry; without an entry, {at_random}"
        case Balance.CLIENT:
            rules, about = (
                by(hashed.format("")),
                "the endpoint that a consistent hash of the client's address selects",
            )
        case Balance.CLIENT_PORT:
            rules = by(hashed.format(" . PROTOCOL sport"))
            about = "the endpoint that a consistent hash of the client's address and port selects"
    return Chain(
        slot_chain.chain,
        rules,
        about + (" (endpoints on this node)" if scope is EndpointScope.LOCAL else ""),
    )


def _by_original_frontend(map_name: SetName, family: Family) -> tuple[str, ...]:
    # `ct original proto-dst` has no type unless the same rule matches the protocol. So each has its own rule.
    return tuple(
        f"meta l4proto {protocol} ct original {family} daddr . meta l4proto . ct original proto-dst "
        f"vmap @{map_name}"
        for protocol in Protocol
    )


def _translated(family: Family, options: Options) -> tuple[str, ...]:
    rules = [f"{family} saddr . {family} daddr @{SetName.HAIRPIN} masquerade fully-random"]
    to_cluster_ip = f"ct original {family} daddr @{SetName.CLUSTER_IPS}"
    not_a_pod = options.not_a_pod(family)
    if options.masquerade_all:
        rules.append(f"{to_cluster_ip} masquerade fully-random")
    elif not_a_pod:
        rules.append(f"{to_cluster_ip} {not_a_pod} masquerade fully-random")
    return (*rules, *_by_original_frontend(SetName.MASQUERADE_RULES, family))


INTERVAL_KEYS = frozenset(
    declaration.name for declaration in _sets(Family.IPV4, Options()) if declaration.interval_key
)
"""The names of the sets whose keys are ranges. They are the same in both families."""

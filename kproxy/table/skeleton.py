"""The skeleton: the chains, sets and maps of the table, which do not depend on the services.

All base chains but those for DNS have the type nat, so the kernel runs them only for the first packet of a
connection.
No packet is marked: postrouting decides about masquerading by the connection's original tuple.
docs/packet-path.md explains the rules. Comments here explain rules that are shaped by a limitation of nft
or of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from kproxy.model import Address, Balance, Bridge, Family, Network, Protocol, family_of, network_family
from kproxy.nft.elements import Field, Value, Verdict
from kproxy.nft.expressions import (
    INTERFACES,
    AddressType,
    Concatenation,
    Connection,
    Expression,
    Hash,
    HeaderField,
    Meta,
    NetworkByte,
    RandomNumber,
    TupleField,
)
from kproxy.nft.rules import (
    Comparison,
    Conclusion,
    Lookup,
    Masquerade,
    Match,
    NoTrack,
    Reject,
    Rule,
    SetUpdate,
    Statement,
    Translation,
    VerdictLookup,
    rule,
)
from kproxy.nft.ruleset import Chain, Hook, SetDeclaration, Skeleton
from kproxy.resolve.frontends import merged
from kproxy.table.layout import (
    TABLE,
    ChainName,
    EndpointScope,
    SetName,
    SlotChain,
    affinity_map,
    draw_chain,
    endpoints_map,
    remember_chain,
    remember_timeout,
    slot_chain_of,
)

AFFINITY_ENTRIES = 262144
"""The size of an affinity map: entries (clients times frontends) per protocol and family."""
AFFINITY_TIMEOUT = 3 * 3600
"""The default timeout of an affinity entry in seconds. Rules set the timeout of each entry."""
REFUSED_ENTRIES = 4096
"""The size of `refused-ports`. A client that tries all ports of all ClusterIPs cannot fill more memory."""
REFUSED_TIMEOUT = 3600
"""The seconds after the last refusal after which its element is removed."""
FIRST_NAT_PRIORITY = -199
"""The lowest priority of nat chains that the kernel accepts.

When a nat chain of any program replaces the source, the kernel skips the nat chains after it. Of two chains
with the same priority, the one that was added later comes first. The priority orders nat chains only among
each other: the kernel calls all of them where srcnat (100) is, after the filter chains before that.
"""
EQUAL_BYTES = tuple(bytes([byte, 0, 0, 0, byte, 0, 0, 0]) for byte in range(256))
"""The keys of `equal-bytes`: each byte in a field of its own."""
SADDR_BYTES = {Family.IPV4: (12, 16), Family.IPV6: (8, 24)}
"""The bytes of the network header that contain the source. Those of the destination follow."""
DNS_PORT = (53).to_bytes(2, "big")
JHASH_SEED = 0x6B70726F
"""The seed of the hashes. It is the same on every node, so that all nodes choose the same endpoint."""


class Options(Struct, frozen=True):
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
    name_servers: tuple[Address, ...] = ()
    """The addresses on which kproxy answers DNS queries. Their packets are not tracked."""
    bridges: tuple[Bridge, ...] = ()
    """The bridges of this host, to which pods may be connected."""
    max_endpoint_counters: int | None = None
    """The maximum number of endpoints of a table that counts their connections; None: no maximum."""

    def cidrs(self, networks: tuple[Network, ...], family: Family) -> tuple[Network, ...]:
        """Return the networks of one family, without overlaps."""
        return tuple(merged(network for network in networks if network_family(network) is family))

    def not_a_pod(self, family: Family) -> tuple[Statement, ...]:
        """Return what matches packets that no pod sent; () if pods cannot be recognized."""
        if self.pod_interface:
            return (Match(Meta.INPUT_INTERFACE, self.pod_interface, equal=False),)
        if self.cidrs(self.pod_cidrs, family):
            return (Lookup((HeaderField(family, "saddr"),), SetName.POD_CIDRS, contained=False),)
        return ()


class NumberedChains(Struct, frozen=True):
    """A selection of the numbered chains."""

    slot_chains: frozenset[SlotChain]
    timeouts: frozenset[int]
    """The affinity timeouts of the `remember-SECONDS` chains, in seconds."""


NO_NUMBERED_CHAINS = NumberedChains(frozenset(), frozenset())


def numbered_chains(elements: Mapping[str, Mapping[bytes, Value]]) -> NumberedChains:
    """Return the numbered chains that `elements` lead to."""
    names = (*(scope.verdicts for scope in EndpointScope), SetName.AFFINITY_RULES)
    texts = {text for name in names for text in _texts(elements.get(name, {}))}
    return numbered_among(Verdict(text).chain for text in texts)


def numbered_among(chains: Iterable[str]) -> NumberedChains:
    """Return the numbered chains among chains with these names."""
    names = set(chains)
    slot_chains = (slot_chain_of(Verdict(f"goto {name}")) for name in names)
    timeouts = map(remember_timeout, names)
    return NumberedChains(
        frozenset(slot_chain for slot_chain in slot_chains if slot_chain is not None),
        frozenset(seconds for seconds in timeouts if seconds is not None),
    )


def _texts(members: Mapping[bytes, Value]) -> set[str]:
    return {value.text for value in members.values() if isinstance(value, Verdict)}


def skeleton(family: Family, options: Options, needed: NumberedChains, counted: bool = True) -> Skeleton:
    """Return the table of one family. `counted`: whether it counts the connections of each endpoint.

    Equal arguments give equal results.
    """
    stateless = options.stateless_ipv6_affinity and family is Family.IPV6
    chains = tuple(_chains(family, options, needed, stateless))
    return Skeleton(family, TABLE, _sets(family, options, counted), chains)


def _sets(family: Family, options: Options, counted: bool = True) -> tuple[SetDeclaration, ...]:
    address, frontend = (Field.ADDRESS,), (Field.ADDRESS, Field.PROTOCOL, Field.PORT)

    def verdicts(name: SetName, about: str, counter: bool = False) -> SetDeclaration:
        return SetDeclaration(name, about, frontend, is_map=True, counter=counter)

    def networks(name: SetName, about: str, members: tuple[Network, ...]) -> SetDeclaration:
        constant = options.cidrs(members, family)
        return SetDeclaration(name, about, address, intervals=True, constant=constant)

    def refused(name: SetName, about: str, size: int) -> SetDeclaration:
        return SetDeclaration(name, about, frontend, counter=True, size=size, timeout=REFUSED_TIMEOUT)

    return (
        networks(
            SetName.POD_CIDRS,
            "the networks of pods (--cluster-cidr, or the pod CIDRs of the node)",
            options.pod_cidrs,
        ),
        networks(
            SetName.SERVICE_CIDRS,
            "the networks of ClusterIPs (--service-cidr, or the cluster's ServiceCIDRs)",
            options.service_cidrs,
        ),
        SetDeclaration(SetName.CLUSTER_IPS, "all ClusterIPs", address),
        SetDeclaration(
            SetName.LOAD_BALANCER_IPS,
            "load-balancer addresses allocated from --load-balancer-pool",
            address,
        ),
        SetDeclaration(
            SetName.SOURCE_RESTRICTED, "load-balancer frontends with loadBalancerSourceRanges", frontend
        ),
        SetDeclaration(
            SetName.SOURCE_RANGES,
            "frontend . clients that may connect to it (loadBalancerSourceRanges)",
            frontend + address,
            intervals=True,
        ),
        verdicts(
            SetName.SERVICES,
            "frontend -> chain that selects an endpoint; the counter counts new connections",
            counter=True,
        ),
        verdicts(
            SetName.SERVICES_FROM_OUTSIDE,
            "the same for externalTrafficPolicy Local and clients that are neither pods nor this node",
            counter=True,
        ),
        verdicts(
            SetName.MASQUERADE_RULES,
            "frontend -> chain that masquerades (for ClusterIPs, rules in the chain translated do)",
        ),
        verdicts(
            SetName.AFFINITY_RULES, "frontend with sessionAffinity -> chain that stores the client's endpoint"
        ),
        *(_endpoints_map(family, protocol, counted) for protocol in Protocol),
        *(_affinity_map(family, protocol) for protocol in Protocol),
        refused(
            SetName.REFUSED_SOURCES,
            "frontends that refused clients outside loadBalancerSourceRanges; rules write these entries",
            AFFINITY_ENTRIES,
        ),
        refused(
            SetName.REFUSED_PORTS,
            "connections to ports that the Service of the address does not have; rules write these entries",
            REFUSED_ENTRIES,
        ),
        SetDeclaration(
            SetName.EQUAL_BYTES,
            "all pairs of equal bytes: a rule compares two addresses by them, one byte after the other",
            (Field.BYTE, Field.BYTE),
            key_typeof=(_byte_typeof(family),) * 2,
            constant=EQUAL_BYTES,
        ),
    )


def _map_of_frontends(family: Family, protocol: Protocol) -> SetDeclaration:
    """Return a map from frontends to endpoints, without a name."""
    socket = (Field.ADDRESS, Field.PORT)
    frontend = (_daddr(family), HeaderField(protocol, "dport"))
    return SetDeclaration("", "", socket, socket, is_map=True, key_typeof=frontend, value_typeof=frontend)


def _endpoints_map(family: Family, protocol: Protocol, counted: bool) -> SetDeclaration:
    # Only `typeof` allows `numgen` in a concatenation; the number after `mod` does not limit the keys. There
    # is one map per protocol because with `th dport` in the value, nft refuses to add rules to the map later.
    base = _map_of_frontends(family, protocol)
    counter = "; the counter counts new connections without an affinity entry" if counted else ""
    return replace(
        base,
        name=endpoints_map(protocol),
        about=f"frontend . slot -> endpoint{counter}",
        key=(*base.key, Field.NUMBER),
        key_typeof=(*base.key_typeof, RandomNumber(2)),
        counter=counted,
    )


def _affinity_map(family: Family, protocol: Protocol) -> SetDeclaration:
    base = _map_of_frontends(family, protocol)
    return replace(
        base,
        name=affinity_map(protocol),
        about="client . frontend -> the client's last endpoint; rules write these entries",
        key=(Field.ADDRESS, *base.key),
        key_typeof=(_saddr(family), *base.key_typeof),
        size=AFFINITY_ENTRIES,
        timeout=AFFINITY_TIMEOUT,
    )


def _saddr(family: Family) -> HeaderField:
    return HeaderField(family, "saddr")


def _daddr(family: Family) -> HeaderField:
    return HeaderField(family, "daddr")


def _byte_typeof(family: Family) -> HeaderField:
    """Return a field of the network header that is a number of one byte."""
    return HeaderField(family, "ttl" if family is Family.IPV4 else "hoplimit")


def _frontend(family: Family) -> Concatenation:
    """Return the expression whose value is a key of the map `services`."""
    return _daddr(family), Meta.PROTOCOL, HeaderField("th", "dport")


DROP, RETURN = Conclusion("drop"), Conclusion("return")
MASQUERADE = Masquerade()
REFUSE = Conclusion(f"goto {ChainName.NO_ENDPOINTS}")
REFUSE_PORT = Conclusion(f"goto {ChainName.UNKNOWN_PORT}")
FROM_THIS_NODE = Match(AddressType("saddr"), "local")
TO_OTHERS = Match(AddressType("daddr"), "local", equal=False)
"""Not to this node's own addresses: a range that contains them must not cut off the node."""
TRANSLATED = Match(Connection.STATUS, "dnat")
_to_remember = (rule(TRANSLATED, Conclusion(f"goto {ChainName.REMEMBER}")),)


def _chains(family: Family, options: Options, needed: NumberedChains, stateless: bool) -> list[Chain]:
    return [
        *(_untracked_chains(family, options) if options.name_servers else ()),
        *_entry_chains(family, options),
        Chain(
            ChainName.SERVICES, _services(family, options), "select the endpoint of a packet to a frontend"
        ),
        Chain(
            ChainName.CHECK_SOURCE,
            (
                rule(Lookup((*_frontend(family), _saddr(family)), SetName.SOURCE_RANGES), RETURN),
                rule(SetUpdate(SetName.REFUSED_SOURCES, _frontend(family))),
                rule(DROP),
            ),
            "drop packets of clients outside loadBalancerSourceRanges",
        ),
        Chain(
            ChainName.UNKNOWN_PORT,
            (rule(SetUpdate(SetName.REFUSED_PORTS, _frontend(family))), rule(REFUSE)),
            "count connections to ports that the Service does not have, and refuse them",
        ),
        Chain(
            ChainName.NO_ENDPOINTS,
            (rule(Match(Meta.PROTOCOL, Protocol.TCP), Reject(reset=True)), rule(Reject())),
            "refuse at once; the kernel limits the rate of ICMP errors, not of TCP resets",
        ),
        Chain(ChainName.DISCARD, (rule(DROP),), "traffic policy Local, and all endpoints are on other nodes"),
        *_slot_chains(family, needed.slot_chains, stateless),
        *_exit_chains(),
        Chain(ChainName.TRANSLATED, _translated(family, options), "decide whether to masquerade"),
        Chain(
            ChainName.MASQ_ALWAYS,
            (rule(MASQUERADE),),
            "masquerade, so that replies return through this node",
        ),
        Chain(
            ChainName.MASQ_NODE,
            (rule(FROM_THIS_NODE, MASQUERADE), *_within_bridges(options)),
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


def _untracked_chains(family: Family, options: Options) -> tuple[Chain, Chain]:
    """Return the base chains that exempt DNS from connection tracking, in both directions.

    A resolver sends the queries for A and AAAA from one port at the same time. If both create the entry of
    their connection, the kernel drops one of them, and the resolver waits for five seconds.
    """
    rules = tuple(
        rule(Comparison(HeaderField(protocol, port), DNS_PORT), Comparison(field, address), NoTrack())
        for address in options.name_servers
        if family_of(address) is family
        for port, field in (("dport", _daddr(family)), ("sport", _saddr(family)))
        for protocol in (Protocol.UDP, Protocol.TCP)
    )
    return (
        Chain(
            ChainName.DNS_PREROUTING,
            rules,
            "DNS queries from pods and from other hosts: do not track them",
            Hook("prerouting", -300, "raw", "filter"),
        ),
        Chain(
            ChainName.DNS_OUTPUT,
            rules,
            "DNS queries from this node itself, and replies: do not track them",
            Hook("output", -300, "raw", "filter"),
        ),
    )


def _entry_chains(family: Family, options: Options) -> tuple[Chain, Chain]:
    """Return the base chains that a packet passes before it is routed."""
    restricted = Lookup(_frontend(family), SetName.SOURCE_RESTRICTED)
    check_source = rule(restricted, Conclusion(f"jump {ChainName.CHECK_SOURCE}"))
    outside = *options.not_a_pod(family), replace(FROM_THIS_NODE, equal=False)
    from_outside = VerdictLookup(_frontend(family), SetName.SERVICES_FROM_OUTSIDE)
    to_services = rule(Conclusion(f"goto {ChainName.SERVICES}"))
    return (
        Chain(
            ChainName.PREROUTING,
            (check_source, rule(*outside, from_outside), to_services),
            "packets from pods and from other hosts",
            Hook("prerouting", -100, "dstnat"),
        ),
        Chain(
            ChainName.OUTPUT,  # nft does not accept `priority dstnat` for this hook
            (check_source, to_services),
            "packets from this node itself",
            Hook("output", -100),
        ),
    )


def _exit_chains() -> tuple[Chain, ...]:
    """Return the base chains that a packet passes after it was routed."""
    return (
        Chain(
            ChainName.INPUT,
            _to_remember,
            "translated packets to endpoints in the network namespace of the node",
            Hook("input", FIRST_NAT_PRIORITY),
        ),
        Chain(
            ChainName.EARLY_POSTROUTING,
            _to_remember,
            "translated packets that leave, before other programs replace their source",
            Hook("postrouting", FIRST_NAT_PRIORITY),
        ),
        Chain(
            ChainName.POSTROUTING,
            (rule(TRANSLATED, Conclusion(f"goto {ChainName.TRANSLATED}")),),
            "translated packets that leave",
            Hook("postrouting", 100, "srcnat"),
        ),
    )


def _services(family: Family, options: Options) -> tuple[Rule, ...]:
    icmp = "icmp" if family is Family.IPV4 else "icmpv6"
    is_ping = Match(Meta.PROTOCOL, icmp)
    to_cluster_ip = Lookup((_daddr(family),), SetName.CLUSTER_IPS)
    rules = (
        rule(VerdictLookup(_frontend(family), SetName.SERVICES)),
        rule(to_cluster_ip, TO_OTHERS, is_ping, DROP, comment="ClusterIPs do not answer ping"),
        rule(to_cluster_ip, TO_OTHERS, REFUSE_PORT, comment="refuse ports that the Service does not have"),
        rule(
            Lookup((_daddr(family),), SetName.LOAD_BALANCER_IPS),
            replace(is_ping, equal=False),
            # Without it, a connection of the node to itself would get a reset, because it passes here, too.
            Match(Connection.STATE, "new"),
            REFUSE_PORT,
            comment="refuse ports that the Service does not have, answer ping",
        ),
    )
    if not options.cidrs(options.service_cidrs, family):
        return rules
    unassigned = Lookup((_daddr(family),), SetName.SERVICE_CIDRS)
    comment = "drop packets to ClusterIPs that no Service has"
    return (*rules, rule(unassigned, TO_OTHERS, DROP, comment=comment))


def _affinity_update(family: Family, protocol: Protocol, timeout: int) -> Rule:
    """Return the rule that stores a client's endpoint, as the connection's tuples contain it."""
    key = tuple(TupleField("original", name, family) for name in ("saddr", "daddr", "proto-dst"))
    value = tuple(TupleField("reply", name, family) for name in ("saddr", "proto-src"))
    return rule(Match(Meta.PROTOCOL, protocol), SetUpdate(affinity_map(protocol), key, value, timeout))


def _slot_chains(family: Family, slot_chains: frozenset[SlotChain], stateless: bool) -> list[Chain]:
    """Return the slot chains. A sticky chain leads to a random one for clients without an affinity entry."""
    needed = slot_chains | {
        s._replace(balance=Balance.RANDOM) for s in slot_chains if s.balance is Balance.STICKY
    }
    return [
        *(_slot_chain(family, slot_chain, stateless) for slot_chain in sorted(needed, key=_slot_chain_order)),
        *(_draw_chain(family, *draw) for draw in _draws(needed)),
    ]


def _draws(slot_chains: Iterable[SlotChain]) -> list[tuple[EndpointScope, int]]:
    """Return from how many slots of each scope the random chains draw, in the order of their chains."""
    found = {
        (s.scope, size) for s in slot_chains if s.balance is Balance.RANDOM and s.repeats for size in s.tries
    }
    return sorted(found, key=lambda draw: (list(EndpointScope).index(draw[0]), draw[1]))


def _draw_chain(family: Family, scope: EndpointScope, slots: int) -> Chain:
    rules = _to_slot(family, lambda _: RandomNumber(slots, scope.base))
    return Chain(draw_chain(scope, slots), rules, f"one of {slots} slots, at random; return if it is empty")


def _slot_chain_order(slot_chain: SlotChain) -> tuple[int, int, int]:
    return (
        list(EndpointScope).index(slot_chain.scope),
        list(Balance).index(slot_chain.balance),
        slot_chain.slots,
    )


def _slot_chain(family: Family, slot_chain: SlotChain, stateless: bool) -> Chain:
    about, rules = _selection(family, slot_chain, stateless)
    on_this_node = " (endpoints on this node)" if slot_chain.scope is EndpointScope.LOCAL else ""
    return Chain(slot_chain.chain, rules, about + on_this_node)


def _selection(family: Family, slot_chain: SlotChain, stateless: bool) -> tuple[str, tuple[Rule, ...]]:
    """Return a description of how a slot chain selects a slot, and its rules."""
    scope, balance, count = slot_chain

    def at_random(_: Protocol) -> Expression:
        return RandomNumber(count, scope.base)

    def hashed(protocol: Protocol, slots: int = count, seed: int = JHASH_SEED) -> Expression:
        port = (HeaderField(protocol, "sport"),) if balance is Balance.CLIENT_PORT else ()
        return Hash((_saddr(family), *port), slots, seed, scope.base)

    one = "one of the endpoints, at random" if slot_chain.repeats else "the only endpoint"
    match balance:
        case Balance.RANDOM if slot_chain.repeats:
            draws = (rule(Conclusion(f"jump {draw_chain(scope, size)}")) for size in slot_chain.tries)
            return f"{one}: draw one of {count} slots, again if it is empty", (*draws, rule(DROP))
        case Balance.RANDOM:
            return one, (*_to_slot(family, at_random), rule(DROP))
        case Balance.SHARES:
            about = f"one of {count} slots, at random; an empty slot refuses, for backends without endpoints"
            return about, (*_to_slot(family, at_random), rule(REFUSE))
        case Balance.STICKY if stateless:
            seeded = enumerate(slot_chain.tries, JHASH_SEED)
            hashes = (partial(hashed, slots=size, seed=seed) for seed, size in seeded)
            about = "the endpoint that a hash of the client's address selects"
            return about, (*_to_slot(family, *hashes), rule(DROP))
        case Balance.STICKY:
            about = f"the endpoint in the client's affinity entry; without an entry, {one}"
            return about, _to_remembered(family, slot_chain._replace(balance=Balance.RANDOM).chain)
        case Balance.CLIENT | Balance.CLIENT_PORT:
            of = "address" if balance is Balance.CLIENT else "address and port"
            about = f"the endpoint that a consistent hash of the client's {of} selects"
            return about, (*_to_slot(family, hashed), rule(DROP))


def _to_slot(family: Family, *slots: Callable[[Protocol], Expression]) -> tuple[Rule, ...]:
    """Return the rules that translate a packet, if one of these slots contains an endpoint.

    Unless a chain refuses or tries other slots after these rules, it must drop the packet, so that the client
    sends it again: the packet came between two transactions. If it passed, conntrack would keep the
    connection untranslated.
    """

    def to(protocol: Protocol, slot: Callable[[Protocol], Expression]) -> Rule:
        key = _daddr(family), HeaderField(protocol, "dport"), slot(protocol)
        return rule(Translation(family, key, endpoints_map(protocol)))

    return tuple(to(protocol, slot) for protocol in Protocol for slot in slots)


def _to_remembered(family: Family, otherwise: str) -> tuple[Rule, ...]:
    def key(protocol: Protocol) -> Concatenation:
        return _saddr(family), _daddr(family), HeaderField(protocol, "dport")

    rules = (rule(Translation(family, key(p), affinity_map(p))) for p in Protocol)
    return (*rules, rule(Conclusion(f"goto {otherwise}")))


def _by_original_frontend(map_name: SetName, family: Family) -> tuple[Rule, ...]:
    # `ct original proto-dst` has no type unless the same rule matches the protocol. So each has its own rule.
    address, port = (TupleField("original", name, family) for name in ("daddr", "proto-dst"))
    lookup = VerdictLookup((address, Meta.PROTOCOL, port), map_name)
    return tuple(rule(Match(Meta.PROTOCOL, protocol), lookup) for protocol in Protocol)


def _translated(family: Family, options: Options) -> tuple[Rule, ...]:
    rules = [rule(*_to_itself(family), MASQUERADE, comment="the source is the destination")]
    to_cluster_ip = Lookup((TupleField("original", "daddr", family),), SetName.CLUSTER_IPS)
    not_a_pod = options.not_a_pod(family)
    if options.masquerade_all:
        rules.append(rule(to_cluster_ip, MASQUERADE))
    else:
        rules += _within_bridges(options, to_cluster_ip)
    if not_a_pod and not options.masquerade_all:
        rules.append(rule(to_cluster_ip, *not_a_pod, MASQUERADE))
    return (*rules, *_by_original_frontend(SetName.MASQUERADE_RULES, family))


def _to_itself(family: Family) -> Iterator[Lookup]:
    """Yield what matches packets whose source is their destination, which nft cannot compare directly.

    The last bytes of two addresses differ most often, so they are compared first.
    """
    for saddr in reversed(range(*SADDR_BYTES[family])):
        pair = NetworkByte(saddr), NetworkByte(saddr + family.width)
        yield Lookup(pair, SetName.EQUAL_BYTES)


def _within_bridges(options: Options, *conditions: Statement) -> Iterator[Rule]:
    """Yield a rule for each bridge: masquerade what comes from it and leaves through it.

    Otherwise the endpoint replies to the client over the bridge, and the reply is not translated back. With
    br_netfilter the bridge itself passes packets to the rules, also replies. These packets have no input
    interface here, so the rules match only where they are needed.
    """
    for bridge in options.bridges:
        ways = (Match(direction, bridge.name) for direction in INTERFACES)
        yield rule(*conditions, *ways, MASQUERADE)


INTERVAL_KEYS = frozenset(
    declaration.name for declaration in _sets(Family.IPV4, Options()) if declaration.interval_key
)
"""The names of the sets whose keys are ranges. They are the same in both families."""

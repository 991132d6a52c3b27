"""Checks of what other programs do to the packets of Services: firewalls, other proxies, bridges."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.netlink.core.codec import INET, NFPROTO
from kproxy.model import Address, Family, Frontend, FrontendKind, Protocol, family_of, owner_text
from kproxy.nft.foreign import (
    FAMILY,
    NETWORK,
    PROTOCOL,
    TRANSPORT,
    Foreign,
    ForeignExemption,
    ForeignTranslation,
    Packet,
)
from kproxy.problems import enumeration

KUBE_PROXY_CHAIN, KUBE_PROXY_TABLE = "KUBE-SERVICES", "kube-proxy"
"""The chain that kube-proxy makes in mode iptables, and its table in mode nftables."""
CONNTRACK = -200
"""The priority at which connection tracking sees a packet. A later exemption has no effect."""
SOURCE, DESTINATION = 0, 1
ADDRESSES_AT = {Family.IPV4: 12, Family.IPV6: 8}
"""The offset of the source in the network header. The destination follows it."""
NUMBER_AT = {Family.IPV4: 9, Family.IPV6: 6}
"""The offset of the number of the transport protocol."""
DSTNAT = -100
"""The priority at which kproxy translates. Of two translations of one packet, the first one counts."""


def forward_drops(foreign: Foreign) -> Iterator[Sighting]:
    """A firewall drops forwarded packets unless one of its rules accepts them."""
    for chain in foreign.chains:
        if chain.hook == "forward" and chain.drops:
            what = "a firewall drops forwarded packets that none of its rules accepts"
            evidence = f"chain {chain}: policy drop, {chain.rules} rules"
            yield Sighting(NODE, what, (evidence,), sure=chain.rules == 0)


def another_proxy(foreign: Foreign) -> Iterator[Sighting]:
    """Rules of kube-proxy are still there."""
    chains = [
        str(each)
        for each in foreign.chains
        if each.rules and (each.name == KUBE_PROXY_CHAIN or each.table == KUBE_PROXY_TABLE)
    ]
    if chains:
        what = "rules of kube-proxy translate packets to Services, too"
        yield Sighting(NODE, what, (f"chains with rules: {enumeration(chains)}",))


def other_translations(objects: Objects, foreign: Foreign) -> Iterator[Sighting]:
    """A rule of another program takes the packets to a Service."""
    for each in foreign.translations:
        if each.first > DSTNAT or each.chain.table == KUBE_PROXY_TABLE or each.chain.name.startswith("KUBE-"):
            continue
        taken = next((f for f in objects.snapshot.frontends if _takes(each, f)), None)
        if taken is not None and objects.concerns(taken.owner.service):
            what = f"a rule of another program translates packets to {taken}"
            evidence = f"chain {each.chain}, through priority {each.first}; kproxy translates at {DSTNAT}"
            yield Sighting(owner_text(taken.owner.service), what, (evidence,), sure=False)


def untracked(objects: Objects, foreign: Foreign) -> Iterator[Sighting]:
    """A rule of another program exempts packets of a Service from connection tracking."""
    rules = [rule for rule in foreign.exemptions if rule.first < CONNTRACK]
    exempted = _exempted(objects, rules)
    for index, rule in enumerate(rules):
        if exempt := exempted.get(index):
            what = f"a rule of another program exempts packets of {exempt} from connection tracking"
            evidence = f"chain {rule.chain}: notrack, through priority {rule.first}"
            yield Sighting(owner_text(exempt.owner.service), what, (evidence,), sure=False)


def _exempted(objects: Objects, rules: Sequence[ForeignExemption]) -> dict[int, Frontend]:
    """Return the first frontend in question whose packets each rule may exempt, by the rule's index."""
    own, found = frozenset(objects.snapshot.node.addresses), dict[int, Frontend]()
    for frontend in objects.snapshot.frontends:
        if len(found) == len(rules):
            break
        if objects.concerns(frontend.owner.service):
            packets, families = tuple(_packets(frontend, own)), (family_of(frontend.address), INET)
            for index, rule in enumerate(rules):
                if index not in found and rule.chain.family in families and any(map(rule.takes, packets)):
                    found[index] = frontend
    return found


def _packets(frontend: Frontend, own: Container[Address]) -> Iterator[Packet]:
    """Yield what is known of packets to a frontend, and to and from its endpoints, which may be clients."""
    protocol = frontend.protocol
    yield _packet(protocol, DESTINATION, frontend.address, frontend.port)
    for address, port in frontend.backends.endpoints:
        yield _packet(protocol, SOURCE, address, port)
        yield _packet(protocol, DESTINATION, address, port if address in own else None)


def _packet(protocol: Protocol, side: int, address: Address, port: int | None) -> Packet:
    """Return the bytes of a packet with a source or a destination. Without a port, it may be any one."""
    family = family_of(address)
    packet = {(PROTOCOL, 0): protocol.number, (FAMILY, 0): NFPROTO[family]}
    packet[NETWORK, NUMBER_AT[family]] = protocol.number
    at = ADDRESSES_AT[family] + side * len(address)
    packet.update({(NETWORK, at + index): byte for index, byte in enumerate(address)})
    if port is not None:
        ports = port.to_bytes(2, "big")
        packet.update({(TRANSPORT, 2 * side + index): byte for index, byte in enumerate(ports)})
    return packet


def _takes(rule: ForeignTranslation, frontend: Frontend) -> bool:
    """Whether the matches of a rule name the address of a frontend, or the port of an external one."""
    if frontend.address in rule.constants:
        return True
    if frontend.kind is FrontendKind.CLUSTER_IP or any(len(each) in (4, 16) for each in rule.constants):
        return False
    return frontend.port.to_bytes(2, "big") in rule.constants

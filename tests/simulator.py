"""Computes what the table does with the first packet of a connection.

It reads the elements that the kernel gets, and follows the chains of table/skeleton.py step by step:
prerouting or output refuse, drop or translate a packet, and postrouting may replace its source. A random
choice becomes probabilities. A hash selects the same slot as in the kernel. Affinity entries, which packets
write, are an argument, and are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum
from fractions import Fraction
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias

from kproxy.model import Address, Balance, Family, Network, Protocol
from kproxy.nft.elements import Elements, Verdict, range_ends
from kproxy.table.keys import (
    AffinityKey,
    FrontendKey,
    PackedSocket,
    frontend_key,
    frontend_socket,
    hairpin_key,
    pack_port,
    socket_address,
)
from kproxy.table.layout import EndpointScope, FrontendSide, SlotChain, slot_chain_of, slot_endpoints
from kproxy.table.names import ChainName, SetName
from kproxy.table.skeleton import JHASH_SEED, Options
from tests.jhash import slot_of
from tests.keys import affinity_key


class Packet(NamedTuple):
    """The first packet of a connection."""

    source: Address
    destination: Address
    protocol: Protocol | None
    """None: an ICMP echo request, without ports."""
    port: int = 0
    source_port: int = 0
    interface: str = ""
    """The interface that it arrives on; "": this node sends it."""


class Fate(StrEnum):
    """What the table does with a packet."""

    TRANSLATED = "translated"
    REFUSED = "refused"
    """Answered by a TCP reset or ICMP port unreachable."""
    DROPPED = "dropped"
    UNTOUCHED = "untouched"


class Choice(NamedTuple):
    """An endpoint that a packet may go to."""

    endpoint: PackedSocket
    probability: Fraction
    masqueraded: bool


Affinity: TypeAlias = Mapping[AffinityKey, PackedSocket]
"""Affinity entries."""


class PacketOutcome(NamedTuple):
    """What the table does with a packet.

    If the probabilities of the choices add up to less than 1, the rest is the probability of a drop.
    """

    fate: Fate
    choices: tuple[Choice, ...] = ()
    """Sorted by endpoint."""


class Simulator(NamedTuple):
    """The table of one family on one node."""

    family: Family
    elements: Elements
    """All elements: those of `initial_elements`, or those that a `Dataplane` has applied."""
    options: Options
    local: Set[Address]
    """The node's addresses."""

    def first_packet(self, packet: Packet, affinity: Affinity | None = None) -> PacketOutcome:
        """Return the outcome for a packet of this family. `affinity` has the entries of its protocol."""
        if packet.protocol is None:
            return self._not_a_frontend(packet)
        key = frontend_key(packet.destination, packet.protocol, packet.port)
        if key in self.elements[SetName.SOURCE_RESTRICTED] and not self._source_allowed(key, packet.source):
            return PacketOutcome(Fate.DROPPED)
        outside = packet.interface and not self._is_pod(packet) and packet.source not in self.local
        for scope in (EndpointScope.LOCAL, EndpointScope.ALL) if outside else (EndpointScope.ALL,):
            if key in self.elements[scope.verdicts]:
                return self._slot_chain(packet, FrontendSide(scope, key), affinity or {})
        return self._not_a_frontend(packet)

    def _source_allowed(self, key: FrontendKey, source: Address) -> bool:
        ranges = map(range_ends, self.elements[SetName.SOURCE_RANGES])
        return any(first <= key + source <= last for first, last in ranges)

    def _is_pod(self, packet: Packet) -> bool:
        """Whether a pod sent it. False if pods cannot be recognized, because the rule does not exist then."""
        if not self.options.pod_interface:
            return _within(packet.source, self.options.pod_cidrs)
        prefix = self.options.pod_interface.removesuffix("*")
        whole = prefix == self.options.pod_interface
        return packet.interface == prefix if whole else packet.interface.startswith(prefix)

    def _not_a_frontend(self, packet: Packet) -> PacketOutcome:
        if packet.destination in self.elements[SetName.CLUSTER_IPS]:
            return PacketOutcome(Fate.REFUSED if packet.protocol else Fate.DROPPED)
        if packet.destination in self.elements[SetName.LOAD_BALANCER_IPS] and packet.protocol:
            return PacketOutcome(Fate.REFUSED)
        if _within(packet.destination, self.options.service_cidrs):
            return PacketOutcome(Fate.DROPPED)
        return PacketOutcome(Fate.UNTOUCHED)

    def _slot_chain(self, packet: Packet, side: FrontendSide, affinity: Affinity) -> PacketOutcome:
        verdict = self.elements[side.scope.verdicts][side.key]
        slot_chain = slot_chain_of(verdict)
        if slot_chain is None:
            refused = isinstance(verdict, Verdict) and verdict.chain == ChainName.NO_ENDPOINTS
            return PacketOutcome(Fate.REFUSED if refused else Fate.DROPPED)
        remembered = affinity.get(affinity_key(packet.source, frontend_socket(side.key)))
        assert packet.protocol is not None
        slots = slot_endpoints(self.elements, side, packet.protocol)
        hashed = self._hash(packet, slot_chain)
        if hashed is not None:
            slots = (slots[hashed],)
        elif remembered is not None and slot_chain.balance is Balance.STICKY:
            slots = (remembered,)
        share = Fraction(1, len(slots))
        found = [
            Choice(endpoint, share * slots.count(endpoint), self._masqueraded(packet, side.key, endpoint))
            for endpoint in sorted({slot for slot in slots if slot is not None})
        ]
        return PacketOutcome(Fate.TRANSLATED, tuple(found)) if found else PacketOutcome(Fate.DROPPED)

    def _hash(self, packet: Packet, slot_chain: SlotChain) -> int | None:
        """Return the slot that the packet hashes to; None if the frontend does not use a hash."""
        stateless = self.options.stateless_ipv6_affinity and self.family is Family.IPV6
        if slot_chain.balance is Balance.CLIENT or (slot_chain.balance is Balance.STICKY and stateless):
            data = packet.source
        elif slot_chain.balance is Balance.CLIENT_PORT:
            data = packet.source + pack_port(packet.source_port)
        else:
            return None
        return slot_of(data, slot_chain.slots, JHASH_SEED)

    def _masqueraded(self, packet: Packet, key: FrontendKey, endpoint: PackedSocket) -> bool:
        address = socket_address(endpoint)
        if packet.interface and address in self.local:
            return False  # it passes input, not postrouting
        if packet.source == address and hairpin_key(address) in self.elements[SetName.HAIRPIN]:
            return True
        if packet.destination in self.elements[SetName.CLUSTER_IPS] and self._cluster_ip_masquerades(packet):
            return True
        rule = self.elements[SetName.MASQUERADE_RULES].get(key)
        chain = rule.chain if isinstance(rule, Verdict) else ""
        if chain == ChainName.MASQ_NODE:
            return packet.source in self.local
        return chain == ChainName.MASQ_ALWAYS

    def _cluster_ip_masquerades(self, packet: Packet) -> bool:
        pods_are_known = bool(self.options.not_a_pod(self.family))
        return self.options.masquerade_all or (pods_are_known and not self._is_pod(packet))


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(ip_address(address) in network for network in networks)

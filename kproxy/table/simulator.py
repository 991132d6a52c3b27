"""Computes what the table does with the first packet of a connection, and why.

It reads the elements that the kernel gets, and follows the chains of table/skeleton.py step by step:
prerouting or output refuse, drop or translate a packet, and postrouting may replace its source. A random
choice becomes probabilities. A hash selects the same slot as in the kernel. Affinity entries, which packets
write, are an argument, and are not changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import StrEnum
from fractions import Fraction
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias

from kproxy.model import Address, Balance, Bridge, Family, Network, Protocol
from kproxy.nft.elements import Value, Verdict, range_ends
from kproxy.table.jhash import slot_of
from kproxy.table.layout import (
    AffinityKey,
    ChainName,
    EndpointScope,
    FrontendKey,
    FrontendSide,
    PackedSocket,
    SetName,
    SlotChain,
    affinity_key,
    frontend_key,
    frontend_socket,
    pack_port,
    slot_chain_of,
    slot_endpoints,
    socket_address,
)
from kproxy.table.skeleton import JHASH_SEED, Options


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


class Sender(StrEnum):
    """What the rules take the sender of a packet for."""

    NODE = "node"
    """This node: the packet leaves it, or has one of its addresses as source."""
    POD = "pod"
    OUTSIDE = "outside"


class Reason(StrEnum):
    """Why a packet has its fate, unless it is translated."""

    SOURCE_RANGES = "source-ranges"
    """Dropped: the load-balancer address does not accept the client."""
    NO_ENDPOINTS = "no-endpoints"
    """Refused: the frontend has no endpoint."""
    NO_LOCAL_ENDPOINTS = "no-local-endpoints"
    """Dropped: with traffic policy Local, only other nodes have endpoints."""
    CLUSTER_IP_PORT = "cluster-ip-port"
    """Refused: the ClusterIP does not have the port."""
    CLUSTER_IP_PING = "cluster-ip-ping"
    """Dropped: a ClusterIP does not answer ping."""
    LOAD_BALANCER_PORT = "load-balancer-port"
    """Refused: the address from --load-balancer-pool does not have the port."""
    UNASSIGNED = "unassigned"
    """Dropped: no Service has this address of the service range."""
    EMPTY_SLOTS = "empty-slots"
    """Dropped: a chain leads to slots without endpoints, as for a moment between two transactions."""
    NOT_A_SERVICE = "not-a-service"
    """Untouched: the destination is not a Service's."""


class Masquerade(StrEnum):
    """Why postrouting replaces the source of a translated packet with the node's address."""

    HAIRPIN = "hairpin"
    """The endpoint is the sender itself."""
    BRIDGE = "bridge"
    """The endpoint is behind the bridge from which the packet comes, and would reply without this node."""
    CLUSTER_IP = "cluster-ip"
    """The sender of a packet to a ClusterIP is not a pod, or --masquerade-all is set."""
    EXTERNAL = "external"
    """An external address or node port, with traffic policy Cluster."""
    FROM_NODE = "from-node"
    """An external address or node port, with traffic policy Local: only packets of the node itself."""


class Choice(NamedTuple):
    """An endpoint that a packet may go to."""

    endpoint: PackedSocket
    probability: Fraction
    masquerade: Masquerade | None = None
    """None if the source stays."""

    @property
    def masqueraded(self) -> bool:
        """Whether the source is replaced."""
        return self.masquerade is not None


Affinity: TypeAlias = Mapping[AffinityKey, PackedSocket]
"""Affinity entries."""


class PacketOutcome(NamedTuple):
    """What the table does with a packet.

    If the probabilities of the choices add up to less than 1, the rest is the probability of a drop, or of a
    refusal if the balance of the slot chain is SHARES.
    """

    fate: Fate
    choices: tuple[Choice, ...] = ()
    """Sorted by endpoint."""
    reason: Reason | None = None
    """None if the packet is translated."""
    side: FrontendSide | None = None
    """The frontend side that the packet reaches."""
    slot_chain: SlotChain | None = None
    """The chain that chooses the slot."""
    remembered: bool = False
    """Whether an affinity entry determines the endpoint."""
    hashed: int | None = None
    """The slot that a hash of the packet selects; None without a hash."""

    @property
    def refused(self) -> Fraction:
        """The probability of a refusal instead of a translation: the share of backends without endpoints."""
        if self.slot_chain is None or self.slot_chain.balance is not Balance.SHARES:
            return Fraction(0)
        return 1 - sum((choice.probability for choice in self.choices), Fraction(0))


class Simulator(NamedTuple):
    """The table of one family on one node."""

    family: Family
    elements: Mapping[str, Mapping[bytes, Value]]
    """All elements: those of `initial_elements`, or those that a `Dataplane` has applied."""
    options: Options
    local: Set[Address]
    """The node's addresses."""

    def first_packet(self, packet: Packet, affinity: Affinity | None = None) -> PacketOutcome:
        """Return the outcome for a packet of this family. `affinity` has the entries of its protocol."""
        if packet.protocol is None:
            return self._not_a_frontend(packet)
        key = frontend_key(packet.destination, packet.protocol, packet.port)
        if self.restricted(key) and not self.ranges_with(key, packet.source):
            return PacketOutcome(Fate.DROPPED, reason=Reason.SOURCE_RANGES)
        outside = self.sender(packet) is Sender.OUTSIDE
        for scope in (EndpointScope.LOCAL, EndpointScope.ALL) if outside else (EndpointScope.ALL,):
            if key in self.elements[scope.verdicts]:
                return self._slot_chain(packet, FrontendSide(scope, key), affinity or {})
        return self._not_a_frontend(packet)

    def sender(self, packet: Packet) -> Sender:
        """Return what the rules take the sender for."""
        if not packet.interface or packet.source in self.local:
            return Sender.NODE
        return Sender.POD if self._is_pod(packet) else Sender.OUTSIDE

    def restricted(self, key: FrontendKey) -> bool:
        """Whether only some clients may use a frontend."""
        return key in self.elements[SetName.SOURCE_RESTRICTED]

    def ranges_with(self, key: FrontendKey, source: Address) -> tuple[bytes, ...]:
        """Return the keys of the source ranges of a frontend that contain a client."""

        def contains(ends: tuple[bytes, bytes]) -> bool:
            return ends[0] <= key + source <= ends[1]

        return tuple(each for each in self.elements[SetName.SOURCE_RANGES] if contains(range_ends(each)))

    def _is_pod(self, packet: Packet) -> bool:
        """Whether a pod sent it. False if pods cannot be recognized, because the rule does not exist then."""
        if not self.options.pod_interface:
            return _within(packet.source, self.options.pod_cidrs)
        prefix = self.options.pod_interface.removesuffix("*")
        whole = prefix == self.options.pod_interface
        return packet.interface == prefix if whole else packet.interface.startswith(prefix)

    def _not_a_frontend(self, packet: Packet) -> PacketOutcome:
        others = packet.destination not in self.local
        if others and packet.destination in self.elements[SetName.CLUSTER_IPS]:
            if packet.protocol is None:
                return PacketOutcome(Fate.DROPPED, reason=Reason.CLUSTER_IP_PING)
            return PacketOutcome(Fate.REFUSED, reason=Reason.CLUSTER_IP_PORT)
        if packet.destination in self.elements[SetName.LOAD_BALANCER_IPS] and packet.protocol:
            return PacketOutcome(Fate.REFUSED, reason=Reason.LOAD_BALANCER_PORT)
        if others and _within(packet.destination, self.options.service_cidrs):
            return PacketOutcome(Fate.DROPPED, reason=Reason.UNASSIGNED)
        return PacketOutcome(Fate.UNTOUCHED, reason=Reason.NOT_A_SERVICE)

    def _slot_chain(self, packet: Packet, side: FrontendSide, affinity: Affinity) -> PacketOutcome:
        verdict = self.elements[side.scope.verdicts][side.key]
        slot_chain = slot_chain_of(verdict)
        if slot_chain is None:
            if isinstance(verdict, Verdict) and verdict.chain == ChainName.NO_ENDPOINTS:
                return PacketOutcome(Fate.REFUSED, (), Reason.NO_ENDPOINTS, side)
            return PacketOutcome(Fate.DROPPED, (), Reason.NO_LOCAL_ENDPOINTS, side)
        remembered = affinity.get(affinity_key(packet.source, frontend_socket(side.key)))
        assert packet.protocol is not None
        slots = slot_endpoints(self.elements, side, packet.protocol)
        hashed, sticky = self._hash(packet, slot_chain, slots), False
        if hashed is not None:
            found = {slots[hashed]: Fraction(1)}
        elif remembered is not None and slot_chain.balance is Balance.STICKY:
            found, sticky = {remembered: Fraction(1)}, True
        else:
            found = _probabilities(slots, slot_chain.tries)
        choices = self._choices(packet, side.key, found)
        if not choices:
            return PacketOutcome(Fate.DROPPED, (), Reason.EMPTY_SLOTS, side, slot_chain, sticky, hashed)
        return PacketOutcome(Fate.TRANSLATED, choices, None, side, slot_chain, sticky, hashed)

    def _choices(
        self, packet: Packet, key: FrontendKey, found: Mapping[PackedSocket | None, Fraction]
    ) -> tuple[Choice, ...]:
        return tuple(
            Choice(endpoint, found[endpoint], self._masquerade(packet, key, endpoint))
            for endpoint in sorted(endpoint for endpoint in found if endpoint is not None)
        )

    def _hash(
        self, packet: Packet, slot_chain: SlotChain, slots: Sequence[PackedSocket | None]
    ) -> int | None:
        """Return the slot that the packet hashes to; None if the frontend does not use a hash."""
        stateless = self.options.stateless_ipv6_affinity and self.family is Family.IPV6
        if slot_chain.balance is Balance.CLIENT or (slot_chain.balance is Balance.STICKY and stateless):
            data = packet.source
        elif slot_chain.balance is Balance.CLIENT_PORT:
            data = packet.source + pack_port(packet.source_port)
        else:
            return None
        tries = [slot_of(data, size, seed) for seed, size in enumerate(slot_chain.tries, JHASH_SEED)]
        return next((slot for slot in tries if slots[slot] is not None), tries[-1])

    def _masquerade(self, packet: Packet, key: FrontendKey, endpoint: PackedSocket) -> Masquerade | None:
        address = socket_address(endpoint)
        if packet.interface and address in self.local:
            return None  # it passes input, not postrouting
        if packet.source == address:
            return Masquerade.HAIRPIN
        is_within = any(self._is_within(bridge, packet, address) for bridge in self.options.bridges)
        if packet.destination in self.elements[SetName.CLUSTER_IPS]:
            if is_within and not self.options.masquerade_all:
                return Masquerade.BRIDGE
            if self._cluster_ip_masquerades(packet):
                return Masquerade.CLUSTER_IP
        rule = self.elements[SetName.MASQUERADE_RULES].get(key)
        chain = rule.chain if isinstance(rule, Verdict) else ""
        if chain == ChainName.MASQ_NODE:
            if packet.source in self.local:
                return Masquerade.FROM_NODE
            return Masquerade.BRIDGE if is_within else None
        return Masquerade.EXTERNAL if chain == ChainName.MASQ_ALWAYS else None

    def _is_within(self, bridge: Bridge, packet: Packet, endpoint: Address) -> bool:
        return self.family not in bridge.filtered and bridge.connects(packet.interface, endpoint)

    def _cluster_ip_masquerades(self, packet: Packet) -> bool:
        pods_are_known = bool(self.options.not_a_pod(self.family))
        return self.options.masquerade_all or (pods_are_known and not self._is_pod(packet))


def _probabilities(
    slots: Sequence[PackedSocket | None], tries: Iterable[int]
) -> dict[PackedSocket | None, Fraction]:
    """Return the probability of each endpoint; that of None is the probability of an empty slot."""
    found: dict[PackedSocket | None, Fraction] = {}
    remaining = Fraction(1)
    for size in tries:
        for endpoint, count in Counter(slots[:size]).items():
            found[endpoint] = found.get(endpoint, Fraction(0)) + remaining * Fraction(count, size)
        remaining = found.pop(None, Fraction(0))
    return {**found, None: remaining}


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(ip_address(address) in network for network in networks)

"""How kproxy's table is laid out: the names in it, its keys and values, and how a frontend is stored.

*Names.* Users see those of the sets, maps and chains in `nft list ruleset`, and kproxy finds the elements of
an earlier run by them.

*Keys and values.* Only this module packs and slices them. They are sequences of fields, in the kernel's
format. An address is in network order (4 or 16 bytes). Every other field has four bytes. A protocol is in the
first of them, a port in the first two, in network order. A slot fills all four in host order, as `numgen` and
`jhash` yield it. So desired elements and a dump of the kernel can be compared byte by byte. Each kind of key
has a type. At run time all of them are plain bytes, because a table can have a million keys.

*Frontends.* A verdict selects the number of slots, and slots contain the endpoints. A frontend has one list
of endpoints, or two with externalTrafficPolicy: Local: one for clients from outside, the other for pods and
the node itself. Each `EndpointScope` has its own verdict map, and its own range of slots in the endpoints
maps. A random choice may have more slots than endpoints, and is repeated if the slot is empty. So most
changes of the number of endpoints do not change the verdict. If one changes, the kernel visits all of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from functools import lru_cache
from typing import NamedTuple, NewType, TypeGuard, cast

from kproxy.model import Address, Balance, Protocol, format_socket
from kproxy.nft.elements import Value, Verdict

# --- names ---

TABLE = "kproxy"


class SetName(StrEnum):
    """A set or map. skeleton.py has their declarations, and describes their contents."""

    POD_CIDRS = "pod-cidrs"
    SERVICE_CIDRS = "service-cidrs"
    CLUSTER_IPS = "cluster-ips"
    LOAD_BALANCER_IPS = "load-balancer-ips"
    SOURCE_RESTRICTED = "source-restricted"
    SOURCE_RANGES = "source-ranges"
    SERVICES = "services"
    SERVICES_FROM_OUTSIDE = "services-from-outside"
    MASQUERADE_RULES = "masquerade-rules"
    AFFINITY_RULES = "affinity-rules"
    ENDPOINTS_TCP = "endpoints-tcp"
    ENDPOINTS_UDP = "endpoints-udp"
    ENDPOINTS_SCTP = "endpoints-sctp"
    AFFINITY_TCP = "affinity-tcp"
    AFFINITY_UDP = "affinity-udp"
    AFFINITY_SCTP = "affinity-sctp"
    REFUSED_SOURCES = "refused-sources"
    REFUSED_PORTS = "refused-ports"
    EQUAL_BYTES = "equal-bytes"


class ChainName(StrEnum):
    """A chain whose name has no number. skeleton.py has its rules. Without DNS, the first two are absent."""

    DNS_PREROUTING = "dns-prerouting"
    DNS_OUTPUT = "dns-output"
    PREROUTING = "prerouting"
    OUTPUT = "output"
    INPUT = "input"
    EARLY_POSTROUTING = "early-postrouting"
    POSTROUTING = "postrouting"
    SERVICES = "services"
    CHECK_SOURCE = "check-source"
    UNKNOWN_PORT = "unknown-port"
    NO_ENDPOINTS = "no-endpoints"
    DISCARD = "discard"
    TRANSLATED = "translated"
    MASQ_ALWAYS = "masq-always"
    MASQ_NODE = "masq-node"
    REMEMBER = "remember"


_ENDPOINTS = {protocol: SetName(f"endpoints-{protocol}") for protocol in Protocol}
_AFFINITY = {protocol: SetName(f"affinity-{protocol}") for protocol in Protocol}
_REMEMBER_PREFIX = f"{ChainName.REMEMBER}-"
REMEMBER_PATTERN = rf"{_REMEMBER_PREFIX}\d+"
"""Matches the names that `remember_chain` returns."""


def endpoints_map(protocol: Protocol) -> SetName:
    """Return the name of the map from slots to endpoints."""
    return _ENDPOINTS[protocol]


def count_endpoints(elements: Mapping[str, Mapping[bytes, Value]]) -> int:
    """Return the number of slots with an endpoint."""
    return sum(len(elements.get(endpoints_map(protocol), ())) for protocol in Protocol)


def counts_endpoints(endpoints: int, maximum: int | None, counted: bool = True) -> bool:
    """Whether a table with this number of endpoints counts the connections of each. None: no maximum.

    `counted`: whether it does so now. If not, it does so again with half of the maximum. To change it means
    to replace the table, and this must not happen again and again where the number of endpoints varies.
    """
    return maximum is None or (maximum > 0 and endpoints <= (maximum if counted else maximum // 2))


def affinity_map(protocol: Protocol) -> SetName:
    """Return the name of the map from clients to endpoints."""
    return _AFFINITY[protocol]


def remember_chain(timeout: int) -> str:
    """Return the name of the chain that remembers clients for `timeout` seconds."""
    return f"{_REMEMBER_PREFIX}{timeout}"


def remember_timeout(chain: str) -> int | None:
    """Return the seconds in a name that `remember_chain` returned; None for other names."""
    seconds = chain.removeprefix(_REMEMBER_PREFIX)
    return int(seconds) if seconds != chain and seconds.isdigit() else None


# --- keys and values ---

FrontendKey = NewType("FrontendKey", bytes)
"""address . protocol . port: a frontend, in the verdict maps and in `source-restricted`."""
PackedSocket = NewType("PackedSocket", bytes)
"""address . port: an endpoint, or a frontend of the protocol that the context names."""
SlotKey = NewType("SlotKey", bytes)
"""address . port . slot: a frontend's slot, in `endpoints-PROTOCOL`."""
AffinityKey = NewType("AffinityKey", bytes)
"""client . address . port: a client and a frontend, in `affinity-PROTOCOL`."""
RangeKey = NewType("RangeKey", bytes)
"""frontend . first address . frontend . last address: one range of clients, in `source-ranges`."""

_PROTOCOLS = {protocol: bytes([protocol.number, 0, 0, 0]) for protocol in Protocol}
_NUMBERS = {protocol.number: protocol for protocol in Protocol}


@lru_cache(maxsize=4096)
def pack_port(port: int) -> bytes:
    """Pack a port as a field. Cached, because most endpoints have one of a few ports."""
    return port.to_bytes(2, "big") + b"\0\0"


def frontend_key(address: Address, protocol: Protocol, port: int) -> FrontendKey:
    """Return the key of a frontend."""
    return FrontendKey(address + _PROTOCOLS[protocol] + pack_port(port))


def is_frontend(key: bytes) -> TypeGuard[FrontendKey]:
    """Whether the key of an element in a verdict map can be a frontend's.

    Other programs may add what the kernel allows: another protocol, or the key b"" (nft's `*`).
    """
    return bool(key) and key[-8] in _NUMBERS


def frontend_address(key: FrontendKey) -> Address:
    """Return the address of a frontend."""
    return key[:-8]


def frontend_protocol(key: FrontendKey) -> Protocol:
    """Return the protocol of a frontend."""
    return _NUMBERS[key[-8]]


def frontend_socket(key: FrontendKey) -> PackedSocket:
    """Return the address and port of a frontend: its key without the protocol."""
    return PackedSocket(key[:-8] + key[-4:])


def frontend_of(socket: PackedSocket, protocol: Protocol) -> FrontendKey:
    """Return the frontend with this address, port and protocol."""
    return FrontendKey(socket[:-4] + _PROTOCOLS[protocol] + socket[-4:])


def format_frontend(key: FrontendKey) -> str:
    """Return for example `10.96.0.10:80/tcp`."""
    return f"{format_packed(frontend_socket(key))}/{frontend_protocol(key)}"


def pack_socket(address: Address, port: int) -> PackedSocket:
    """Pack an address and a port."""
    return PackedSocket(address + pack_port(port))


def pack_sockets(sockets: Iterable[tuple[Address, int]]) -> list[PackedSocket]:
    """Pack addresses and ports. There can be hundreds of thousands."""
    return cast("list[PackedSocket]", [address + pack_port(port) for address, port in sockets])


def join_socket(address: Address, port: bytes) -> PackedSocket:
    """Pack an address and a port that is already packed."""
    return PackedSocket(address + port)


def socket_address(socket: PackedSocket) -> Address:
    """Return the address of a socket."""
    return socket[:-4]


def socket_port(socket: PackedSocket) -> int:
    """Return the port of a socket."""
    return int.from_bytes(socket[-4:-2], "big")


def format_packed(socket: PackedSocket) -> str:
    """Return for example `10.0.0.1:80` or `[fd00::1]:80`."""
    return format_socket(socket_address(socket), socket_port(socket))


@lru_cache(maxsize=64)
def _pack_slots(first: int, count: int) -> tuple[bytes, ...]:
    """Pack a number of slots as fields. Cached, because many frontends have equal numbers of endpoints."""
    return tuple(slot.to_bytes(4, sys.byteorder) for slot in range(first, first + count))


def slot_keys(frontend: PackedSocket, first: int, count: int) -> list[SlotKey]:
    """Return the keys of `count` slots of a frontend, from the slot `first` on."""
    return cast("list[SlotKey]", [frontend + slot for slot in _pack_slots(first, count)])


def slot_frontend(key: SlotKey) -> PackedSocket:
    """Return the address and port of the frontend that a slot belongs to."""
    return PackedSocket(key[:-4])


def slot_values(values: Iterable[Value | None]) -> tuple[PackedSocket | None, ...]:
    """Return the endpoint in each value of an endpoints map, None where a value is missing."""
    found = tuple(value if isinstance(value, bytes) else None for value in values)
    return cast("tuple[PackedSocket | None, ...]", found)


def affinity_key(client: Address, frontend: PackedSocket) -> AffinityKey:
    """Return the key of a client of a frontend, in the affinity map of the frontend's protocol."""
    return AffinityKey(client + frontend)


def split_affinity_key(key: AffinityKey) -> tuple[Address, PackedSocket]:
    """Return the client, and the frontend's address and port."""
    width = (len(key) - 4) // 2
    return key[:width], PackedSocket(key[width:])


def range_key(frontend: FrontendKey, first: Address, last: Address) -> RangeKey:
    """Return the key of a range of client addresses at a frontend: frontend . first, then frontend . last."""
    return RangeKey(frontend + first + frontend + last)


def range_frontend(key: RangeKey) -> FrontendKey:
    """Return the frontend that a range of clients belongs to."""
    half = len(key) // 2
    return FrontendKey(key[: (half + 8) // 2])


# --- frontends: verdicts and slots ---

RANDOM_BALANCES = (Balance.RANDOM, Balance.STICKY)
"""The balances that choose among the filled slots at random."""


class EndpointScope(Enum):
    """Which of a frontend's lists of endpoints. Value: verdict map, first slot, prefix of chain names."""

    ALL = (SetName.SERVICES, 0, "")
    LOCAL = (SetName.SERVICES_FROM_OUTSIDE, 1 << 24, "outside-")

    def __init__(self, verdicts: SetName, base: int, prefix: str) -> None:
        self.verdicts = verdicts
        self.base = base
        self.prefix = prefix


TRIES = 8
"""How often a random chain draws a slot before it chooses one of the slots that are never empty."""


def slots_for(endpoints: int) -> int:
    """Return the number of slots of a random chain: 1, or a power of two from 4. Half of them are filled."""
    return endpoints if endpoints < 2 else max(4, 1 << (endpoints - 1).bit_length())


class SlotChain(NamedTuple):
    """A chain that distributes connections over a number of slots."""

    scope: EndpointScope
    balance: Balance
    slots: int
    """With a random choice, those from the second half on may be empty."""

    @property
    def chain(self) -> str:
        """The chain's name."""
        return f"{self.scope.prefix}{self.balance}-{self.slots}"

    @property
    def tries(self) -> tuple[int, ...]:
        """The number of slots from which each try chooses. The next try follows if the slot is empty.

        After TRIES failures the first half of the slots is left. So the shares of the endpoints differ: with
        16 slots or fewer by less than 0.14% of a share, otherwise by less than 0.4%.
        """
        if self.balance not in RANDOM_BALANCES or self.slots == 1:
            return (self.slots,)
        return (self.slots,) * TRIES + (self.slots // 2,)

    @property
    def repeats(self) -> bool:
        """Whether a packet that finds an empty slot tries another one."""
        return len(self.tries) > 1


def draw_chain(scope: EndpointScope, slots: int) -> str:
    """Return the name of the chain that tries one of `slots` slots, at random. Random chains jump to it."""
    return f"{scope.prefix}draw-{slots}"


_OUTSIDE = f"({EndpointScope.LOCAL.prefix})?"
_SLOT_CHAIN = rf"{_OUTSIDE}({'|'.join(Balance)})-(\d+)"
_NUMBERED = rf"{_SLOT_CHAIN}|{_OUTSIDE}draw-\d+|{REMEMBER_PATTERN}"


def is_numbered(name: str) -> bool:
    """Whether it is the name of a numbered chain, which exists only while an element leads to it."""
    return re.fullmatch(_NUMBERED, name) is not None


def slot_chain_of(verdict: Value | None) -> SlotChain | None:
    """Return the slot chain that a verdict leads to; None if it leads to another chain or to none."""
    return _slot_chain(verdict.text) if isinstance(verdict, Verdict) else None


@lru_cache(maxsize=4096)
def _slot_chain(text: str) -> SlotChain | None:
    """Parse the text of a verdict. Cached, because 10,000 frontends share a few verdicts."""
    found = re.fullmatch(_SLOT_CHAIN, text.partition(" ")[2])
    if not found:
        return None
    scope = EndpointScope.LOCAL if found[1] else EndpointScope.ALL
    return SlotChain(scope, Balance(found[2]), int(found[3]))


class FrontendSide(NamedTuple):
    """One list of endpoints of one frontend."""

    scope: EndpointScope
    key: FrontendKey


class FrontendSpec(NamedTuple):
    """The desired content of a frontend side."""

    endpoints: tuple[PackedSocket, ...]
    """By slot. An endpoint may occur several times. The order matters only for hashes."""
    balance: Balance
    otherwise: ChainName
    """The chain to use if there is no endpoint."""
    comment: str
    """The owner of the frontend: `namespace/service:port`."""
    serving: frozenset[PackedSocket] = frozenset()
    """UDP: endpoints that keep their flows, whether or not they get new ones."""
    refusing: int = 0
    """The number of slots after those of the endpoints that stay empty. They refuse connections."""

    def verdict(self, scope: EndpointScope, count: int) -> Verdict:
        """Return the verdict that leads to the chain for `count` slots with endpoints."""
        slots = slots_for(count) if self.balance in RANDOM_BALANCES else count + self.refusing
        chain = SlotChain(scope, self.balance, slots).chain if count else self.otherwise
        return Verdict(f"goto {chain}", self.comment)

    @property
    def ordered(self) -> bool:
        """Whether the order of slots matters: with a hash, all nodes must choose the same endpoint."""
        return self.balance in (Balance.CLIENT, Balance.CLIENT_PORT)


def slots(side: FrontendSide, count: int) -> list[SlotKey]:
    """Return the keys of the first `count` slots of a frontend side, in its endpoints map."""
    return slot_keys(frontend_socket(side.key), side.scope.base, count)


def slot_endpoints(
    applied: Mapping[str, Mapping[bytes, Value]], side: FrontendSide, protocol: Protocol
) -> tuple[PackedSocket | None, ...]:
    """Return the endpoints in the slots that the verdict of a frontend side uses; None: an empty slot."""
    slot_chain = slot_chain_of(applied[side.scope.verdicts].get(side.key))
    if slot_chain is None or slot_chain.scope is not side.scope:
        return ()
    endpoints = applied[endpoints_map(protocol)]
    return slot_values(map(endpoints.get, slots(side, slot_chain.slots)))

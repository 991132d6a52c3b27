"""How a frontend lies in the table: a verdict says how many endpoints it has, slots hold them.

A frontend has one list of endpoints, or with traffic policy Local two: one for clients from
outside, another for pods and the node itself. Each list is a `EndpointScope`: a verdict map of its
own, and in the endpoints maps a range of slots of its own.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from kproxy.model import Balance, Protocol
from kproxy.nft.elements import Elements, Value, Verdict, slot_key, slot_prefix

REFUSE = "no-endpoints"
DISCARD = "discard"


class EndpointScope(Enum):
    """Which list of a frontend's endpoints: name of its verdict map, first slot, prefix of its chains."""

    ALL = ("services", 0, "")
    LOCAL = ("services-from-outside", 1 << 24, "outside-")

    def __init__(self, verdicts: str, base: int, prefix: str) -> None:
        self.verdicts = verdicts
        self.base = base
        self.prefix = prefix


class SlotChain(NamedTuple):
    """A chain that spreads connections over so many slots."""

    scope: EndpointScope
    balance: Balance
    slots: int

    @property
    def chain(self) -> str:
        """Its name."""
        return f"{self.scope.prefix}{self.balance}-{self.slots}"


_CHAIN = re.compile(rf"({EndpointScope.LOCAL.prefix})?({'|'.join(Balance)})-(\d+)")
NUMBERED = re.compile(rf"{_CHAIN.pattern}|remember-\d+")
"""Chains that come and go with endpoint counts and time-outs."""


def slot_chain_of(verdict: Value | None) -> SlotChain | None:
    """Where a verdict leads, None if not to slots."""
    return _slot_chain(verdict.text) if isinstance(verdict, Verdict) else None


@lru_cache(maxsize=4096)
def _slot_chain(text: str) -> SlotChain | None:
    """There are few different ones, and 10,000 frontends that lead there."""
    found = _CHAIN.fullmatch(text.partition(" ")[2])
    if not found:
        return None
    scope = EndpointScope.LOCAL if found[1] else EndpointScope.ALL
    return SlotChain(scope, Balance(found[2]), int(found[3]))


class FrontendSide(NamedTuple):
    """One list of endpoints of one frontend."""

    scope: EndpointScope
    key: bytes
    """The frontend's key."""


class FrontendSpec(NamedTuple):
    """What a place is to hold."""

    endpoints: tuple[bytes, ...]
    """Packed address . port by slot. The order counts for hashes only; one may occur several times."""
    balance: Balance
    otherwise: str
    """The chain for when there is no endpoint."""
    comment: str
    """`namespace/service:port`: whose frontend this is."""
    serving: frozenset[bytes] = frozenset()
    """UDP: endpoints whose flows go on, whether or not new ones go there."""

    def verdict(self, scope: EndpointScope, count: int) -> Verdict:
        """What leads to the slots."""
        chain = SlotChain(scope, self.balance, count).chain if count else self.otherwise
        return Verdict(f"goto {chain}", self.comment)

    @property
    def ordered(self) -> bool:
        """Whether each endpoint has to be in its very slot, so that all nodes choose alike."""
        return self.balance in (Balance.CLIENT, Balance.CLIENT_PORT)


def endpoints_map(protocol: Protocol) -> str:
    """The name of the map from slots to endpoints."""
    return f"endpoints-{protocol}"


def affinity_map(protocol: Protocol) -> str:
    """The name of the map from clients to endpoints."""
    return f"affinity-{protocol}"


def slot(side: FrontendSide, number: int) -> bytes:
    """The key of a place's slot in its endpoints map."""
    return slot_key(slot_prefix(side.key), side.scope.base + number)


def slots(side: FrontendSide, count: int) -> list[bytes]:
    """The keys of a place's first slots."""
    prefix, base = slot_prefix(side.key), side.scope.base
    return [slot_key(prefix, number) for number in range(base, base + count)]


def held_slots(applied: Elements, side: FrontendSide, protocol: Protocol) -> tuple[bytes | None, ...]:
    """The endpoints of a place, slot by slot, as its verdict makes use of them; None where one is missing."""
    slot_chain = slot_chain_of(applied[side.scope.verdicts].get(side.key))
    if slot_chain is None or slot_chain.scope is not side.scope:
        return ()
    held = applied[endpoints_map(protocol)]
    values = map(held.get, slots(side, slot_chain.slots))
    return tuple(value if isinstance(value, bytes) else None for value in values)

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
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.table.keys import FrontendKey, PackedSocket, SlotKey, frontend_socket, slot_keys, slot_values
from kproxy.table.names import REMEMBER_PATTERN, ChainName, SetName, endpoints_map


class EndpointScope(Enum):
    """Which list of a frontend's endpoints: name of its verdict map, first slot, prefix of its chains."""

    ALL = (SetName.SERVICES, 0, "")
    LOCAL = (SetName.SERVICES_FROM_OUTSIDE, 1 << 24, "outside-")

    def __init__(self, verdicts: SetName, base: int, prefix: str) -> None:
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
NUMBERED = re.compile(rf"{_CHAIN.pattern}|{REMEMBER_PATTERN}")
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
    key: FrontendKey


class FrontendSpec(NamedTuple):
    """What a frontend side is to contain."""

    endpoints: tuple[PackedSocket, ...]
    """By slot. The order counts for hashes only; one may occur several times."""
    balance: Balance
    otherwise: ChainName
    """The chain for when there is no endpoint."""
    comment: str
    """`namespace/service:port`: whose frontend this is."""
    serving: frozenset[PackedSocket] = frozenset()
    """UDP: endpoints whose flows go on, whether or not new ones go there."""

    def verdict(self, scope: EndpointScope, count: int) -> Verdict:
        """What leads to the slots."""
        chain = SlotChain(scope, self.balance, count).chain if count else self.otherwise
        return Verdict(f"goto {chain}", self.comment)

    @property
    def ordered(self) -> bool:
        """Whether each endpoint has to be in its very slot, so that all nodes choose alike."""
        return self.balance in (Balance.CLIENT, Balance.CLIENT_PORT)


def slots(side: FrontendSide, count: int) -> list[SlotKey]:
    """The keys of the first `count` slots of a frontend side, in its endpoints map."""
    base = side.scope.base
    return slot_keys(frontend_socket(side.key), range(base, base + count))


def held_slots(applied: Elements, side: FrontendSide, protocol: Protocol) -> tuple[PackedSocket | None, ...]:
    """The endpoints in the slots that the verdict of a frontend side uses; None for an empty slot."""
    slot_chain = slot_chain_of(applied[side.scope.verdicts].get(side.key))
    if slot_chain is None or slot_chain.scope is not side.scope:
        return ()
    held = applied[endpoints_map(protocol)]
    return slot_values(map(held.get, slots(side, slot_chain.slots)))

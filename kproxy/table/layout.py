"""How a frontend is stored in the table: a verdict selects the number of endpoints, and slots contain them.

A frontend has one list of endpoints, or two with externalTrafficPolicy: Local: one for clients from
outside, the other for pods and the node itself. Each `EndpointScope` has its own verdict map, and its own
range of slots in the endpoints maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from kproxy.model import Balance, Protocol
from kproxy.nft.elements import Value, Verdict
from kproxy.table.keys import FrontendKey, PackedSocket, SlotKey, frontend_socket, slot_keys, slot_values
from kproxy.table.names import REMEMBER_PATTERN, ChainName, SetName, endpoints_map


class EndpointScope(Enum):
    """Which of a frontend's lists of endpoints. Value: verdict map, first slot, prefix of chain names."""

    ALL = (SetName.SERVICES, 0, "")
    LOCAL = (SetName.SERVICES_FROM_OUTSIDE, 1 << 24, "outside-")

    def __init__(self, verdicts: SetName, base: int, prefix: str) -> None:
        self.verdicts = verdicts
        self.base = base
        self.prefix = prefix


class SlotChain(NamedTuple):
    """A chain that distributes connections over a number of slots."""

    scope: EndpointScope
    balance: Balance
    slots: int

    @property
    def chain(self) -> str:
        """The chain's name."""
        return f"{self.scope.prefix}{self.balance}-{self.slots}"


_CHAIN = re.compile(rf"({EndpointScope.LOCAL.prefix})?({'|'.join(Balance)})-(\d+)")
NUMBERED = re.compile(rf"{_CHAIN.pattern}|{REMEMBER_PATTERN}")
"""Matches the names of numbered chains, which exist only while an element leads to them."""


def slot_chain_of(verdict: Value | None) -> SlotChain | None:
    """Return the slot chain that a verdict leads to; None if it leads to another chain or to none."""
    return _slot_chain(verdict.text) if isinstance(verdict, Verdict) else None


@lru_cache(maxsize=4096)
def _slot_chain(text: str) -> SlotChain | None:
    """Parse the text of a verdict. Cached, because 10,000 frontends share a few verdicts."""
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
        """Return the verdict that leads to `count` slots with endpoints."""
        chain = SlotChain(scope, self.balance, count + self.refusing).chain if count else self.otherwise
        return Verdict(f"goto {chain}", self.comment)

    @property
    def ordered(self) -> bool:
        """Whether the order of slots matters: with a hash, all nodes must choose the same endpoint."""
        return self.balance in (Balance.CLIENT, Balance.CLIENT_PORT)


def slots(side: FrontendSide, count: int) -> list[SlotKey]:
    """Return the keys of the first `count` slots of a frontend side, in its endpoints map."""
    base = side.scope.base
    return slot_keys(frontend_socket(side.key), range(base, base + count))


def slot_endpoints(
    applied: Mapping[str, Mapping[bytes, Value]], side: FrontendSide, protocol: Protocol
) -> tuple[PackedSocket | None, ...]:
    """Return the endpoints in the slots that the verdict of a frontend side uses; None: an empty slot."""
    slot_chain = slot_chain_of(applied[side.scope.verdicts].get(side.key))
    if slot_chain is None or slot_chain.scope is not side.scope:
        return ()
    endpoints = applied[endpoints_map(protocol)]
    return slot_values(map(endpoints.get, slots(side, slot_chain.slots)))

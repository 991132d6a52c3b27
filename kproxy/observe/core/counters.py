"""Connections by service port and by endpoint, made from counters that start anew.

Elements count new connections in the kernel: those of the map `services` (and of its sibling for clients
from outside) by frontend, those of `endpoints-PROTOCOL` by endpoint. An element that is written anew
counts from zero, and one that goes takes its count along. So what is added up are differences, from one
reading to the next, of an element that is the same: totals only rise. What an element counted after its
last reading is lost with it.

While anybody commits, a dump may lack elements that are there. Such a reading is not `whole`: what it
lacks is remembered until the next one that is, since it would else be counted once more from zero.

By endpoint, connections of a client whom session affinity remembers are not counted: another map leads it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from kproxy.model import Family, Protocol, ServicePortName
from kproxy.nft.elements import Value, Verdict
from kproxy.table.keys import (
    PackedSocket,
    SlotKey,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    slot_frontend,
)
from kproxy.table.layout import EndpointScope, slot_chain_of
from kproxy.table.names import ChainName
from kproxy.table.plan import owner_of as service_of

PATIENCE = 10
"""Readings in a row that lack something, none of them whole, after which it is gone."""

Counted: TypeAlias = tuple[bytes, Value, int]
"""Key and value of an element, and what it has counted."""
Owners: TypeAlias = Mapping[tuple[Protocol, PackedSocket], ServicePortName]
"""The service port of each frontend."""


class EndpointName(NamedTuple):
    """An endpoint of a service port."""

    owner: ServicePortName
    socket: PackedSocket


def owner_of(verdict: Value) -> ServicePortName | None:
    """Whose frontend it is, by its comment, `namespace/service:port`; None for somebody else's element."""
    if not isinstance(verdict, Verdict) or "/" not in verdict.comment:
        return None
    return ServicePortName(service_of(verdict.comment), verdict.comment.partition(":")[2])


def owners_of(services: Iterable[tuple[bytes, Value]]) -> Owners:
    """The service port of each frontend, from the elements of the map `services`."""
    found = ((key, owner_of(verdict)) for key, verdict in services if is_frontend(key))
    return {(frontend_protocol(key), frontend_socket(key)): owner for key, owner in found if owner}


class NoLocal(NamedTuple):
    """How many service ports have endpoints, by a policy Local none of them on this node."""

    internal: int
    external: int


def no_local(services: Iterable[Value], from_outside: Iterable[Value]) -> NoLocal:
    """By the verdicts of ClusterIPs, and of external frontends as clients from outside have them."""

    def discarded(verdicts: Iterable[Value]) -> int:
        return len({v.comment for v in verdicts if isinstance(v, Verdict) and v.chain == ChainName.DISCARD})

    return NoLocal(discarded(services), discarded(from_outside))


class _Rises:
    """What counters rose by between two readings."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, dict[bytes, int]] = {}
        self._missed: dict[Hashable, dict[bytes, tuple[int, int]]] = {}
        """Counts of what may be there though the last reading lacked it, and how many readings did."""

    def take(
        self, where: Hashable, counted: Iterable[tuple[Counted, bytes]], whole: bool
    ) -> Iterator[tuple[Counted, int]]:
        """Of all elements of one place, with what tells each from others: what rose, and by how much."""
        seen, missed, now = self._seen.get(where, {}), self._missed.get(where, {}), dict[bytes, int]()
        before = {identity: count for identity, (count, _) in missed.items()} | seen
        new: list[tuple[Counted, int]] = []
        for element, identity in counted:
            count = now[identity] = element[2]
            if rise := count - before.get(identity, 0):
                new.append((element, rise if rise > 0 else count))
        lacking = {} if whole else before.keys() - now.keys()
        ages = {identity: missed[identity][1] + 1 if identity in missed else 1 for identity in lacking}
        self._missed[where] = {one: (before[one], age) for one, age in ages.items() if age < PATIENCE}
        self._seen[where] = now
        yield from new


class Connections:
    """Totals since the maps were made, or since a service was: one that goes is forgotten."""

    def __init__(self, by_endpoint: bool = False) -> None:
        self.services: dict[ServicePortName, int] = {}
        """Connections that were led to an endpoint,"""
        self.unserved: dict[ServicePortName, int] = {}
        """and those that met none: refused, or with a policy Local dropped."""
        self.endpoints: dict[EndpointName, int] = {}
        """Empty unless `by_endpoint`."""
        self.by_endpoint = by_endpoint
        self._rises = _Rises()
        self._names: dict[ServicePortName, int] = {}
        """How many readings lacked each."""

    def take_frontends(
        self, family: Family, scope: EndpointScope, counted: Iterable[Counted], whole: bool = True
    ) -> None:
        """Add what a verdict map counted since it was last read: all of the map, if it is `whole`."""
        identified = ((e, e[0] + e[1].text.encode()) for e in counted if isinstance(e[1], Verdict))
        for (_, verdict, _), rise in self._rises.take((family, scope), identified, whole):
            owner = owner_of(verdict)
            if owner is not None:
                totals = self.unserved if slot_chain_of(verdict) is None else self.services
                totals[owner] = totals.get(owner, 0) + rise

    def take_endpoints(
        self,
        family: Family,
        protocol: Protocol,
        counted: Iterable[Counted],
        owners: Owners,
        whole: bool = True,
    ) -> None:
        """Add what an endpoints map counted since it was last read: all of the map, if it is `whole`."""
        identified = ((e, e[0] + e[1]) for e in counted if isinstance(e[1], bytes))
        for (key, value, _), rise in self._rises.take((family, protocol), identified, whole):
            owner = owners.get((protocol, slot_frontend(SlotKey(key))))
            if owner is not None and isinstance(value, bytes):
                name = EndpointName(owner, PackedSocket(value))
                self.endpoints[name] = self.endpoints.get(name, 0) + rise

    def keep(self, owners: Owners, whole: bool = True) -> None:
        """Forget all but these and, where they are not `whole`, those of before. Unused ones have zero."""
        lacking = {} if whole else {n: age + 1 for n, age in self._names.items() if age + 1 < PATIENCE}
        self._names = lacking | dict.fromkeys(owners.values(), 0)
        names = sorted(self._names)
        self.services = {name: self.services.get(name, 0) for name in names}
        self.unserved = {name: self.unserved.get(name, 0) for name in names}
        self.endpoints = {name: n for name, n in self.endpoints.items() if name.owner in self.services}

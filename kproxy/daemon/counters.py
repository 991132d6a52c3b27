"""Connections by service port and by endpoint, made from counters that start anew.

The elements of the maps `endpoints-PROTOCOL` count new connections in the kernel. An element that is
written anew counts from zero, one that goes takes its count along, and slots are given to other endpoints.
So what is added up are differences, from one reading to the next, of an element that is the same:
totals only rise. What an element counted after its last reading is lost with it.

Not counted are connections of a client whom session affinity remembers: it is not led to its endpoint by
these maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from kproxy.model import Family, NamespacedName, Protocol, ServicePortName
from kproxy.nft.elements import Value, Verdict, frontend_protocol, slot_prefix
from kproxy.nft.layout import DISCARD

SLOT_BYTES = 4

Counted: TypeAlias = tuple[bytes, bytes, int]
"""Key and value of an element, and what it has counted."""
Owners: TypeAlias = Mapping[tuple[Protocol, bytes], ServicePortName]
"""Whose slots those are whose keys begin so."""


class EndpointName(NamedTuple):
    """An endpoint of a service port."""

    owner: ServicePortName
    socket: bytes
    """Its address and port, as in a map."""


def owners_of(services: Iterable[tuple[bytes, Value]]) -> dict[tuple[Protocol, bytes], ServicePortName]:
    """Whose slots are whose, by the comments in the map `services`: `namespace/service:port`."""
    owners = {}
    for key, verdict in services:
        if isinstance(verdict, Verdict) and "/" in verdict.comment:
            service, _, port = verdict.comment.partition(":")
            namespace, _, name = service.partition("/")
            owner = ServicePortName(NamespacedName(namespace, name), port)
            owners[frontend_protocol(key), slot_prefix(key)] = owner
    return owners


class NoLocal(NamedTuple):
    """How many service ports have endpoints, by a policy Local none of them on this node."""

    internal: int
    external: int


def no_local(services: Iterable[Value], from_outside: Iterable[Value]) -> NoLocal:
    """By the verdicts of ClusterIPs, and of external frontends as clients from outside have them."""

    def discarded(verdicts: Iterable[Value]) -> int:
        return len({v.comment for v in verdicts if isinstance(v, Verdict) and v.chain == DISCARD})

    return NoLocal(discarded(services), discarded(from_outside))


class Connections:
    """Totals since the maps were made, or since a service was: one that goes is forgotten."""

    def __init__(self, by_endpoint: bool = False) -> None:
        self.services: dict[ServicePortName, int] = {}
        self.endpoints: dict[EndpointName, int] = {}
        """Empty unless `by_endpoint`."""
        self._by_endpoint = by_endpoint
        self._seen: dict[tuple[Family, Protocol], dict[bytes, int]] = {}

    def take(self, family: Family, protocol: Protocol, counted: Iterable[Counted], owners: Owners) -> None:
        """Add what a map counted since it was last read: all of the map, or nothing if `counted` raises."""
        before, now = self._seen.get((family, protocol), {}), dict[bytes, int]()
        new: list[tuple[bytes, bytes, int]] = []
        for key, value, count in counted:
            element = key + value  # in another slot, or of another endpoint: another one
            now[element] = count
            if count and (rise := count - before.get(element, 0)):
                new.append((key[:-SLOT_BYTES], value, rise if rise > 0 else count))
        self._seen[family, protocol] = now
        for prefix, value, count in new:
            owner = owners.get((protocol, prefix))
            if owner is not None:
                self._add(owner, value, count)

    def keep(self, owners: Owners) -> None:
        """Forget all but these; those that were never used have zero."""
        names = set(owners.values())
        self.services = {name: self.services.get(name, 0) for name in sorted(names)}
        self.endpoints = {name: n for name, n in self.endpoints.items() if name.owner in names}

    @property
    def slots(self) -> int:
        """How many elements were read last."""
        return sum(map(len, self._seen.values()))

    def _add(self, owner: ServicePortName, value: bytes, count: int) -> None:
        self.services[owner] = self.services.get(owner, 0) + count
        if self._by_endpoint:
            name = EndpointName(owner, value)
            self.endpoints[name] = self.endpoints.get(name, 0) + count

"""Computes totals of connections by service port and by endpoint, from the counters of elements.

Elements count new connections in the kernel: those of the maps `services` and `services-from-outside` by
frontend, those of `endpoints-PROTOCOL` by endpoint. A rewritten element counts from zero, and the count of a
removed element is lost. Therefore the differences between two readings of the same element are added up, and
totals only increase. What an element counted between its last reading and its removal is lost.

While a program commits, a dump may lack existing elements. Such a reading is not `complete`. The counts of
the elements that it lacks are kept until the next complete reading. Otherwise they would be counted again
from zero.

By endpoint, connections of clients with an affinity entry are not counted, because another map serves them.
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
from kproxy.table.plan import owner_of

MAX_INCOMPLETE = 10
"""The number of incomplete readings in a row without an element after which it counts as removed."""

Counted: TypeAlias = tuple[bytes, Value, int]
"""Key, value and counter of an element."""
Owners: TypeAlias = Mapping[tuple[Protocol, PackedSocket], ServicePortName]
"""The service port of each frontend."""


class EndpointName(NamedTuple):
    """An endpoint of a service port."""

    owner: ServicePortName
    socket: PackedSocket


def service_port_of(verdict: Value) -> ServicePortName | None:
    """Return the service port that the comment `namespace/service:port` names; None for foreign elements."""
    if not isinstance(verdict, Verdict) or "/" not in verdict.comment:
        return None
    return ServicePortName(owner_of(verdict.comment), verdict.comment.partition(":")[2])


def owners_of(services: Iterable[tuple[bytes, Value]]) -> Owners:
    """Return the service port of each frontend, from the elements of the map `services`."""
    found = ((key, service_port_of(verdict)) for key, verdict in services if is_frontend(key))
    return {(frontend_protocol(key), frontend_socket(key)): owner for key, owner in found if owner}


class NoLocal(NamedTuple):
    """The number of service ports with policy Local that have endpoints only on other nodes."""

    internal: int
    external: int


def no_local(services: Iterable[Value], from_outside: Iterable[Value]) -> NoLocal:
    """Count the service ports by the verdicts of the maps `services` and `services-from-outside`."""

    def discarded(verdicts: Iterable[Value]) -> int:
        return len({v.comment for v in verdicts if isinstance(v, Verdict) and v.chain == ChainName.DISCARD})

    return NoLocal(discarded(services), discarded(from_outside))


class _Increases:
    """Computes the increase of counters between two readings."""

    def __init__(self) -> None:
        self._last: dict[Hashable, dict[bytes, int]] = {}
        self._missing: dict[Hashable, dict[bytes, tuple[int, int]]] = {}
        """Elements that incomplete readings lacked: their last count, and the number of these readings."""

    def take(
        self, map_id: Hashable, counted: Iterable[tuple[Counted, bytes]], complete: bool
    ) -> Iterator[tuple[Counted, int]]:
        """Return the elements of a map whose counters increased, and by how much.

        `counted` contains all elements, each with bytes that identify it.
        """
        last, missing, now = self._last.get(map_id, {}), self._missing.get(map_id, {}), dict[bytes, int]()
        before = {identity: count for identity, (count, _) in missing.items()} | last
        increased: list[tuple[Counted, int]] = []
        for element, identity in counted:
            count = now[identity] = element[2]
            if increase := count - before.get(identity, 0):
                increased.append((element, increase if increase > 0 else count))
        lacking = {} if complete else before.keys() - now.keys()
        ages = {identity: missing[identity][1] + 1 if identity in missing else 1 for identity in lacking}
        self._missing[map_id] = {one: (before[one], age) for one, age in ages.items() if age < MAX_INCOMPLETE}
        self._last[map_id] = now
        yield from increased


class Connections:
    """Totals since the maps were created. The totals of a removed service are forgotten."""

    def __init__(self, by_endpoint: bool = False) -> None:
        self.services: dict[ServicePortName, int] = {}
        """Connections that were sent to an endpoint."""
        self.unserved: dict[ServicePortName, int] = {}
        """Connections without an endpoint: refused, or dropped by policy Local."""
        self.endpoints: dict[EndpointName, int] = {}
        """Empty unless `by_endpoint`."""
        self.by_endpoint = by_endpoint
        self.full_names: Mapping[bytes, ServicePortName] = {}
        """Owners of the frontends whose comment is too short for the name of the owner, by key."""
        self._increases = _Increases()
        self._names: dict[ServicePortName, int] = {}
        """All service ports, with the number of incomplete readings that lacked them."""

    def take_frontends(
        self, family: Family, scope: EndpointScope, counted: Iterable[Counted], complete: bool = True
    ) -> None:
        """Add a reading of a verdict map."""
        identified = ((e, e[0] + e[1].text.encode()) for e in counted if isinstance(e[1], Verdict))
        for (_, verdict, _), increase in self._increases.take((family, scope), identified, complete):
            owner = service_port_of(verdict)
            if owner is not None:
                totals = self.unserved if slot_chain_of(verdict) is None else self.services
                totals[owner] = totals.get(owner, 0) + increase

    def take_endpoints(
        self,
        family: Family,
        protocol: Protocol,
        counted: Iterable[Counted],
        owners: Owners,
        complete: bool = True,
    ) -> None:
        """Add a reading of an endpoints map."""
        identified = ((e, e[0] + e[1]) for e in counted if isinstance(e[1], bytes))
        for (key, value, _), increase in self._increases.take((family, protocol), identified, complete):
            owner = owners.get((protocol, slot_frontend(SlotKey(key))))
            if owner is not None and isinstance(value, bytes):
                name = EndpointName(owner, PackedSocket(value))
                self.endpoints[name] = self.endpoints.get(name, 0) + increase

    def retain(self, owners: Owners, complete: bool = True) -> None:
        """Forget the totals of all other service ports, if the reading is complete. New ones start at 0."""
        lacking = (
            {} if complete else {n: age + 1 for n, age in self._names.items() if age + 1 < MAX_INCOMPLETE}
        )
        self._names = lacking | dict.fromkeys(owners.values(), 0)
        names = sorted(self._names)
        self.services = {name: self.services.get(name, 0) for name in names}
        self.unserved = {name: self.unserved.get(name, 0) for name in names}
        self.endpoints = {name: n for name, n in self.endpoints.items() if name.owner in self.services}

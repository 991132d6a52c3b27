"""Computes totals of connections by service port and by endpoint, from the counters of elements.

Elements count new connections in the kernel: those of the maps `services` and `services-from-outside` by
frontend, those of `endpoints-PROTOCOL` by endpoint. A rewritten element counts from zero, and the count of a
removed element is lost. Therefore the differences between two readings of the same element are added up, and
totals only increase. What an element counted between its last reading and its removal is lost.

While a program commits, a dump may lack existing elements. Such a reading is not `complete`. The counts of
the elements that it lacks are kept until the next complete reading. Otherwise they would be counted again
from zero.

Refused connections are counted elsewhere (refused.py). By endpoint, connections of clients with an affinity
entry are not counted, because another map serves them. A table with many endpoints does not count by
endpoint at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import _lru_cache_wrapper, lru_cache
from typing import Any, NamedTuple, TypeAlias

from kproxy.model import Family, Protocol, ServicePortName
from kproxy.nft.elements import Value, Verdict
from kproxy.table.layout import (
    ChainName,
    EndpointScope,
    PackedSocket,
    SlotKey,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    pack_socket,
    slot_chain_of,
    slot_frontend,
)
from kproxy.table.plan import owner_of

FEW = 1000
"""Results that a cache may have even if none is used."""
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
    return _named_in(verdict.comment) if isinstance(verdict, Verdict) else None


@lru_cache(maxsize=1 << 17)
def _named_in(comment: str) -> ServicePortName | None:
    """Parse a comment. Cached, because each scrape reads all of them."""
    return ServicePortName(owner_of(comment), comment.partition(":")[2]) if "/" in comment else None


def forget_unused(cache: _lru_cache_wrapper[Any], used: int) -> None:
    """Empty a cache that has more than twice as many results as are used."""
    if cache.cache_info().currsize > 2 * used + FEW:
        cache.cache_clear()


def forget_names(used: int) -> None:
    """Forget the names of Services if most of them have been removed. There are at most `used` names."""
    forget_unused(_named_in, used)


def owners_of(services: Iterable[tuple[bytes, Value]]) -> Owners:
    """Return the service port of each frontend, from the elements of the map `services`."""
    found = ((key, service_port_of(verdict)) for key, verdict in services if is_frontend(key))
    return {(frontend_protocol(key), frontend_socket(key)): owner for key, owner in found if owner}


class NoLocal(NamedTuple):
    """The number of service ports with policy Local that have endpoints only on other nodes."""

    internal: int
    external: int


class Members(NamedTuple):
    """What the elements of one verdict map say, without their counters."""

    frontends: int
    without_local: int
    """The number of service ports that discard packets, because their endpoints are on other nodes."""
    names: frozenset[ServicePortName]


def members_of(elements: Iterable[tuple[bytes, Value]]) -> Members:
    """Summarize the elements of the map `services` or `services-from-outside`."""
    verdicts = [verdict for key, verdict in elements if is_frontend(key) and isinstance(verdict, Verdict)]
    return Members(
        len(verdicts),
        len({verdict.comment for verdict in verdicts if verdict.chain == ChainName.DISCARD}),
        frozenset(name for name in map(service_port_of, verdicts) if name is not None),
    )


NO_MEMBERS = Members(0, 0, frozenset())


def _elements(counted: Iterable[Counted]) -> list[tuple[bytes, Value]]:
    return [(key, value) for key, value, _ in counted]


class _Increases:
    """Computes the increase of counters between two readings."""

    def __init__(self) -> None:
        self._last: dict[Hashable, Sequence[Counted]] = {}
        self._missing: dict[Hashable, dict[bytes, tuple[int, int]]] = {}
        """Elements that incomplete readings lacked: their last count, and the number of these readings."""

    def take(
        self, map_id: Hashable, counted: Sequence[Counted], complete: bool
    ) -> Iterable[tuple[Counted, int]]:
        """Return the elements of a map whose counters increased, and by how much.

        `counted` contains all elements of a reading.
        """
        last, missing = self._last.get(map_id, []), self._missing.get(map_id)
        self._last[map_id] = counted
        if counted is last and not missing:  # the same reading as before
            return []
        changed = [(e, before) for e, before in zip(counted, last, strict=False) if e != before]
        if missing or len(counted) != len(last) or any(e[:2] != before[:2] for e, before in changed):
            return self._compare(map_id, last, counted, complete)
        return [(e, _increase(e[2], before[2])) for e, before in changed]

    def forget(self, map_id: Hashable) -> None:
        """Forget the last reading of a map. What its elements count in the next one is an increase."""
        self._last.pop(map_id, None)
        self._missing.pop(map_id, None)

    def _compare(
        self, map_id: Hashable, last: Sequence[Counted], counted: Sequence[Counted], complete: bool
    ) -> list[tuple[Counted, int]]:
        """Compare two readings that do not have the same elements in the same order."""
        missing = self._missing.get(map_id, {})
        before = {identity: count for identity, (count, _) in missing.items()}
        before |= {_identity(element): element[2] for element in last}
        now = {_identity(element): element for element in counted}
        lacking = {} if complete else before.keys() - now.keys()
        ages = {identity: missing[identity][1] + 1 if identity in missing else 1 for identity in lacking}
        self._missing[map_id] = {one: (before[one], age) for one, age in ages.items() if age < MAX_INCOMPLETE}
        counts = ((element, element[2], before.get(identity, 0)) for identity, element in now.items())
        return [(element, _increase(count, old)) for element, count, old in counts if count != old]


def _increase(count: int, before: int) -> int:
    return count - before if count >= before else count


def _identity(element: Counted) -> bytes:
    """Return bytes that another element has after this one was rewritten."""
    key, value, _ = element
    return key + (value.text.encode() if isinstance(value, Verdict) else value)


class Connections:
    """Totals since the maps were created. The totals of a removed service are forgotten."""

    def __init__(self, by_endpoint: bool = False) -> None:
        self.services: dict[ServicePortName, int] = {}
        """Connections that were sent to an endpoint."""
        self.endpoints: dict[EndpointName, int] = {}
        """Empty unless `by_endpoint`."""
        self.by_endpoint = by_endpoint
        self.full_names: Mapping[bytes, ServicePortName] = {}
        """Owners of the frontends whose comment is too short for the name of the owner, by key."""
        self._increases = _Increases()
        self._names: dict[ServicePortName, int] = {}
        """All service ports, with the number of incomplete readings that lacked them."""
        self._present: frozenset[ServicePortName] = frozenset()
        """The service ports of the last reading, if it was complete."""
        self._members: dict[Hashable, tuple[Sequence[Counted], Members]] = {}
        self.changes = self.renamed = 0
        """How often totals changed, and how often the service ports did."""

    def take_frontends(
        self, family: Family, scope: EndpointScope, counted: Sequence[Counted], complete: bool = True
    ) -> Members:
        """Add a reading of a verdict map. Returns what its elements say."""
        for (_, verdict, _), increase in self._increases.take((family, scope), counted, complete):
            self.changes += 1
            owner = service_port_of(verdict)
            if owner is not None and slot_chain_of(verdict) is not None:
                self.services[owner] = self.services.get(owner, 0) + increase
        last, members = self._members.get((family, scope), ((), NO_MEMBERS))
        if counted is not last and _elements(counted) != _elements(last):  # mostly only the counters differ
            members = members_of(_elements(counted))
        self._members[family, scope] = counted, members
        return members

    def take_endpoints(
        self,
        family: Family,
        protocol: Protocol,
        counted: Sequence[Counted],
        owners: Owners,
        complete: bool = True,
    ) -> None:
        """Add a reading of an endpoints map."""
        for (key, value, _), increase in self._increases.take((family, protocol), counted, complete):
            self.changes += 1
            owner = owners.get((protocol, slot_frontend(SlotKey(key))))
            if owner is not None and isinstance(value, bytes):
                name = EndpointName(owner, PackedSocket(value))
                self.endpoints[name] = self.endpoints.get(name, 0) + increase

    def forget_endpoints(self, family: Family) -> None:
        """Forget the totals of a family's endpoints, because its table does not count by endpoint."""
        for protocol in Protocol:
            self._increases.forget((family, protocol))
        width = len(pack_socket(bytes(family.width), 0))
        kept = {name: total for name, total in self.endpoints.items() if len(name.socket) != width}
        if len(kept) != len(self.endpoints):
            self.changes += 1
        self.endpoints = kept

    def retain(self, present: frozenset[ServicePortName], complete: bool = True) -> None:
        """Forget the totals of all other service ports, if the reading is complete. New ones start at 0."""
        if complete and present == self._present:
            return
        self._present = present if complete else frozenset()
        self.changes, self.renamed = self.changes + 1, self.renamed + 1
        forget_names(len(present))
        lacking = (
            {} if complete else {n: age + 1 for n, age in self._names.items() if age + 1 < MAX_INCOMPLETE}
        )
        self._names = lacking | dict.fromkeys(present, 0)
        names = sorted(self._names)
        self.services = {name: self.services.get(name, 0) for name in names}
        self.endpoints = {name: n for name, n in self.endpoints.items() if name.owner in self.services}

"""What the tables are to contain, by service, as frontends.

`change` and `deltas` compute what a change of some services means for the elements of a family, at the cost
of these services only. `desired` is the whole. The sum of all changes is the whole, in any order of changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from kproxy.model import Family, Frontend, NamespacedName, Protocol
from kproxy.problems import Problem, RefusedElement
from kproxy.resolve.claims import Claims, FrontendClaim
from kproxy.table.compile import Delta, Desired, compile_frontends, difference
from kproxy.table.keys import (
    HairpinKey,
    SlotKey,
    frontend_protocol,
    frontend_socket,
    hairpin_key,
    slot_frontend,
)
from kproxy.table.names import SetName, endpoints_map
from kproxy.table.plan import owner_of

ENDPOINTS = frozenset(map(endpoints_map, Protocol))


class ServiceChange(NamedTuple):
    """The frontends of a service before and after a change."""

    before: tuple[Frontend, ...]
    after: tuple[Frontend, ...]
    unwanted: frozenset[HairpinKey]
    """Hairpin keys that it no longer has, and that no other service has."""


class Intent:
    """The frontends of all services, and how many services have each hairpin pair, which several may have."""

    def __init__(self) -> None:
        self._claims = Claims()
        self._pairs: Counter[HairpinKey] = Counter()
        self._services = self._frontends = 0

    @property
    def totals(self) -> tuple[int, int]:
        """How many services have frontends, and how many frontends there are."""
        return self._services, self._frontends

    def change(
        self, wanted: Mapping[NamespacedName, FrontendClaim | None]
    ) -> dict[NamespacedName, ServiceChange]:
        """Replace the claims of these services (None: remove it); the change of each affected service."""
        changes = self._claims.change(wanted)
        for before, after in changes.values():
            self._services += bool(after) - bool(before)
            self._frontends += len(after) - len(before)
        return {name: ServiceChange(*shown, self._count(*shown)) for name, shown in changes.items()}

    def deltas(
        self, changes: Mapping[NamespacedName, ServiceChange], family: Family
    ) -> dict[NamespacedName, Delta]:
        """The changes of a family's elements, by service. They can be applied in any order, or alone."""
        found: dict[NamespacedName, Delta] = {}
        for name, (before, after, unwanted) in changes.items():
            delta = difference(compile_frontends(before, family), compile_frontends(after, family))
            pairs = delta.elements[SetName.HAIRPIN]
            for pair in [pair for pair, value in pairs.items() if value is None and pair not in unwanted]:
                del pairs[pair]
            if delta:
                found[name] = delta
        _let_takers_win(found.values())
        return found

    def whole(self, name: NamespacedName, family: Family) -> Delta:
        """Everything that the table is to contain of one service."""
        own = self._claims.frontends(name)
        return difference(compile_frontends((), family), compile_frontends(own, family))

    def desired(self, family: Family, without: Collection[NamespacedName] = ()) -> Desired:
        """Everything that the table of a family is to contain, except for the services in `without`."""
        frontends = self.frontends()
        return compile_frontends((f for f in frontends if f.owner.service not in without), family)

    def frontends(self) -> Iterable[Frontend]:
        """All frontends, in order of the services' names."""
        return self._claims.all_frontends()

    def frontends_of(self, name: NamespacedName) -> tuple[Frontend, ...]:
        """The frontends of a service."""
        return tuple(self._claims.frontends(name))

    def has_frontends(self, name: NamespacedName) -> bool:
        """Whether a service has any."""
        return bool(self._claims.frontends(name))

    def owners(self, elements: Collection[RefusedElement], family: Family) -> set[NamespacedName]:
        """The services that these elements belong to. Several may share an address or a hairpin pair."""
        places = {_place(element) for element in elements}
        if not places:
            return set()
        said = {owner_of(element.owner) for element in elements if element.owner}
        found = {name for name in self.names() if not places.isdisjoint(_places(self.whole(name, family)))}
        return found | (said & self.names())

    def problems(self) -> list[Problem]:
        """Addresses and ports that several services claim."""
        return self._claims.problems()

    def warnings(self) -> list[Problem]:
        """Services that drop packets because of a traffic policy Local."""
        return self._claims.warnings()

    def names(self) -> set[NamespacedName]:
        """All services."""
        return self._claims.names()

    def _count(self, before: Iterable[Frontend], after: Iterable[Frontend]) -> frozenset[HairpinKey]:
        had, has = _pairs(before), _pairs(after)
        self._pairs.update(has)
        self._pairs.subtract(had)
        unwanted = frozenset(pair for pair in had - has if not self._pairs[pair])
        for pair in unwanted:
            del self._pairs[pair]
        return unwanted


def _place(element: RefusedElement) -> tuple[str, bytes]:
    """A set and a key in it; of a slot, the frontend's socket instead, which its slots have in common."""
    is_slot = element.set in ENDPOINTS
    return element.set, slot_frontend(SlotKey(element.key)) if is_slot else element.key


def _places(delta: Delta) -> Iterator[tuple[str, bytes]]:
    """Where a service has elements, as `_place` says it."""
    for scope, key in delta.specs:
        yield scope.verdicts, key
        yield endpoints_map(frontend_protocol(key)), frontend_socket(key)
    yield from ((name, key) for name, members in delta.elements.items() for key in members)


def _pairs(frontends: Iterable[Frontend]) -> set[HairpinKey]:
    return {hairpin_key(address) for frontend in frontends for address in frontend.local}


def _let_takers_win(deltas: Collection[Delta]) -> None:
    """If one delta removes what another adds, drop the removal: so their order does not matter."""
    if len(deltas) < 2:
        return
    taken = {place for delta in deltas for place, target in delta.specs.items() if target is not None}
    put = {
        (name, key)
        for delta in deltas
        for name, members in delta.elements.items()
        for key, value in members.items()
        if value is not None
    }
    for delta in deltas:
        for place in [place for place, target in delta.specs.items() if target is None and place in taken]:
            del delta.specs[place]
        for name, members in delta.elements.items():
            for key in [key for key, value in members.items() if value is None and (name, key) in put]:
                del members[key]

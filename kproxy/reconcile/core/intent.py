"""The desired frontends of each service.

`change` and `deltas` compute how a change of some services changes the elements of a family. That takes time
in proportion to these services only. `desired` returns all elements. All changes together give the same
elements as `desired`, in any order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from kproxy.model import Family, Frontend, NamespacedName, Protocol
from kproxy.problems import Problem, RefusedElement
from kproxy.resolve.claims import Claims, FrontendClaim
from kproxy.table.compile import Delta, Desired, compile_frontends, difference
from kproxy.table.layout import (
    SlotKey,
    endpoints_map,
    frontend_protocol,
    frontend_socket,
    slot_frontend,
)
from kproxy.table.plan import owner_of

ENDPOINTS = frozenset(map(endpoints_map, Protocol))


class ServiceChange(NamedTuple):
    """The frontends of a service before and after a change."""

    before: tuple[Frontend, ...]
    after: tuple[Frontend, ...]


class Intent:
    """The frontends of all services."""

    def __init__(self) -> None:
        self._claims = Claims()
        self._services = self._frontends = 0

    @property
    def totals(self) -> tuple[int, int]:
        """The numbers of services with frontends, and of frontends."""
        return self._services, self._frontends

    def change(
        self, claims: Mapping[NamespacedName, FrontendClaim | None]
    ) -> dict[NamespacedName, ServiceChange]:
        """Replace the claims of services; None removes one. Returns the change of each affected service."""
        changes = self._claims.change(claims)
        for before, after in changes.values():
            self._services += bool(after) - bool(before)
            self._frontends += len(after) - len(before)
        return {name: ServiceChange(*change) for name, change in changes.items()}

    def deltas(
        self, changes: Mapping[NamespacedName, ServiceChange], family: Family
    ) -> dict[NamespacedName, Delta]:
        """Return the changes of a family's elements by service. They can be applied singly, in any order."""
        found: dict[NamespacedName, Delta] = {}
        for name, (before, after) in changes.items():
            delta = difference(compile_frontends(before, family), compile_frontends(after, family))
            if delta:
                found[name] = delta
        _prefer_additions(found.values())
        return found

    def whole(self, name: NamespacedName, family: Family) -> Delta:
        """Return the addition of everything that the table is to contain of one service."""
        frontends = self._claims.frontends(name)
        return difference(compile_frontends((), family), compile_frontends(frontends, family))

    def desired(self, family: Family, without: Collection[NamespacedName] = ()) -> Desired:
        """Return the desired content of the table of a family, except for services in `without`."""
        frontends = self.frontends()
        return compile_frontends((f for f in frontends if f.owner.service not in without), family)

    def frontends(self) -> Iterable[Frontend]:
        """Return all frontends, sorted by service."""
        return self._claims.all_frontends()

    def frontends_of(self, name: NamespacedName) -> tuple[Frontend, ...]:
        """Return the frontends of a service."""
        return tuple(self._claims.frontends(name))

    def has_frontends(self, name: NamespacedName) -> bool:
        """Whether a service has frontends."""
        return bool(self._claims.frontends(name))

    def owners(self, elements: Collection[RefusedElement], family: Family) -> set[NamespacedName]:
        """Return the services to which these elements belong. An element may belong to several."""
        locations = {_location(element) for element in elements}
        if not locations:
            return set()
        named = {owner_of(element.owner) for element in elements if element.owner}
        found = {
            name for name in self.names() if not locations.isdisjoint(_locations(self.whole(name, family)))
        }
        return found | (named & self.names())

    def problems(self) -> list[Problem]:
        """Return a problem for each address and port that several services claim."""
        return self._claims.problems()

    def warnings(self) -> list[Problem]:
        """Return a warning for each service that drops packets because of a traffic policy Local."""
        return self._claims.warnings()

    def names(self) -> set[NamespacedName]:
        """Return the names of all services."""
        return self._claims.names()


def _location(element: RefusedElement) -> tuple[str, bytes]:
    """Return the set and the key of an element. The slots of a frontend have its socket as their key."""
    is_slot = element.set in ENDPOINTS
    return element.set, slot_frontend(SlotKey(element.key)) if is_slot else element.key


def _locations(delta: Delta) -> Iterator[tuple[str, bytes]]:
    """Return the elements of a service, in the form of `_location`."""
    for scope, key in delta.specs:
        yield scope.verdicts, key
        yield endpoints_map(frontend_protocol(key)), frontend_socket(key)
    yield from ((name, key) for name, members in delta.elements.items() for key in members)


def _prefer_additions(deltas: Collection[Delta]) -> None:
    """Drop the removal of elements that another delta adds. So the order of deltas does not matter."""
    if len(deltas) < 2:
        return
    added_sides = {side for delta in deltas for side, spec in delta.specs.items() if spec is not None}
    added = {
        (name, key)
        for delta in deltas
        for name, members in delta.elements.items()
        for key, value in members.items()
        if value is not None
    }
    for delta in deltas:
        for side in [side for side, spec in delta.specs.items() if spec is None and side in added_sides]:
            del delta.specs[side]
        for name, members in delta.elements.items():
            for key in [key for key, value in members.items() if value is None and (name, key) in added]:
                del members[key]

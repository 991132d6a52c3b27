"""What the tables are to hold, kept as services change: by service, as frontends.

`change` says what a change of some services is for the elements of each family, at the cost of these
services alone; `desired` is everything at once. Whatever the order of changes, both say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from kproxy.compile.elements import Delta, Desired, compile_frontends, difference
from kproxy.model import Family, Frontend, NamespacedName
from kproxy.problems import Problem
from kproxy.resolve.claims import Claim, Claims

SHARED = ("hairpin",)
"""Sets of which several services may have the same element."""


class Intent:
    """The frontends of all services, and how often each shared element is wanted."""

    def __init__(self) -> None:
        self._claims = Claims()
        self._wanted: dict[str, Counter[bytes]] = {name: Counter() for name in SHARED}

    def change(
        self, wanted: Mapping[NamespacedName, Claim | None]
    ) -> dict[Family, dict[NamespacedName, Delta]]:
        """Replace these services (None: it goes); what is to be done for it, for each service concerned.

        Deltas of several services can be applied in any order, and each alone.
        """
        deltas: dict[Family, dict[NamespacedName, Delta]] = {family: {} for family in Family}
        for name, shown in self._claims.change(wanted).items():
            for family in Family:
                before = compile_frontends(shown.before, family)
                after = compile_frontends(shown.after, family)
                delta = difference(before, after)
                self._count(before, after, delta)
                if delta:
                    deltas[family][name] = delta
        for found in deltas.values():
            _let_takers_win(found.values())
        return deltas

    def whole(self, name: NamespacedName, family: Family) -> Delta:
        """All that the table is to hold of one service."""
        return difference(compile_frontends((), family), compile_frontends(self._claims.shown(name), family))

    def desired(self, family: Family, without: Collection[NamespacedName] = ()) -> Desired:
        """Everything that the table of a family is to hold, those services aside."""
        frontends = self.frontends()
        return compile_frontends((f for f in frontends if f.owner.service not in without), family)

    def frontends(self) -> Iterable[Frontend]:
        """All frontends, in order of the services' names."""
        return self._claims.everything()

    def problems(self) -> list[Problem]:
        """Where several services want to be shown."""
        return self._claims.problems()

    def names(self) -> set[NamespacedName]:
        """The services that there are."""
        return self._claims.names()

    def _count(self, before: Desired, after: Desired, delta: Delta) -> None:
        """Count shared elements, and take out of `delta` what others still want."""
        for name, counts in self._wanted.items():
            counts.update(after.elements[name].keys())
            counts.subtract(before.elements[name].keys())
            for key in before.elements[name].keys() - after.elements[name].keys():
                if counts[key]:
                    del delta.elements[name][key]
                else:
                    del counts[key]


def _let_takers_win(deltas: Collection[Delta]) -> None:
    """What one service gives up and another one takes is only taken: so their order does not matter."""
    if len(deltas) < 2:
        return
    taken = {place for delta in deltas for place, target in delta.targets.items() if target is not None}
    put = {
        (name, key)
        for delta in deltas
        for name, members in delta.elements.items()
        for key, value in members.items()
        if value is not None
    }
    for delta in deltas:
        for place in [place for place, target in delta.targets.items() if target is None and place in taken]:
            del delta.targets[place]
        for name, members in delta.elements.items():
            for key in [key for key, value in members.items() if value is None and (name, key) in put]:
                del members[key]

"""The frontends of some services as a table contains them, whatever is desired."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from kproxy.model import NamespacedName
from kproxy.nft.elements import Elements, Verdict
from kproxy.table.keys import PackedSocket, frontend_protocol, is_frontend
from kproxy.table.layout import EndpointScope, FrontendSide, held_slots
from kproxy.table.plan import owner_of


class ProgrammedSide(NamedTuple):
    """One side of a frontend, and its endpoints."""

    service: NamespacedName
    side: FrontendSide
    endpoints: frozenset[PackedSocket]


def programmed_sides(applied: Elements, services: Collection[NamespacedName]) -> Iterator[ProgrammedSide]:
    """The frontend sides of these services. Costs as much as the table has frontends."""
    for scope in EndpointScope:
        for key, verdict in applied.get(scope.verdicts, {}).items():
            if not is_frontend(key) or not isinstance(verdict, Verdict):
                continue
            service, side = owner_of(verdict.comment), FrontendSide(scope, key)
            if service in services:
                found = held_slots(applied, side, frontend_protocol(key))
                yield ProgrammedSide(service, side, frozenset(filter(None, found)))

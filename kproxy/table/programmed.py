"""Finds the frontends that a table contains for services, independently of what is desired."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from kproxy.model import NamespacedName
from kproxy.nft.elements import Elements, Verdict
from kproxy.table.layout import (
    EndpointScope,
    FrontendSide,
    PackedSocket,
    frontend_protocol,
    is_frontend,
    slot_endpoints,
)
from kproxy.table.plan import owner_of


class ProgrammedSide(NamedTuple):
    """A frontend side in a table, and its endpoints."""

    service: NamespacedName
    side: FrontendSide
    endpoints: frozenset[PackedSocket]


def programmed_sides(applied: Elements, services: Collection[NamespacedName]) -> Iterator[ProgrammedSide]:
    """Return the frontend sides of `services` in the table. Takes time in proportion to its frontends."""
    for scope in EndpointScope:
        for key, verdict in applied.get(scope.verdicts, {}).items():
            if not is_frontend(key) or not isinstance(verdict, Verdict):
                continue
            service, side = owner_of(verdict.comment), FrontendSide(scope, key)
            if service in services:
                found = slot_endpoints(applied, side, frontend_protocol(key))
                yield ProgrammedSide(service, side, frozenset(filter(None, found)))

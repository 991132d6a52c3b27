"""Who has what, while it is being worked out, and what is remembered of it afterwards.

A resource belongs to one claim at a time. What a claim let go of is given to others
last: a client may still send to it. Pure; state/store.py keeps `Allocations`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from kproxy.controlplane.ranges import LOAD_BALANCER, Span
from kproxy.model import Address, Family, NamespacedName, format_address

REMEMBERED = 1024
"""Released resources of one span that are remembered, the last ones."""


class Claim(NamedTuple):
    """What an allocation is for: a ClusterIP, a node port, a load-balancer address of a service."""

    service: NamespacedName
    what: str
    """A family's name; `PORTNAME/PROTOCOL`, `healthCheckNodePort/tcp`; `loadBalancer/FAMILY`."""


class Resource(NamedTuple):
    """What only one service can have: an address (kind: its family), a node port (kind: its protocol)."""

    kind: str
    value: int

    def __str__(self) -> str:
        """An address, or `30123/tcp`."""
        return f"{self.value}/{self.kind}" if self.kind not in list(Family) else format_address(self.address)

    @property
    def address(self) -> Address:
        """Packed; of an address only."""
        return self.value.to_bytes(4 if self.kind == Family.IPV4 else 16, "big")


class Allocations(NamedTuple):
    """What was given out, and what is to be given out last."""

    held: Mapping[Claim, Resource]
    released: Mapping[Resource, Claim]
    """By whom; what was released longest ago comes first."""

    def pool_addresses(self) -> dict[Address, NamespacedName]:
        """The addresses of --load-balancer-pool that were given out, and to which service."""
        return {
            resource.address: claim.service
            for claim, resource in self.held.items()
            if claim.what.startswith(LOAD_BALANCER)
        }


NOTHING = Allocations({}, {})


class Ledger:
    """Who has what. `past` is what was given out before: none of it is given to another if that can be."""

    def __init__(self, spans: Mapping[str, Span], past: Allocations) -> None:
        self.spans = spans
        self.families = tuple(Family(name) for name in spans if name in list(Family))
        self.owners: dict[Resource, Claim] = {}
        self.claims: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)
        self._past = past
        self._let_go = {claim: resource for resource, claim in past.released.items()}
        # Of a span whose unused numbers are all taken: what is left, in the order in which it is given out.
        self._worn: dict[str, Iterator[Resource]] = {}
        self._by_release: dict[str, list[Resource]] = {}

    @cached_property
    def _used(self) -> Set[Resource]:
        return {*self._past.released, *self._past.held.values()}

    def span_name(self, claim: Claim) -> str:
        """What span a claim's resource comes from; it need not exist."""
        return claim.what if claim.what in self.spans else claim.what.rpartition("/")[2]

    def allows(self, claim: Claim, resource: Resource) -> bool:
        """Whether a resource is where the claim's should be; where no span is known, everything is."""
        span = self.spans.get(self.span_name(claim))
        return span is None or span.has(resource.value)

    def take(self, claim: Claim, resource: Resource) -> bool:
        """Whether `claim`, which had nothing else, has `resource` now; False if another claim has it."""
        if self.owners.setdefault(resource, claim) != claim:
            return False
        self.claims[claim.service][claim] = resource
        return True

    def drop(self, claim: Claim) -> None:
        """Let go of what a claim has, if it has something."""
        resource = self.claims[claim.service].pop(claim, None)
        if resource is not None:
            del self.owners[resource]
            self._worn.pop(self.span_name(claim), None)

    def keep_only(self, service: NamespacedName, needed: Set[Claim]) -> None:
        """Let go of what a service held for ports or families that it no longer has."""
        for claim in [claim for claim in self.claims[service] if claim not in needed]:
            self.drop(claim)

    def of(self, claim: Claim) -> Resource | None:
        """What a claim has."""
        return self.claims[claim.service].get(claim)

    def allocate(self, claim: Claim, but: Set[Resource] = frozenset()) -> Resource | None:
        """Something free that is not in `but`; None if there is nothing.

        First what this very claim let go of last; then what nobody had, at the first such place
        that the claim's name leads to; then what was released longest ago.
        """
        name, kind, used = self.span_name(claim), claim.what.rpartition("/")[2], self._used
        span = self.spans[name]
        own = self._let_go.get(claim) if self._let_go else None
        if own is not None and span.has(own.value) and own not in but and self.take(claim, own):
            return own
        if name not in self._worn:
            for value in span.places(f"{claim.service} {claim.what}"):
                resource = Resource(kind, value)
                if resource not in used and resource not in but and self.take(claim, resource):
                    return resource
            if name not in self._by_release:
                self._by_release[name] = list(self._used_before(kind, span))
            self._worn[name] = iter(self._by_release[name])
        for resource in self._worn[name]:
            if resource not in but and self.take(claim, resource):
                return resource
        return None

    def _used_before(self, kind: str, span: Span) -> Iterator[Resource]:
        """What was released, longest ago first; at last what was held until now, and may be free by now."""
        every = chain(self._past.released, sorted(self._past.held.values()))
        return (resource for resource in every if resource.kind == kind and span.has(resource.value))

    def allocations(self) -> Allocations:
        """What is to be remembered."""
        held = {claim: resource for mine in self.claims.values() for claim, resource in mine.items()}
        gone = sorted((c, r) for c, r in self._past.held.items() if r not in self.owners)
        every = {**self._past.released, **{resource: claim for claim, resource in gone}}
        return Allocations(held, self._remembered({r: c for r, c in every.items() if r not in self.owners}))

    def _remembered(self, released: Mapping[Resource, Claim]) -> dict[Resource, Claim]:
        """The last ones of each span: so many that most of a large one counts as unused."""
        room = {name: min(REMEMBERED, max(64, span.size // 2)) for name, span in self.spans.items()}
        kept = []
        for resource, claim in reversed(list(released.items())):
            name = self.span_name(claim)
            left = room.get(name, REMEMBERED)
            if left:
                room[name] = left - 1
                kept.append((resource, claim))
        return dict(reversed(kept))

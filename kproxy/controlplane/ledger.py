"""Which Service holds which addresses and ports: during allocation, and between rounds.

A resource belongs to one claim at a time. A released resource is allocated to another claim
only if no unused one is left, because clients may still send packets to it. Pure:
state/store.py saves `Allocations`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from msgspec import Struct

from kproxy.controlplane.ranges import LOAD_BALANCER, Span
from kproxy.model import Address, Family, NamespacedName, format_address

REMEMBERED = 1024
"""The maximum number of released resources of one span that are remembered."""


class Claim(NamedTuple):
    """The purpose of one allocation: a ClusterIP, a node port or a load-balancer address of a Service."""

    service: NamespacedName
    what: str
    """FAMILY for a ClusterIP, `PORTNAME/PROTOCOL` or `healthCheckNodePort/tcp` for a node port,
    `loadBalancer/FAMILY` for a load-balancer address."""


class Resource(NamedTuple):
    """An address or node port, which one Service can hold. `kind` is its family or its protocol."""

    kind: str
    value: int

    def __str__(self) -> str:
        """Return an address, or for example `30123/tcp`."""
        return f"{self.value}/{self.kind}" if self.kind not in list(Family) else format_address(self.address)

    @property
    def address(self) -> Address:
        """The packed address. The resource must be an address."""
        return self.value.to_bytes(4 if self.kind == Family.IPV4 else 16, "big")


class Allocations(Struct, frozen=True):
    """Allocated resources, and released ones, which are allocated last."""

    held: Mapping[Claim, Resource]
    released: Mapping[Resource, Claim]
    """Each with the claim that released it, in order of release."""

    def pool_addresses(self) -> dict[Address, NamespacedName]:
        """Return the allocated addresses of --load-balancer-pool and their Services."""
        return {
            resource.address: claim.service
            for claim, resource in self.held.items()
            if claim.what.startswith(LOAD_BALANCER)
        }


NOTHING = Allocations({}, {})


class Ledger:
    """The present holders of resources. Those of `past` are allocated to other claims last."""

    def __init__(self, spans: Mapping[str, Span], past: Allocations) -> None:
        self.spans = spans
        self.families = tuple(Family(name) for name in spans if name in list(Family))
        self.owners: dict[Resource, Claim] = {}
        self.claims: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)
        self._past = past
        self._released_by = {claim: resource for resource, claim in past.released.items()}
        # For each span without unused numbers: the remaining resources, in the order of allocation.
        self._reuse: dict[str, Iterator[Resource]] = {}
        self._by_release: dict[str, list[Resource]] = {}

    @cached_property
    def _used(self) -> Set[Resource]:
        return {*self._past.released, *self._past.held.values()}

    def span_name(self, claim: Claim) -> str:
        """Return the name of the span for a claim's resource. There may be no such span."""
        return claim.what if claim.what in self.spans else claim.what.rpartition("/")[2]

    def contains(self, claim: Claim, resource: Resource) -> bool:
        """Whether a resource is in the claim's span. If there is no such span, every resource is."""
        span = self.spans.get(self.span_name(claim))
        return span is None or span.has(resource.value)

    def allows(self, claim: Claim, resource: Resource) -> bool:
        """Whether a claim may request a resource: any resource, if its span does not restrict requests."""
        span = self.spans.get(self.span_name(claim))
        return span is None or not span.restricts or span.has(resource.value)

    def take(self, claim: Claim, resource: Resource) -> bool:
        """Give a resource to a claim that holds no other. Returns False if another claim holds it."""
        if self.owners.setdefault(resource, claim) != claim:
            return False
        self.claims[claim.service][claim] = resource
        return True

    def drop(self, claim: Claim) -> None:
        """Release what a claim holds, if anything."""
        resource = self.claims[claim.service].pop(claim, None)
        if resource is not None:
            del self.owners[resource]
            self._reuse.pop(self.span_name(claim), None)

    def keep_only(self, service: NamespacedName, needed: Set[Claim]) -> None:
        """Release everything that a Service holds, except for the claims in `needed`."""
        for claim in [claim for claim in self.claims[service] if claim not in needed]:
            self.drop(claim)

    def held_by(self, claim: Claim) -> Resource | None:
        """Return what a claim holds."""
        return self.claims[claim.service].get(claim)

    def allocate(self, claim: Claim, excluded: Set[Resource] = frozenset()) -> Resource | None:
        """Give the claim a free resource that is not `excluded`. Returns None if there is none.

        The order of preference: the resource that this claim released last; the first unused one in the
        order that the claim's name determines; the one that was released longest ago.
        """
        name, kind, used = self.span_name(claim), claim.what.rpartition("/")[2], self._used
        span = self.spans[name]
        own = self._released_by.get(claim) if self._released_by else None
        if own is not None and span.has(own.value) and own not in excluded and self.take(claim, own):
            return own
        if name not in self._reuse:
            for value in span.values_from(f"{claim.service} {claim.what}"):
                resource = Resource(kind, value)
                if resource not in used and resource not in excluded and self.take(claim, resource):
                    return resource
            if name not in self._by_release:
                self._by_release[name] = list(self._used_before(kind, span))
            self._reuse[name] = iter(self._by_release[name])
        for resource in self._reuse[name]:
            if resource not in excluded and self.take(claim, resource):
                return resource
        return None

    def _used_before(self, kind: str, span: Span) -> Iterator[Resource]:
        """Yield released resources in order of release, then those of `past` that are perhaps free now."""
        every = chain(self._past.released, sorted(self._past.held.values()))
        return (resource for resource in every if resource.kind == kind and span.has(resource.value))

    def allocations(self) -> Allocations:
        """Return the new allocations, to be saved."""
        held = {claim: resource for mine in self.claims.values() for claim, resource in mine.items()}
        gone = sorted((c, r) for c, r in self._past.held.items() if r not in self.owners)
        every = {**self._past.released, **{resource: claim for claim, resource in gone}}
        return Allocations(held, self._remembered({r: c for r, c in every.items() if r not in self.owners}))

    def _remembered(self, released: Mapping[Resource, Claim]) -> dict[Resource, Claim]:
        """Return the last ones of each span, limited so that most of a large span counts as unused."""
        room = {name: min(REMEMBERED, max(64, span.size // 2)) for name, span in self.spans.items()}
        remembered = []
        for resource, claim in reversed(list(released.items())):
            name = self.span_name(claim)
            left = room.get(name, REMEMBERED)
            if left:
                room[name] = left - 1
                remembered.append((resource, claim))
        return dict(reversed(remembered))

"""Allocates again and again. An allocation that cannot have another result is not repeated. Pure.

`allocate` is a function of what Services demand, of the past allocations and of the ranges. After an
allocation that changed nothing, equal demands have the same result. Then a changed Service, for example one
with another port, gets the addresses and node ports that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec import Struct
from msgspec.structs import replace

from kproxy.controlplane.allocate import Allocated, allocate
from kproxy.controlplane.differences import changed_keys
from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ranges import Ranges
from kproxy.decode import Unreadable
from kproxy.model import Address, NamespacedName, Service


class _Last(Struct, frozen=True):
    services: dict[NamespacedName, Service]
    allocated: Allocated
    others: tuple[Ranges, tuple[Address, ...], Set[NamespacedName]]
    """The ranges, the addresses in use, and the protected Services that are not among `services`."""


class Allocator:
    """Allocates for one input after another. The results are those of `allocate`."""

    def __init__(self) -> None:
        self._last: _Last | None = None
        """The last allocation, if it changed nothing."""

    def allocate(
        self,
        services: dict[NamespacedName, Service],
        past: Allocations,
        ranges: Ranges,
        unreadable: Unreadable,
        in_use: Iterable[Address],
    ) -> Allocated:
        """Allocate. The result contains `past` itself if all allocations stay as they are."""
        others = (ranges, tuple(in_use), _absent(services, past, unreadable))
        last = _Last(services, Allocated({}, past, [], {}), others)
        found = self._reused(last) or allocate(services.values(), past, ranges, unreadable.covers, in_use)
        is_stable = found.allocations is past or _equal(found.allocations, past)
        if is_stable:
            found = replace(found, allocations=past)
        self._last = replace(last, allocated=found) if is_stable else None
        return found

    def _reused(self, now: _Last) -> Allocated | None:
        """Return the result if that of the last allocation tells it, else None."""
        last = self._last
        if last is None or not _is_alike(last, now):
            return None
        done = dict(last.allocated.services)
        for name in changed_keys(last.services, now.services):
            if name not in done or _demand(last.services[name]) != _demand(now.services[name]):
                return None
            done[name] = _with_allocated(now.services[name], done[name])
        return replace(last.allocated, services=done)


def _is_alike(last: _Last, now: _Last) -> bool:
    """Whether both are equal, except for the content of the Services."""
    return (
        last.allocated.allocations is now.allocated.allocations
        and last.others == now.others
        and list(last.services) == list(now.services)
    )


def _absent(
    services: Mapping[NamespacedName, Service], past: Allocations, unreadable: Unreadable
) -> Set[NamespacedName]:
    """Return the Services with allocations that are missing in the input, perhaps because of an error."""
    if not unreadable:
        return frozenset()
    return set(filter(unreadable.covers, {claim.service for claim in past.held} - services.keys()))


def _equal(one: Allocations, other: Allocations) -> bool:
    """Whether allocations are equal, and released resources were released in the same order."""
    return one.held == other.held and list(one.released.items()) == list(other.released.items())


def _demand(service: Service) -> Service:
    """Return the Service without what its allocations do not depend on."""
    return replace(
        service,
        ports=tuple(replace(port, port=0, target_port=0) for port in service.ports),
        selector={},
        labels={},
        annotations="",
        weights={},
        affinity_timeout=None,
        publish_not_ready=False,
        distribution="",
        source_ranges=(),
    )


def _with_allocated(service: Service, done: Service) -> Service:
    """Return the Service with what was allocated to it before: `done`."""
    numbers = (port.node_port for port in done.ports)
    return replace(
        service,
        families=done.families,
        cluster_ips=done.cluster_ips,
        ports=tuple(
            replace(port, node_port=number) for port, number in zip(service.ports, numbers, strict=True)
        ),
        health_check_node_port=done.health_check_node_port,
        load_balancer_ips=done.load_balancer_ips,
        pool_ips=done.pool_ips,
    )

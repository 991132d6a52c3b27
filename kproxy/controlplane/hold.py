"""Services and endpoints that remain in use although they can no longer be read.

A Service that can no longer be read, or that is refused what it requests, stays as it was. If a
Service can be read, but a part of the input that may concern it cannot, endpoints that no longer
occur in the input stay. A Service that was never read completely may have more elements in the
tables than are known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import chain, count

from msgspec import Struct
from msgspec.structs import replace

from kproxy.controlplane.differences import changed_keys
from kproxy.controlplane.settle import Settled
from kproxy.decode import Unreadable
from kproxy.gatewayapi import GatewayObjects
from kproxy.model import Endpoint, EndpointSlice, NamespacedName, Service, is_gateway
from kproxy.problems import unreadable_sentence


class InUse(Struct, frozen=True):
    """The Services and slices from which the tables are made: settled ones and held ones."""

    services: dict[NamespacedName, Service] = {}
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
    held: dict[NamespacedName, str] = {}
    """Services of which something is held, and why."""
    complete: Set[NamespacedName] = frozenset()
    """Services that were read completely at least once."""


def hold(before: InUse, settled: Settled) -> InUse:
    """Return what is in use after `before` and the new input `settled`. Changes neither."""
    if not settled.has_protected:
        return InUse(settled.services, settled.slices, {}, settled.services.keys())
    services, slices, held = dict(settled.services), dict(settled.slices), dict[NamespacedName, str]()
    for name in filter(settled.protected, before.services):
        earlier = before.slices.get(name, ())
        if name not in services:
            services[name], slices[name] = before.services[name], earlier
        elif missing := _missing(earlier, slices.get(name, ())):
            slices[name] = _merged(slices.get(name, ()), missing)
        else:
            continue
        held[name] = why_held(settled, name, services[name].origin.source)
    complete = {name for name in services if name in before.complete or not settled.protected(name)}
    return InUse(services, slices, held, complete)


def changed(before: InUse, after: InUse) -> set[NamespacedName]:
    """Return the Services that differ, or whose slices differ."""
    resliced = {
        name
        for name in changed_keys(before.slices, after.slices)
        if before.slices.get(name, ()) != after.slices.get(name, ())
        and (name in before.services or name in after.services)
    }
    return changed_keys(before.services, after.services) | resliced


def _missing(earlier: Iterable[EndpointSlice], now: Iterable[EndpointSlice]) -> list[EndpointSlice]:
    """Return the earlier endpoints that do not occur in `now`, not even as endpoints that are not ready."""
    known = {endpoint.address for slice_ in now for endpoint in slice_.endpoints}
    left = (replace(s, endpoints=tuple(e for e in s.endpoints if e.address not in known)) for s in earlier)
    return [slice_ for slice_ in left if slice_.endpoints]


def _merged(now: Sequence[EndpointSlice], missing: Iterable[EndpointSlice]) -> tuple[EndpointSlice, ...]:
    """Add missing endpoints to a slice with the same family and ports, or else their slice as a whole."""
    merged = list(now)
    for extra in missing:
        for index, slice_ in enumerate(merged):
            if _kind(slice_) == _kind(extra):
                merged[index] = replace(slice_, endpoints=_ordered(slice_.endpoints + extra.endpoints))
                break
        else:
            merged.append(extra if extra.legacy else _renamed(extra, {slice_.name for slice_ in merged}))
    return tuple(merged)


def _kind(slice_: EndpointSlice) -> tuple[object, ...]:
    """Return the fields in which two slices must be equal to be merged."""
    return slice_.family, slice_.ports, slice_.headless, slice_.legacy


def _ordered(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Sort endpoints in the order of slices that are made from a selector."""
    return tuple(sorted(endpoints, key=lambda endpoint: (endpoint.pod, endpoint.address)))


def _renamed(slice_: EndpointSlice, taken: Set[str]) -> EndpointSlice:
    """Return the slice with a name that no other slice of the Service has."""
    names = chain([slice_.name], (f"{slice_.name}-{number}" for number in count(1)))
    return replace(slice_, name=next(name for name in names if name not in taken))


def why_held(settled: Settled, name: NamespacedName, source: str = "") -> str:
    """Return why a Service is protected, for example `services/web.yaml cannot be read`; "" if it is not.

    `source` is the file of the Service. If it is among several unreadable files, only this one is named.
    """
    if causes := settled.unreadable.causes(name):
        return unreadable_sentence([cause for cause in causes if cause.source == source] or causes)
    if settled.unreadable.empty:
        return ", ".join(settled.unreadable.empty)
    refusal = settled.refused.get(name)
    return f"{refusal.field}: {refusal.message}" if refusal else ""


def hold_objects(before: GatewayObjects, now: GatewayObjects, unreadable: Unreadable) -> GatewayObjects:
    """Return the objects of the Gateway API that are in use after `before` and the new input `now`.

    While an object that may concern a Gateway cannot be read, objects that were read before stay.
    """
    of_gateways = unreadable.gateways or unreadable.everything or unreadable.empty
    if not of_gateways and not any(map(is_gateway, unreadable.services)):
        return now
    pairs = {name: (getattr(before, name), getattr(now, name)) for name in now.__struct_fields__}
    return GatewayObjects(**{name: {**old, **new} for name, (old, new) in pairs.items()})

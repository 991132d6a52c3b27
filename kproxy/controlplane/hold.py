"""What stays in use although it can no longer be read: services, and endpoints of services.

A service that cannot be read any more, or that cannot have what it asks for now, stays as it was. Of a
service that can be read, an endpoint stays about which the input says nothing any more while a part of
the input that may say something cannot be read. What never was completely read is not known here: the
tables may hold more of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import chain, count

from msgspec import Struct
from msgspec.structs import replace

from kproxy.controlplane.settle import Settled
from kproxy.model import Endpoint, EndpointSlice, NamespacedName, Service
from kproxy.problems import unreadable_sentence


class InUse(Struct, frozen=True):
    """Services and their slices as the tables are made from them: what was settled, and what is held."""

    services: dict[NamespacedName, Service] = {}
    slices: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
    held: dict[NamespacedName, str] = {}
    """Services of which something is held, and why."""
    complete: Set[NamespacedName] = frozenset()
    """Services of which everything could be read once."""


def hold(before: InUse, settled: Settled) -> InUse:
    """What is in use after `before`, now that this was settled. Neither is changed."""
    if not settled.in_doubt:
        return InUse(settled.services, settled.slices, {}, settled.services.keys())
    services, slices, held = dict(settled.services), dict(settled.slices), dict[NamespacedName, str]()
    for name in filter(settled.protected, before.services):
        was = before.slices.get(name, ())
        if name not in services:
            services[name], slices[name] = before.services[name], was
        elif missing := _missing(was, slices.get(name, ())):
            slices[name] = _merged(slices.get(name, ()), missing)
        else:
            continue
        held[name] = why_held(settled, name, services[name].origin.source)
    complete = {name for name in services if name in before.complete or not settled.protected(name)}
    return InUse(services, slices, held, complete)


def changed(before: InUse, after: InUse) -> set[NamespacedName]:
    """The services that are not the same in both."""
    return {
        name
        for name in before.services.keys() | after.services.keys()
        if before.services.get(name) != after.services.get(name)
        or before.slices.get(name, ()) != after.slices.get(name, ())
    }


def _missing(was: Iterable[EndpointSlice], now: Iterable[EndpointSlice]) -> list[EndpointSlice]:
    """Of `was`, the endpoints of which `now` says nothing, not even that they are not ready."""
    known = {endpoint.address for slice_ in now for endpoint in slice_.endpoints}
    left = (replace(s, endpoints=tuple(e for e in s.endpoints if e.address not in known)) for s in was)
    return [slice_ for slice_ in left if slice_.endpoints]


def _merged(now: Sequence[EndpointSlice], missing: Iterable[EndpointSlice]) -> tuple[EndpointSlice, ...]:
    """Both. What is missing joins a slice of its family and ports, else it stays in a slice of its own."""
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
    """What two slices of a service have in common that could be one."""
    return slice_.family, slice_.ports, slice_.headless, slice_.legacy


def _ordered(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """As a selector orders them."""
    return tuple(sorted(endpoints, key=lambda endpoint: (endpoint.pod, endpoint.address)))


def _renamed(slice_: EndpointSlice, taken: Set[str]) -> EndpointSlice:
    """With a name that no other slice of the service has."""
    names = chain([slice_.name], (f"{slice_.name}-{number}" for number in count(1)))
    return replace(slice_, name=next(name for name in names if name not in taken))


def why_held(settled: Settled, name: NamespacedName, source: str = "") -> str:
    """`services/web.yaml cannot be read`, or why it cannot have what it asks for; "" if it is not protected.

    If `source`, the file that it was in, is among several that cannot be read, only that is named.
    """
    if causes := settled.unreadable.causes(name):
        return unreadable_sentence([cause for cause in causes if cause.source == source] or causes)
    refusal = settled.left_out.get(name)
    return f"{refusal.field}: {refusal.message}" if refusal else ""

"""Replaces objects of a state by others of the same kind and name, without collecting all objects again.

Most changes of a file are of this form: an EndpointSlice has other endpoints, a Pod is ready, a Service has
another port. Anything else is collected from all objects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias, TypeGuard

from msgspec.structs import replace

from kproxy.decode.leaves import Leaf, Valid
from kproxy.model import ClusterState, EndpointSlice, NamespacedName, Pod, Service

Pair: TypeAlias = tuple[Leaf | None, Leaf | None]
"""An object before and after; None if there is no such object."""


def replaced(
    state: ClusterState, pairs: Iterable[Pair], repeated: Collection[tuple[str, NamespacedName]]
) -> ClusterState | None:
    """Return a state with the second object of each pair instead of the first; None if that is impossible.

    `repeated`: kind and name of the objects that occur several times.
    """
    services, slices, pods = dict(state.services), dict(state.slices), dict[int, Pod]()
    for old, new in pairs:
        if not (_is_plain(old) and _is_plain(new)) or old.key != new.key or old.key in repeated:
            return None
        if len(old.models) != len(new.models):
            return None
        for models in zip(old.models, new.models, strict=True):
            match models:
                case Service() as one, Service() as other:
                    services[one.name] = other
                case EndpointSlice() as one, EndpointSlice() as other if _is_alike(one, other):
                    places = slices[one.service]
                    if not any(each is one for each in places):
                        return None  # an Endpoints object of a Service with EndpointSlices
                    slices[one.service] = tuple(other if each is one else each for each in places)
                case Pod() as one, Pod() as other:
                    pods[id(one)] = other
                case _:
                    return None
    all_pods = tuple(pods.get(id(each), each) for each in state.pods) if pods else state.pods
    return replace(state, services=services, slices=slices, pods=all_pods)


def _is_plain(leaf: Leaf | None) -> TypeGuard[Valid]:
    """Whether it is a valid object without problems and warnings."""
    return isinstance(leaf, Valid) and not (leaf.warnings or leaf.left_out or leaf.unreadable)


def _is_alike(one: EndpointSlice, other: EndpointSlice) -> bool:
    return (one.service, one.legacy) == (other.service, other.legacy)

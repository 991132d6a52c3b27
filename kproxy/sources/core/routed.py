"""The objects from which the gateway's routes are made.

They are not part of the inventory, because Secrets must not get into the snapshot. An object that can no
longer be read stays as it was, as Services do: its absence may be due to the error in its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from msgspec import Struct

from kproxy.controlplane.hold import InUse
from kproxy.decode import Decoded
from kproxy.gatewayapi import NO_OBJECTS, GatewayObjects
from kproxy.model import (
    Address,
    EndpointSlice,
    Ingress,
    IngressClass,
    NamespacedName,
    Node,
    Origin,
    Secret,
    Service,
)


class _FromFile(Protocol):
    """An object of a manifest."""

    @property
    def name(self) -> NamespacedName | str: ...

    @property
    def origin(self) -> Origin: ...


Object = TypeVar("Object", bound=_FromFile)


class RoutedObjects(Struct, frozen=True):
    """Ingresses, the objects of the Gateway API, and what they name."""

    ingresses: tuple[Ingress, ...] = ()
    classes: tuple[IngressClass, ...] = ()
    secrets: dict[NamespacedName, Secret] = {}
    services: Mapping[NamespacedName, Service] = {}
    slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]] = {}
    gateways: GatewayObjects = NO_OBJECTS
    local: tuple[Address, ...] = ()
    """The addresses of this node."""


def routed_objects(before: RoutedObjects, decoded: Decoded, in_use: InUse, node: Node) -> RoutedObjects:
    """Return the objects of a new input, and those of `before` that it may contain unreadably.

    Those of the Gateway API are the ones that are in use.
    """
    unreadable = {problem.source for problem in decoded.problems}
    everywhere = bool(decoded.unreadable.empty)

    def may_be_there(source: str) -> bool:
        return everywhere or source in unreadable

    state = decoded.state
    return RoutedObjects(
        tuple(_with_held(before.ingresses, state.ingresses, may_be_there)),
        tuple(_with_held(before.classes, state.ingress_classes, may_be_there)),
        {
            each.name: each
            for each in _with_held(before.secrets.values(), state.secrets.values(), may_be_there)
        },
        in_use.services,
        in_use.slices,
        decoded.gateways,
        node.addresses,
    )


def _with_held(
    before: Iterable[Object], now: Iterable[Object], may_be_there: Callable[[str], bool]
) -> list[Object]:
    """Return the objects of now, and those of before that may still be there."""
    present = {str(each.name): each for each in now}
    held = {str(each.name): each for each in before if may_be_there(each.origin.source)}
    return [*(held | present).values()]

"""Takes the snapshot of a source, for a running kproxy and for commands that read manifests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from msgspec.structs import replace

from kproxy.model import (
    Address,
    Backends,
    Event,
    Frontend,
    NamespacedName,
    Node,
    Protocol,
    format_address,
)
from kproxy.problems import Problem
from kproxy.show.components import Component
from kproxy.show.snapshot import Failure, HeldFrontend, Snapshot
from kproxy.sources.core.inventory import Inventory
from kproxy.sources.source import Source
from kproxy.table.layout import (
    EndpointScope,
    frontend_address,
    frontend_protocol,
    frontend_socket,
    socket_address,
    socket_port,
)
from kproxy.table.programmed import ProgrammedSide
from kproxy.table.skeleton import Options

OUTDATED = "the tables are not up to date"
"""Why frontends of services that are not protected are held."""


def take_snapshot(
    source: Source,
    frontends: Iterable[Frontend],
    problems: Iterable[Problem],
    last_errors: Iterable[Failure] = (),
    programmed: Collection[ProgrammedSide] = (),
    warnings: Iterable[Problem] = (),
    options: Options | None = None,
    cluster_domain: str = "",
    unhealthy: Iterable[str] = (),
    address_failures: Iterable[str] = (),
    events: Mapping[NamespacedName, tuple[Event, ...]] = MappingProxyType({}),
    credentials: str = "",
    http: bool = True,
    ingresses: Collection[NamespacedName] = (),
    components: Iterable[Component] = (),
) -> Snapshot:
    """Return the snapshot of a source and of the frontends that were made from it.

    `problems` and `warnings` are added to those of the source. `programmed` is what the tables contain of
    protected services. `ingresses` are served: they get the addresses of this node.
    """
    frontends, inventory = list(frontends), _with_addresses(source.inventory(), ingresses, source.node())
    held = list(_held_frontends(frontends, programmed))
    reasons = {each.service: source.why_protected(each.service) or OUTDATED for each in held}
    return Snapshot(
        replace(inventory, held={**inventory.held, **reasons}) if reasons else inventory,
        frontends,
        [*source.problems(), *problems],
        source.node(),
        tuple(last_errors),
        (*source.input_warnings(), *source.warnings(), *warnings),
        tuple(source.input_warnings()),
        tuple(source.notes()),
        held,
        options or Options(),
        cluster_domain,
        tuple(unhealthy),
        tuple(address_failures),
        dict(events),
        credentials,
        http,
        tuple(components),
    )


def _with_addresses(inventory: Inventory, ingresses: Collection[NamespacedName], node: Node) -> Inventory:
    """Return the inventory with the addresses of the node for Ingresses whose status has none."""
    if not ingresses:
        return inventory
    own = tuple(map(format_address, node.addresses))
    served = (
        replace(each, addresses=own) if each.name in ingresses and not each.addresses else each
        for each in inventory.ingresses
    )
    return replace(inventory, ingresses=tuple(served))


def _held_frontends(
    frontends: Iterable[Frontend], programmed: Collection[ProgrammedSide]
) -> Iterator[HeldFrontend]:
    """Return the programmed sides that `frontends` do not contain, or only with fewer endpoints."""
    services = {each.service for each in programmed}
    by_key = {_key(each): each for each in frontends if services and each.owner.service in services}
    for each in programmed:
        held = _held_frontend(each)
        frontend = by_key.get(_key(held))
        side = None if frontend is None else _side(frontend, held.from_outside)
        if side is None or not set(held.endpoints) <= set(side.endpoints):
            yield held


def _side(frontend: Frontend, from_outside: bool) -> Backends | None:
    return frontend.from_outside if from_outside else frontend.backends


def _key(frontend: Frontend | HeldFrontend) -> tuple[Address, Protocol, int]:
    return frontend.address, frontend.protocol, frontend.port


def _held_frontend(programmed: ProgrammedSide) -> HeldFrontend:
    scope, key = programmed.side
    return HeldFrontend(
        programmed.service,
        frontend_address(key),
        frontend_protocol(key),
        socket_port(frontend_socket(key)),
        scope is EndpointScope.LOCAL,
        tuple(sorted((socket_address(each), socket_port(each)) for each in programmed.endpoints)),
    )

"""TCP and UDP listeners of Gateways as ports of Services, and the backends of their routes as slices.

So a listener becomes a frontend as a port of a Service does, and the kernel sends its connections to
endpoints directly, without a proxy. The slices of a backend carry its share of the connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from kproxy.controlplane.hold import InUse
from kproxy.gateway.core.attachment import BY_PROXY, Attachments, FindService, attach, unusable
from kproxy.gateway.core.backends import Target, resolve
from kproxy.gatewayapi import BackendRef, Gateway, GatewayObjects, Listener, Route
from kproxy.model import (
    EndpointPort,
    EndpointSlice,
    Family,
    NamespacedName,
    Protocol,
    Service,
    ServicePort,
    Share,
    gateway_owner,
)

Slices: TypeAlias = tuple[EndpointSlice, ...]
PROTOCOLS = {"TCP": Protocol.TCP, "UDP": Protocol.UDP}


class Served(NamedTuple):
    """What a Gateway serves in the tables."""

    ports: tuple[ServicePort, ...]
    slices: Slices


def l4_services(
    objects: GatewayObjects, find: FindService, slices_of: Callable[[NamespacedName], Slices]
) -> Iterator[tuple[Service, Slices]]:
    """Yield the Service of each Gateway that has one, with ports and slices.

    `find` returns Services by name: also those of Gateways, which have addresses already.
    """
    attachments = attach(objects)
    for gateway in objects.gateways.values():
        service = find(gateway_owner(gateway.name))
        if service is not None:
            served = _served(objects, gateway, attachments, find, slices_of)
            by_proxy = any(each.protocol in BY_PROXY for each in gateway.listeners)
            # The tables would refuse the ports of an address of the pool that they do not serve.
            pool_ips = () if by_proxy else service.pool_ips
            yield replace(service, ports=served.ports, pool_ips=pool_ips), served.slices


def served_listeners(gateway: Gateway, attachments: Attachments) -> Iterator[tuple[Listener, Route]]:
    """Yield the listeners that have a frontend, and the route of each: the oldest one."""
    for listener in gateway.listeners:
        routes = attachments.routes(gateway.name, listener.name)
        if routes and listener.protocol in PROTOCOLS and unusable(gateway, listener) is None:
            yield listener, routes[0]


def _served(
    objects: GatewayObjects,
    gateway: Gateway,
    attachments: Attachments,
    find: FindService,
    slices_of: Callable[[NamespacedName], Slices],
) -> Served:
    ports: list[ServicePort] = []
    slices: list[EndpointSlice] = []
    for listener, route in served_listeners(gateway, attachments):
        number = listener.port
        port = ServicePort(listener.name, PROTOCOLS[listener.protocol], number, number, 0)
        ports.append(port)
        for index, ref in enumerate(route.rules[0].backends):
            found = resolve(objects, find, route, ref)
            share = _share(gateway, port, index, ref)
            slices += _slices(share, found, slices_of) if isinstance(found, Target) else [share]
    return Served(tuple(ports), tuple(slices))


def _share(gateway: Gateway, port: ServicePort, index: int, ref: BackendRef) -> EndpointSlice:
    """Return a slice without endpoints for the share of a backend."""
    return EndpointSlice(
        service=gateway_owner(gateway.name),
        origin=gateway.origin,
        name=f"{port.name}-{index}",
        family=Family.IPV4,
        ports=(EndpointPort(port.name, port.protocol, port.port),),
        endpoints=(),
        share=Share(index, ref.weight),
    )


def _slices(
    share: EndpointSlice, target: Target, slices_of: Callable[[NamespacedName], Slices]
) -> Sequence[EndpointSlice]:
    """Return the slices of a Service for its share; one without endpoints if it has none."""
    (port,) = share.ports
    wanted = target.port.name, target.port.protocol
    return [
        replace(
            share,
            name=f"{share.name}-{each.name}",
            family=each.family,
            ports=(port._replace(port=found.port),),
            endpoints=each.endpoints,
        )
        for each in slices_of(target.service.name)
        for found in each.ports
        if found[:2] == wanted
    ] or [share]


def with_gateways(in_use: InUse, objects: GatewayObjects) -> InUse:
    """Return what is in use, with the ports and slices of Gateways."""
    services, slices = dict(in_use.services), dict(in_use.slices)
    for service, own in l4_services(objects, in_use.services.get, lambda name: in_use.slices.get(name, ())):
        services[service.name], slices[service.name] = service, own
    return replace(in_use, services=services, slices=slices) if objects.gateways else in_use

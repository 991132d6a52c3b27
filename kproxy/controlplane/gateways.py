"""Gateways as Services that have addresses, but no ports yet: gateway/core adds those, from the routes.

A Gateway gets an address of the pool, like a Service of type LoadBalancer. Without a pool, it has the
addresses of this node. It can also request addresses, of the pool or of the node.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from kproxy.controlplane.ranges import AddressRange, Pool
from kproxy.gatewayapi import CLASS, CONTROLLER, Gateway, GatewayClass, GatewayObjects
from kproxy.model import (
    GATEWAY,
    Address,
    NamespacedName,
    Node,
    Origin,
    Service,
    address_or_none,
    family_of,
    gateway_owner,
)

BUILT_IN = GatewayClass(name=NamespacedName("", CLASS), origin=Origin("", ""), controller=CONTROLLER)
"""The class that exists without an object. In a cluster, an object is required."""


def is_ours(objects: GatewayObjects, gateway: Gateway) -> bool:
    """Whether kproxy serves a Gateway: the class of the Gateway names kproxy's controller."""
    found = objects.classes.get(NamespacedName("", gateway.class_name))
    return found is not None and found.controller == CONTROLLER


def gateway_services(objects: GatewayObjects, pool: Pool, node: Node) -> list[Service]:
    """Return a Service without ports for each Gateway that kproxy serves."""
    return [
        _service(gateway, pool, node) for gateway in objects.gateways.values() if is_ours(objects, gateway)
    ]


def usable_addresses(gateway: Gateway, pool: Pool, node: Node) -> tuple[Address, ...]:
    """Return the requested addresses that kproxy can serve: those of the pool, and those of this node."""
    own = (*node.addresses, *node.node_port_addresses)
    found = (address_or_none(text) for _, text in requested_addresses(gateway))
    return tuple(a for a in found if a is not None and (a in own or _is_in(a, pool.ranges)))


def requested_addresses(gateway: Gateway) -> tuple[tuple[str, str], ...]:
    """Return type and value of each requested address that has a value."""
    return tuple(each for each in gateway.addresses if each[1])


def _service(gateway: Gateway, pool: Pool, node: Node) -> Service:
    requested = requested_addresses(gateway)
    return Service(
        name=gateway_owner(gateway.name),
        origin=gateway.origin,
        type=GATEWAY,
        ports=(),
        selector={},
        cluster_ips=(),
        headless=False,
        families=(),
        family_policy="",
        affinity_timeout=None,
        publish_not_ready=False,
        load_balancer_ips=usable_addresses(gateway, pool, node) if requested else node.addresses,
        ingress=tuple(text for _, text in requested),
    )


def _is_in(address: Address, ranges: Iterable[AddressRange]) -> bool:
    number = int.from_bytes(address, "big")
    return any(each.family is family_of(address) and each.first <= number <= each.last for each in ranges)


def with_built_in(objects: GatewayObjects) -> GatewayObjects:
    """Return the objects with the built-in class, unless they have a class of its name."""
    return replace(objects, classes={BUILT_IN.name: BUILT_IN, **objects.classes})

"""Gateways of a cluster: which changes change what they serve, and objects that cannot be decoded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kproxy.gatewayapi import NO_OBJECTS, GatewayObjects
from kproxy.model import EndpointSlice, NamespacedName, Node, Service, parse_address
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import ObjectChange
from kproxy.sources.cluster.core.formats import Json
from kproxy.sources.cluster.core.resources import GATEWAY_API, ApiResource
from kproxy.sources.cluster.gateways import GatewayServices
from tests.flows.scenarios.gateways import gateway, made, route
from tests.unit.make import decoded as decoded_text
from tests.unit.make import service, slice_of

NODE = Node("n1", (), (parse_address("192.0.2.1"),))
EDGE = NamespacedName("default", "gateway/edge")
WEB = NamespacedName("default", "web")
CLASS = made("GatewayClass", "kproxy", 1, {"controllerName": "kproxy.io/gateway-controller"})
RESOURCES = {resource.kind: resource for resource in GATEWAY_API}


def change(manifest: dict[str, Any], event: str = "MODIFIED") -> ObjectChange:
    """The change of a line of a watch."""
    resource: ApiResource = RESOURCES[manifest["kind"]]
    found = Json().read_event(resource, msgspec.json.encode({"type": event, "object": manifest})).change
    assert found is not None
    return found


class World:
    """A cache and what is made of it."""

    def __init__(self, *manifests: dict[str, Any]) -> None:
        self.cache, self.made = Cache(), GatewayServices()
        self.services: dict[NamespacedName, Service] = {}
        self.slices: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
        self.apply(*manifests)

    def apply(self, *manifests: dict[str, Any]) -> None:
        for each in manifests:
            self.cache.apply(change(each))

    def add(self, *manifests: dict[str, Any]) -> None:
        text = "\n---\n".join(msgspec.json.encode(each).decode() for each in manifests)
        state = decoded_text(text).state
        self.services |= state.services
        self.slices |= state.slices

    def update(self, *changed: NamespacedName, node: Node = NODE) -> set[NamespacedName]:
        objects: GatewayObjects | None = self.cache.take_gateways() if self.cache.gateways_changed else None
        find = self.services.get
        return self.made.update(objects, changed, node, find, lambda name: self.slices.get(name, ()))


@pytest.fixture
def world() -> World:
    found = World(CLASS, gateway("edge", "a 80/TCP"), route("TCP", "db", "edge", "web:80"))
    found.add(service("web"), slice_of("web", "10.0.0.1"), service("other"), slice_of("other", "10.0.0.2"))
    assert found.update() == {EDGE}
    return found


def test_what_a_change_changes(world: World) -> None:
    # 1. Nothing changed, or a Service that no route refers to.
    assert world.update() == world.update(NamespacedName("default", "other")) == set()
    # 2. An endpoint of a backend.
    world.add(slice_of("web", "10.0.0.3"))
    assert world.update(WEB) == {EDGE}
    # 3. A status is no change; a route to another Service is.
    world.apply(route("TCP", "db", "edge", "web:80") | {"status": {"parents": []}})
    assert not world.cache.gateways_changed
    world.apply(route("TCP", "db", "edge", "other:80"))
    assert world.update() == {EDGE}
    assert world.update(WEB) == set()
    # 4. The node has another address, which the Gateway has then.
    moved = Node("n1", (), (parse_address("192.0.2.2"),))
    assert world.update(node=moved) == {EDGE}
    assert world.made.services[EDGE].load_balancer_ips == moved.addresses
    # 5. The class is deleted.
    world.cache.apply(change(CLASS, "DELETED"))
    assert world.update(node=moved) == {EDGE}
    assert (world.made.services, world.made.slices) == ({}, {})


def test_a_requested_address_is_served_on_every_node(world: World) -> None:
    world.apply(gateway("edge", "a 80/TCP", addresses=[{"value": "203.0.113.9"}]))
    world.update()
    assert world.made.services[EDGE].load_balancer_ips == (parse_address("203.0.113.9"),)


def test_the_last_version_of_a_broken_object_stays(world: World) -> None:
    before = world.made.services
    world.apply(made("TCPRoute", "db", 1, {"rules": []}))
    assert world.update() == set()
    assert world.made.services == before
    assert not world.cache.is_protected(EDGE)
    (problem,) = world.cache.problems()
    assert str(problem) == "cluster: TCPRoute default/db: spec.rules: is empty: must have one rule"


def test_a_route_that_was_never_readable_protects_gateways_only() -> None:
    world = World(made("TCPRoute", "db", 1, {"rules": []}))
    assert world.cache.is_protected(EDGE)
    assert not world.cache.is_protected(WEB)
    assert world.made.objects is NO_OBJECTS


def test_an_object_of_the_gateway_api_is_no_slice(world: World) -> None:
    """A Gateway with the name of a slice says nothing about the Service of the slice."""
    world.apply(made("Gateway", "web-1", 1, {"gatewayClassName": "kproxy", "listeners": []}))
    assert world.cache.held() == {}

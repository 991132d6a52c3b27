"""Rendering again: a change of endpoints costs little, and gives what rendering everything gives."""

from __future__ import annotations

import random
import time

import pytest
from msgspec.structs import replace

from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.ingress import Checked, Objects, Ports
from kproxy.gateway.core.render import Rendered
from kproxy.gateway.renderer import RETRY_SECONDS, Renderer
from kproxy.model import Endpoint, NamespacedName, parse_address
from tests.gateway.world import SERVICES, decoded

NOW = time.time()
PORTS = Ports(8080, 8443)


def world(canaries: bool) -> Objects:
    state = decoded().state
    chosen = tuple(each for each in state.ingresses if canaries or "canary" not in each.annotations)
    services = Services(state.services, state.slices)
    return Objects(chosen, services, state.ingress_classes, state.secrets)


def with_random_endpoints(objects: Objects, chance: random.Random) -> Objects:
    """Objects in which one Service has other endpoints."""
    name = NamespacedName("default", chance.choice(SERVICES))
    before, services = objects.services.slices[name][0], objects.services.services
    endpoints = tuple(
        Endpoint(parse_address(f"10.0.9.{number}"), ready=chance.random() < 0.7, terminating=True)
        for number in chance.sample(range(1, 20), chance.randint(0, 9))
    )
    slices = {**objects.services.slices, name: (replace(before, endpoints=endpoints),)}
    return objects._replace(services=Services(dict(services), slices))


@pytest.mark.parametrize("canaries", [False, True])
def test_changed_endpoints_give_what_rendering_everything_gives(canaries: bool) -> None:
    chance, objects, renderer = random.Random(7), world(canaries), Renderer(PORTS)
    renderer.render(objects, NOW)
    for _ in range(30):
        objects = with_random_endpoints(objects, chance)
        wanted = Renderer(PORTS).render(objects, NOW).configuration
        found = renderer.render(objects, NOW).configuration
        # A self-signed certificate is the same: it is in the Secret.
        assert found == wanted


def test_only_the_backends_of_a_changed_service_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, renderer = world(canaries=False), Renderer(PORTS)
    before = renderer.render(objects, NOW)
    monkeypatch.setattr("kproxy.gateway.renderer.route", None)
    after = renderer.render(with_random_endpoints(objects, random.Random(1)), NOW)
    changed = differing(before.rendered, after.rendered)
    assert changed
    assert len(changed) < len(before.configuration.backends) / 2
    assert after.configuration.head is before.configuration.head


def differing(one: Rendered, other: Rendered) -> set[str]:
    before, after = one.configuration.backends, other.configuration.backends
    return {name for name in before if before[name] != after[name]}


def test_everything_is_rendered_when_a_certificate_expires() -> None:
    objects, renderer = world(canaries=False), Renderer(PORTS)
    renderer.render(objects, NOW)
    at_end = renderer.render(objects, NOW + 3645 * 86400)
    assert sum("expires in" in each.message for each in at_end.warnings) == 2
    clock_set_back = renderer.render(objects, NOW)
    assert not any("expires in" in each.message for each in clock_set_back.warnings)


def test_everything_is_rendered_when_a_certificate_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, renderer = world(canaries=False), Renderer(PORTS)
    with monkeypatch.context() as patch:
        early = Checked(reason="it is not valid yet", early=True)
        patch.setattr("kproxy.gateway.certificates.examine", lambda chain, key: early)
        assert not renderer.render(objects, NOW).configuration.certificates
    wanted = Renderer(PORTS).render(objects, NOW).configuration
    assert wanted.certificates
    assert renderer.render(objects, NOW + RETRY_SECONDS).configuration == wanted


def test_a_new_service_is_noticed() -> None:
    objects, renderer = world(canaries=False), Renderer(PORTS)
    services = {name: each for name, each in objects.services.services.items() if name.name != "web"}
    renderer.render(objects._replace(services=objects.services._replace(services=services)), NOW)
    wanted = Renderer(PORTS).render(objects, NOW)
    found = renderer.render(objects, NOW)
    assert (found.configuration, found.warnings) == (wanted.configuration, wanted.warnings)

"""What is wrong with objects of the Gateway API, as warnings that name the field. Conditions say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kproxy.gateway.core.status import Condition, GatewayStatus, Statuses, unsupported
from kproxy.gatewayapi import Gateway, GatewayObjects, Route
from kproxy.model import NamespacedName, Service
from kproxy.problems import Problem

CONFLICTED = "Conflicted"
"""The condition that is bad if it is true. Accepted says so, too."""


def findings(objects: GatewayObjects, services: Mapping[NamespacedName, Service]) -> list[Problem]:
    """Return the warnings. `services` contain those of Gateways."""
    statuses = Statuses(objects, services.get, ())
    found: list[Problem] = []
    for gateway in objects.gateways.values():
        status = statuses.of_gateway(gateway)
        if status is not None:
            found += (_problem("Gateway", gateway, *each) for each in _of_gateway(gateway, status))
    for routes in objects.routes.values():
        for route in routes.values():
            found += (_problem(route.kind, route, *each) for each in _of_route(objects, statuses, route))
    return found


def _problem(kind: str, found: Gateway | Route, field: str, message: str) -> Problem:
    return Problem(found.origin.source, f"{kind} {found.name}", field, message)


def _of_gateway(gateway: Gateway, status: GatewayStatus) -> Iterator[tuple[str, str]]:
    for condition in status.conditions:
        if condition.reason in ("UnsupportedAddress", "AddressNotUsable"):
            yield "spec.addresses", condition.message
    for index, listener in enumerate(status.listeners):
        wrong = [each for each in listener.conditions if not each.status and each.type != CONFLICTED]
        for message in dict.fromkeys(each.message for each in wrong):
            yield f"spec.listeners[{index}]", message


def _of_route(objects: GatewayObjects, statuses: Statuses, route: Route) -> Iterator[tuple[str, str]]:
    refused = {each.parent: _accepted(each.conditions) for each in statuses.of_route(route)}
    for index, parent in enumerate(route.parents):
        if parent.is_gateway and parent.name not in objects.gateways:
            yield f"spec.parentRefs[{index}]", f"Gateway {parent.name} not found"
        elif (condition := refused.get(parent)) and not condition.status:
            yield f"spec.parentRefs[{index}]", condition.message
    if refused:
        yield from ((path, refusal.message) for path, refusal in statuses.unresolved(route))
        yield from unsupported(route)


def _accepted(conditions: tuple[Condition, ...]) -> Condition:
    return next(each for each in conditions if each.type == "Accepted")

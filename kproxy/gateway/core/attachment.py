"""Which listeners of Gateways a route attaches to, by the rules of the Gateway API.

A route names its parents, and a listener says which routes it allows: kinds, namespaces, host names. Both
must agree. References to Gateways of other controllers are ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kproxy.controlplane.gateways import is_ours
from kproxy.gatewayapi import GROUP, Gateway, GatewayObjects, Listener, ParentRef, Route, RouteKind
from kproxy.limits import GATEWAY_COMBINATIONS
from kproxy.model import Address, NamespacedName, Service, gateway_owner

FindService = Callable[[NamespacedName], Service | None]
SERVED = {"HTTP": "HTTPRoute", "HTTPS": "HTTPRoute", "TCP": "TCPRoute", "UDP": "UDPRoute"}
"""The kind of route that a listener of a protocol serves. Other protocols are not supported."""
BY_PROXY = ("HTTP", "HTTPS")
"""The protocols that HAProxy serves. The others are served by the tables."""


class Refusal(NamedTuple):
    """Why something is not accepted: a reason of the Gateway API, and a sentence without full stop."""

    reason: str
    message: str


class Attached(NamedTuple):
    """What becomes of one reference of a route to a Gateway that kproxy serves."""

    route: Route
    parent: ParentRef
    gateway: Gateway
    listeners: tuple[Listener, ...]
    """() if the route is not accepted."""
    refusal: Refusal | None
    """Why it is not accepted."""


class Attachments(NamedTuple):
    """All references of routes to Gateways that kproxy serves."""

    by_route: Mapping[tuple[str, NamespacedName], Sequence[Attached]]
    """By kind and name of the route, in the order of its parentRefs."""
    by_listener: Mapping[tuple[NamespacedName, str], Sequence[Route]]
    """By Gateway and name of the listener, the oldest route first."""

    def routes(self, gateway: NamespacedName, listener: str) -> Sequence[Route]:
        """Return the routes of a listener, the oldest first."""
        return self.by_listener.get((gateway, listener), ())


def attach(objects: GatewayObjects) -> Attachments:
    """Attach all routes."""
    by_route: dict[tuple[str, NamespacedName], list[Attached]] = defaultdict(list)
    by_listener: dict[tuple[NamespacedName, str], list[Route]] = defaultdict(list)
    every = (route for routes in objects.routes.values() for route in routes.values())
    for route in sorted(every, key=lambda route: (route.origin.created or "~", route.name)):
        for attached in _attached(objects, route):
            by_route[route.kind, route.name].append(attached)
            for listener in attached.listeners:
                routes = by_listener[attached.gateway.name, listener.name]
                if route not in routes[-1:]:
                    routes.append(route)
    return Attachments(by_route, by_listener)


def _attached(objects: GatewayObjects, route: Route) -> Iterator[Attached]:
    size = 0
    for parent in route.parents:
        gateway = objects.gateways.get(parent.name) if parent.is_gateway else None
        if gateway is not None and is_ours(objects, gateway):
            found = _accepting(objects, route, parent, gateway)
            if not isinstance(found, Refusal):
                size += sum(_size(route, each) for each in found)
                found = _too_large(size) if size > GATEWAY_COMBINATIONS else found
            refusal = found if isinstance(found, Refusal) else None
            yield Attached(route, parent, gateway, () if isinstance(found, Refusal) else found, refusal)


def _size(route: Route, listener: Listener) -> int:
    """Return how many routes of HAProxy a route becomes on a listener."""
    return len(hostnames_of(route, listener) or ()) * sum(len(rule.matches) for rule in route.rules)


def _too_large(size: int) -> Refusal:
    message = f"listeners x hostnames x matches are {size} combinations: at most {GATEWAY_COMBINATIONS}"
    return Refusal("UnsupportedValue", message)


def _accepting(
    objects: GatewayObjects, route: Route, parent: ParentRef, gateway: Gateway
) -> tuple[Listener, ...] | Refusal:
    """Return the listeners that accept a route, or why none does."""
    meant = [each for each in gateway.listeners if _is_meant(parent, each)]
    if not meant:
        return Refusal("NoMatchingParent", f"Gateway {gateway.name} has no listener{_wanted(parent)}")
    of_kind = [each for each in meant if route.kind in supported_kinds(each)]
    if not of_kind:
        allowed = sorted({kind for each in meant for kind in supported_kinds(each)})
        only = f"only {', '.join(allowed)}" if allowed else "no routes"
        return Refusal("NotAllowedByListeners", f"{_names(meant)} of Gateway {gateway.name} allows {only}")
    near = [each for each in of_kind if _allows_namespace(objects, gateway, each, route.name.namespace)]
    if not near:
        message = (
            f"{_names(of_kind)} of Gateway {gateway.name} does not allow namespace {route.name.namespace}"
        )
        return Refusal("NotAllowedByListeners", message)
    found = tuple(each for each in near if hostnames_of(route, each) is not None)
    if not found:
        hosts = ", ".join(f"{each.hostname!r}" for each in near)
        message = f"no hostname of the route matches {hosts} of {_names(near)}"
        return Refusal("NoMatchingListenerHostname", message)
    return found


def _is_meant(parent: ParentRef, listener: Listener) -> bool:
    return parent.section in ("", listener.name) and parent.port in (0, listener.port)


def _wanted(parent: ParentRef) -> str:
    named = [f"named {parent.section}"] * bool(parent.section) + [f"with port {parent.port}"] * bool(
        parent.port
    )
    return f" {' '.join(named)}" if named else ""


def _names(listeners: Sequence[Listener]) -> str:
    return "listener " + ", ".join(each.name for each in listeners)


def allowed_kinds(listener: Listener) -> Iterator[tuple[RouteKind, bool]]:
    """Yield the kinds that a listener allows, and whether kproxy can serve such routes on it."""
    served = RouteKind(GROUP, SERVED.get(listener.protocol, ""))
    for kind in listener.kinds or ([served] if served.kind else []):
        yield kind, kind == served


def supported_kinds(listener: Listener) -> tuple[str, ...]:
    """Return the kinds of routes that a listener serves."""
    return tuple(dict.fromkeys(kind.kind for kind, served in allowed_kinds(listener) if served))


def _allows_namespace(objects: GatewayObjects, gateway: Gateway, listener: Listener, namespace: str) -> bool:
    match listener.namespaces:
        case "All":
            return True
        case "Same":
            return namespace == gateway.name.namespace
        case "Selector":
            labels = objects.labels_of(namespace)
            return bool(listener.selector) and all(each.matches(labels) for each in listener.selector)
    return False


def hostnames_of(route: Route, listener: Listener) -> tuple[str, ...] | None:
    """Return the host names that a route has on a listener, "" for all; None if they do not intersect."""
    if not route.hostnames:
        return (listener.hostname,)
    found = (common_hostname(each, listener.hostname) for each in route.hostnames)
    return tuple(dict.fromkeys(each for each in found if each is not None)) or None


def common_hostname(one: str, other: str) -> str | None:
    """Return the more specific of two host names if it is part of the other one, else None."""
    for narrow, wide in ((one, other), (other, one)):
        if not wide or narrow == wide or (wide.startswith("*.") and narrow.endswith(wide[1:])):
            return narrow
    return None


def conflict(gateway: Gateway, listener: Listener) -> Refusal | None:
    """Return why a listener cannot be used next to the others of its Gateway; None if it can."""
    transport = "udp" if listener.protocol == "UDP" else "tcp"
    for other in gateway.listeners:
        same = other.port == listener.port and (other.protocol == "UDP") is (transport == "udp")
        if same and other.protocol != listener.protocol:
            message = (
                f"listener {other.name} has port {listener.port}/{transport} with protocol {other.protocol}"
            )
            return Refusal("ProtocolConflict", message)
    return None


def http_owners(objects: GatewayObjects, find: FindService) -> dict[tuple[Address, int], NamespacedName]:
    """Return the Gateway that has each address and port of HTTP listeners: of several, the oldest one."""
    owners: dict[tuple[Address, int], NamespacedName] = {}
    for gateway in sorted(
        objects.gateways.values(), key=lambda each: (each.origin.created or "~", each.name)
    ):
        service = find(gateway_owner(gateway.name)) if is_ours(objects, gateway) else None
        for listener in gateway.listeners if service else ():
            if listener.protocol in BY_PROXY and unusable(gateway, listener) is None:
                for address in service.load_balancer_ips if service else ():
                    owners.setdefault((address, listener.port), gateway.name)
    return owners


def unusable(gateway: Gateway, listener: Listener) -> Refusal | None:
    """Return why a listener takes no connections, whatever its routes; None if it does."""
    if listener.protocol not in SERVED:
        known = ", ".join(SERVED)
        message = f"protocol {listener.protocol} is not supported, only {known}"
        return Refusal("UnsupportedProtocol", message)
    return conflict(gateway, listener)

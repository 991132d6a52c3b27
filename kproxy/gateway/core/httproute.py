"""HTTPRoutes -> routes of HAProxy's listeners.

A Gateway has one listener of HAProxy for each port, at each of its addresses: listeners of a Gateway with one
port differ in their host names only. A route serves the host names that it and the listener have in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from kproxy.gateway.core import routes
from kproxy.gateway.core.attachment import Attached, Attachments, attach, hostnames_of, http_owners, unusable
from kproxy.gateway.core.backends import Target, certificate_of, certificate_problem, resolve
from kproxy.gateway.core.endpoints import servers_of
from kproxy.gateway.core.ingress import Checked, Objects
from kproxy.gatewayapi import (
    BackendRef,
    Gateway,
    GatewayObjects,
    HTTPFilters,
    HTTPMatch,
    PathModifier,
    RequestRedirect,
    RouteRule,
)
from kproxy.gatewayapi import Listener as GatewayListener
from kproxy.gatewayapi import Route as HTTPRoute
from kproxy.model import Address, NamespacedName, Secret, format_address, gateway_owner
from kproxy.problems import Problem

WITH_TLS = {"HTTP": False, "HTTPS": True}
"""The protocols of listeners that HAProxy serves, and whether they use TLS."""
KINDS = {
    "Exact": routes.PathKind.EXACT,
    "PathPrefix": routes.PathKind.PREFIX,
    "RegularExpression": routes.PathKind.REGEX,
}
USUAL_PORTS = {"http": 80, "https": 443}
FAILING_PORT = 10240
"""The loopback port of the listener that replies for backends that lead nowhere."""
BROKEN = 500
"""The status of a rule that cannot be served as it is written."""


def http_certificates(objects: GatewayObjects) -> set[NamespacedName]:
    """Return the Secrets whose certificates are to be checked."""
    return {
        found
        for gateway in objects.gateways.values()
        for listener in gateway.listeners
        for ref in listener.certificates
        if isinstance(found := certificate_of(objects, gateway, ref), NamespacedName)
    }


def with_certificates(objects: GatewayObjects, secrets: Mapping[NamespacedName, Secret]) -> GatewayObjects:
    """Return the objects with what there is to say about the certificates of their listeners."""
    names = http_certificates(objects)
    return replace(objects, certificates={n: certificate_problem(n, secrets.get(n)) for n in names})


def http_routing(found: Objects, checked: Mapping[NamespacedName, Checked]) -> routes.Routing:
    """Return the routing of all Gateways. `checked` has an entry for each of `http_certificates`."""
    attachments = attach(found.gateways)
    listeners: list[routes.Listener] = []
    made: list[routes.Route] = []
    owners = http_owners(found.gateways, found.services.services.get)
    for gateway in found.gateways.gateways.values():
        service = found.services.services.get(gateway_owner(gateway.name))
        if service is not None:
            used = _Used(found, gateway, attachments, checked)
            listeners += used.listeners(service.load_balancer_ips, owners)
            made += used.served_routes()
    return routes.Routing(tuple(listeners), tuple(made), FAILING_PORT if made else 0)


def joined(one: routes.Routing, other: routes.Routing) -> routes.Routing:
    """Return both routings as one."""
    failing = one.failing_port or other.failing_port
    return routes.Routing((*one.listeners, *other.listeners), (*one.routes, *other.routes), failing)


def taken_ports(found: routes.Routing) -> Iterator[Problem]:
    """Yield a warning for each listener of a Gateway that has a port of the Ingresses at a node's address.

    The kernel prefers it to the listener for all addresses. At an address of the pool, that is intended.
    """
    ports = {each.name: each.port for each in found.listeners if each.owner is None}
    used = {ports[each.listener] for each in found.routes if each.listener in ports}
    for each in found.listeners:
        if each.owner and each.port in used and not each.foreign:
            message = f"it has port {each.port} of {each.address}, where Ingresses get no requests then"
            yield Problem(each.owner.origin.source, str(each.owner), "spec.listeners", message)


class _Used(NamedTuple):
    """One Gateway, with what its listeners and routes refer to."""

    found: Objects
    gateway: Gateway
    attachments: Attachments
    checked: Mapping[NamespacedName, Checked]

    def usable(self) -> Iterator[GatewayListener]:
        """Yield the listeners that HAProxy serves."""
        for listener in self.gateway.listeners:
            tls = WITH_TLS.get(listener.protocol)
            if tls is None or unusable(self.gateway, listener):
                continue
            if not tls or any(self._certificates(listener)):
                yield listener

    def listeners(
        self, addresses: Sequence[Address], owners: Mapping[tuple[Address, int], NamespacedName]
    ) -> Iterator[routes.Listener]:
        """Yield a listener for each port and address that the Gateway has."""
        owner = routes.Owner("Gateway", self.gateway.name, self.gateway.origin)
        by_port: dict[int, list[GatewayListener]] = defaultdict(list)
        for each in self.usable():
            by_port[each.port].append(each)
        for port, members in sorted(by_port.items()):
            certificates = tuple(dict.fromkeys(c for each in members for c in self._certificates(each)))
            tls = WITH_TLS[members[0].protocol]
            for address in (each for each in addresses if owners.get((each, port)) == self.gateway.name):
                shown, foreign = format_address(address), address not in self.found.local
                yield routes.Listener(self._name(port), port, shown, tls, certificates, foreign, owner)

    def _name(self, port: int) -> str:
        return f"{self.gateway.name.namespace}.{self.gateway.name.name}:{port}"

    def _certificates(self, listener: GatewayListener) -> Iterator[routes.Certificate]:
        hosts = (listener.hostname,) if listener.hostname else ()
        for ref in listener.certificates if WITH_TLS.get(listener.protocol) else ():
            name = certificate_of(self.found.gateways, self.gateway, ref)
            if isinstance(name, NamespacedName) and self.checked[name].pem:
                yield routes.Certificate(str(name), self.checked[name].pem, hosts)

    def served_routes(self) -> Iterator[routes.Route]:
        """Yield the routes of all listeners, each once."""
        usable = {each.name for each in self.usable()}
        seen: set[tuple[str, str, NamespacedName, tuple[int, int]]] = set()
        for attached in self._attached():
            for listener in attached.listeners:
                for route in self._routes(attached.route, listener) if listener.name in usable else ():
                    key = route.listener, route.host.name, route.owner.name, route.index
                    if key not in seen:
                        seen.add(key)
                        yield route

    def _attached(self) -> Iterator[Attached]:
        for name in self.found.gateways.http_routes:
            for each in self.attachments.by_route.get(("HTTPRoute", name), ()):
                if each.gateway is self.gateway:
                    yield each

    def _routes(self, route: HTTPRoute, listener: GatewayListener) -> Iterator[routes.Route]:
        owner = routes.Owner(route.kind, route.name, route.origin)
        for number, rule in enumerate(route.rules):
            action, filters = self._action(route, rule, listener), tuple(_filters(rule.filters))
            policy = routes.Policy(server_timeout=rule.backend_timeout, request_timeout=rule.request_timeout)
            for host in hostnames_of(route, listener) or ():
                for index, match in enumerate(rule.matches):
                    yield routes.Route(
                        self._name(listener.port),
                        owner,
                        routes.Host(host.lower(), deep=True),
                        _match(match),
                        action,
                        filters,
                        policy,
                        (number, index),
                        f"spec.rules[{number}]",
                    )

    def _action(self, route: HTTPRoute, rule: RouteRule, listener: GatewayListener) -> routes.Action:
        if rule.filters.unsupported:
            return routes.Respond(BROKEN)
        if rule.filters.redirect:
            return _redirect(rule.filters.redirect, listener)
        return routes.Forward(tuple(self._share(route, ref) for ref in rule.backends))

    def _share(self, route: HTTPRoute, ref: BackendRef) -> routes.Share:
        services = self.found.services
        found = resolve(self.found.gateways, services.services.get, route, ref)
        if not isinstance(found, Target) or ref.filters:
            # No Service has such a name: it must not get requests if only its endpoints change.
            return routes.Share(f"{ref.name}/refused:{ref.port}", (), ref.weight, BROKEN)
        slices, port = services.slices.get(ref.name, ()), found.port
        label = f"{ref.name}:{port.name or port.port}"
        return routes.Share(label, servers_of(found.service, port, slices), ref.weight)


def _redirect(found: RequestRedirect, listener: GatewayListener) -> routes.Redirect:
    """Return the redirect. Its Location has no port that is usual for its scheme."""
    scheme = found.scheme or ("https" if WITH_TLS[listener.protocol] else "http")
    port = found.port or (USUAL_PORTS[scheme] if found.scheme else listener.port)
    shown = 0 if port == USUAL_PORTS[scheme] else port
    return routes.Redirect(found.scheme, found.hostname, shown, _path_change(found.path), found.status)


def _filters(found: HTTPFilters) -> Iterator[routes.Filter]:
    for each in found.headers:
        where = routes.Modified.RESPONSE if each.of_response else routes.Modified.REQUEST
        yield routes.HeaderFilter(where, each.set, each.add, each.remove)
    if found.rewrite:
        yield routes.RewriteFilter(found.rewrite.hostname, _path_change(found.rewrite.path))


def _path_change(found: PathModifier | None) -> routes.PathChange | None:
    return routes.PathChange(found.text or "/", found.prefix) if found else None


def _match(found: HTTPMatch) -> routes.Match:
    return routes.Match(
        routes.PathMatch(KINDS[found.path_type], found.path),
        found.method,
        tuple(routes.ValueMatch(*each) for each in found.headers),
        tuple(routes.ValueMatch(*each) for each in found.queries),
    )

"""Objects of a source -> HAProxy's configuration, with the certificates checked in between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from kproxy.gateway.certificates import SOON, Checks
from kproxy.gateway.core.configuration import Configuration
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.httproute import http_certificates, http_routing, joined, taken_ports
from kproxy.gateway.core.ingress import Objects, Ports, certificates_of, route, wrong_hosts
from kproxy.gateway.core.render import Rendered, render, with_endpoints
from kproxy.gateway.core.routes import Respond, Routing
from kproxy.model import NamespacedName
from kproxy.problems import Problem, limited
from kproxy.sources.core.routed import RoutedObjects

RETRY_SECONDS = 60.0
"""After this time, what HAProxy refused is tried again: a port may be free now. Certificates may begin."""


class Rendering(NamedTuple):
    """The configuration, the routes in it, and what the objects have wrong."""

    rendered: Rendered
    routing: Routing
    """The routes. After a change of endpoints they still have the endpoints before."""
    problems: list[Problem]
    warnings: list[Problem]

    ingresses: frozenset[NamespacedName]
    """The Ingresses that have routes without an error."""

    @property
    def configuration(self) -> Configuration:
        """What HAProxy is to be."""
        return self.rendered.configuration


def objects_of(routed: RoutedObjects) -> Objects:
    """Return what routes are made from: the objects of a source."""
    services = Services(routed.services, routed.slices)
    return Objects(routed.ingresses, services, routed.classes, routed.secrets, routed.gateways, routed.local)


class Renderer:
    """Renders objects again and again.

    What HAProxy refuses is left out until something else than endpoints changes, and tried again at times.

    Unchanged certificates are not checked again. If only endpoints changed, the cost depends on their number.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._checks = Checks()
        self._objects = Objects((), Services({}, {}))
        self._last: Rendering | None = None
        self._refused: dict[str, str] = {}
        """Why HAProxy refuses an object, by `str` of its `Owner`."""
        self._since = self._until = 0.0
        """From when and until when the result for the same objects is valid, by the time of day.

        A certificate may begin or expire, or is to be warned of. The clock may be set back.
        """

    def render(self, objects: Objects, now: float) -> Rendering:
        """Return the configuration. `now`: seconds since 1970."""
        before, last, self._objects = self._objects, self._last, objects
        if last and self._since <= now < self._until and not before.differs(objects):
            changed = objects.services.changed(before.services)
            self._last = last._replace(rendered=with_endpoints(last.rendered, objects.services, changed))
        else:
            self._refused = {}
            self._last = self._all(objects, now)
        return self._last

    def render_without(self, refused: Mapping[str, str], now: float) -> Rendering | None:
        """Return the configuration of the last objects without some of them. None if it is the same.

        `refused`: by `str` of an `Owner` or `label` of a listener, why HAProxy refuses it.
        """
        if self._last is None or not any(_refusals(self._last.routing, refused)):
            return None
        self._refused |= refused
        self._last = self._all(self._objects, now)
        self._until = min(self._until, now + RETRY_SECONDS)
        return self._last

    def _all(self, objects: Objects, now: float) -> Rendering:
        names = certificates_of(objects.ingresses) | http_certificates(objects.gateways)
        checked = self._checks.check(names, objects.secrets, now)
        times = (moment for each in checked.values() for moment in (each.expires - SOON, each.expires))
        early = [now + RETRY_SECONDS for each in checked.values() if each.early]
        self._since = now
        self._until = min([*early, *(moment for moment in times if moment > now)], default=math.inf)
        routed = route(objects, checked, self._ports)
        whole = joined(routed.routing, http_routing(objects, checked))
        routing = replace(
            whole,
            listeners=tuple(each for each in whole.listeners if each.label not in self._refused),
            routes=tuple(each for each in whole.routes if str(each.owner) not in self._refused),
        )
        rendered = render(routing)
        routing = replace(routing, routes=rendered.routes)
        replies = (each for each in routing.routes if not isinstance(each.action, Respond))
        served = frozenset(each.owner.name for each in replies if each.owner.kind == "Ingress")
        problems = limited([*_refusals(whole, self._refused), *routed.problems, *rendered.problems])
        wrong = wrong_hosts(routing.listeners, checked, objects.secrets)
        warnings = limited([*routed.warnings, *taken_ports(routing), *wrong])
        return Rendering(rendered, routing, problems, warnings, served)


def _refusals(routing: Routing, refused: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem for each owner of a route, and each listener of a Gateway, that HAProxy refuses."""
    for owner in dict.fromkeys(each.owner for each in routing.routes if str(each.owner) in refused):
        reason = refused[str(owner)]
        yield Problem(owner.origin.source, str(owner), "", f"HAProxy refuses it: {reason}")
    for each in routing.listeners:
        if each.owner and each.label in refused:
            message = f"HAProxy cannot serve {each.address} port {each.port}: {refused[each.label]}"
            yield Problem(each.owner.origin.source, str(each.owner), "spec.listeners", message)

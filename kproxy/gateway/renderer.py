"""Objects of a source -> HAProxy's configuration, with the certificates checked in between."""

from __future__ import annotations

import math
from typing import NamedTuple

from kproxy.gateway.certificates import SOON, Checks
from kproxy.gateway.core.configuration import Configuration
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.httproute import http_certificates, http_routing, joined
from kproxy.gateway.core.ingress import Objects, Ports, certificates_of, route
from kproxy.gateway.core.render import Rendered, render, with_endpoints
from kproxy.gateway.core.routes import Routing
from kproxy.model import NamespacedName
from kproxy.problems import Problem


class Rendering(NamedTuple):
    """The configuration, the routes in it, and what the objects have wrong."""

    rendered: Rendered
    routing: Routing
    """The routes. After a change of endpoints they still have the endpoints before."""
    problems: list[Problem]
    warnings: list[Problem]

    ingresses: frozenset[NamespacedName]
    """The Ingresses that have routes."""

    @property
    def configuration(self) -> Configuration:
        """What HAProxy is to be."""
        return self.rendered.configuration


class Renderer:
    """Renders objects again and again.

    Unchanged certificates are not checked again. If only endpoints changed, the cost depends on their number.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._checks = Checks()
        self._objects = Objects((), Services({}, {}))
        self._last: Rendering | None = None
        self._until = 0.0
        """When a certificate expires, or is to be warned of: then everything is rendered."""

    def render(self, objects: Objects, now: float) -> Rendering:
        """Return the configuration. `now`: seconds since 1970."""
        before, last, self._objects = self._objects, self._last, objects
        if last and now < self._until and not before.differs(objects):
            changed = objects.services.changed(before.services)
            self._last = last._replace(rendered=with_endpoints(last.rendered, objects.services, changed))
        else:
            self._last = self._all(objects, now)
        return self._last

    def _all(self, objects: Objects, now: float) -> Rendering:
        names = certificates_of(objects.ingresses) | http_certificates(objects.gateways)
        checked = self._checks.check(names, objects.secrets, now)
        times = (moment for each in checked.values() for moment in (each.expires - SOON, each.expires))
        self._until = min((moment for moment in times if moment > now), default=math.inf)
        routed = route(objects, checked, self._ports)
        routing = joined(routed.routing, http_routing(objects, checked))
        rendered = render(routing)
        served = frozenset(each.owner.name for each in routing.routes if each.owner.kind == "Ingress")
        problems = routed.problems + rendered.problems
        return Rendering(rendered, routing, problems, routed.warnings, served)

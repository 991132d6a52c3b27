"""Objects of a source -> HAProxy's configuration, with the certificates checked in between."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.gateway.certificates import Checks
from kproxy.gateway.core.configuration import Configuration
from kproxy.gateway.core.ingress import Objects, Ports, certificates_of, route
from kproxy.gateway.core.render import render
from kproxy.gateway.core.routes import Routing
from kproxy.problems import Problem


class Rendering(NamedTuple):
    """The configuration, the routes in it, and what the objects have wrong."""

    configuration: Configuration
    routing: Routing
    owners: dict[str, str]
    """The object of each backend in use, for messages."""
    problems: list[Problem]
    warnings: list[Problem]


class Renderer:
    """Renders objects again and again. Unchanged certificates are not checked again."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._checks = Checks()

    def render(self, objects: Objects, now: float) -> Rendering:
        """Return the configuration. `now`: seconds since 1970."""
        checked = self._checks.check(certificates_of(objects.ingresses), objects.secrets, now)
        routed = route(objects, checked, self._ports)
        rendered = render(routed.routing)
        problems = routed.problems + rendered.problems
        return Rendering(rendered.configuration, routed.routing, rendered.owners, problems, routed.warnings)

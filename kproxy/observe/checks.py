"""Serves /healthz and /livez on one address, and each health check node port.

For a service with externalTrafficPolicy: Local, a load balancer sends requests to the service's health check
node port on each node. It sends clients only to the nodes that respond that they have an endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from datetime import UTC, datetime, timedelta

from kproxy.intake.clients import Clients
from kproxy.model import NamespacedName
from kproxy.observe.core.health import Health, HealthAnswer, service_answer
from kproxy.observe.http import NOT_FOUND, Handler, HttpServer, Request, Response, Warn
from kproxy.resolve.health_checks import Served
from kproxy.settings.text import SocketAddress

_HEADERS = (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff"))
Place = tuple[str, int]
"""The address and the port of a server."""


def _response(answer: HealthAnswer, *headers: tuple[str, str]) -> Response:
    return Response(answer.status, _HEADERS + headers, answer.body)


def health_handler(health: Health, count: Callable[[str, int], None] = lambda path, status: None) -> Handler:
    """Return the handler of /healthz and /livez. It calls `count` with path and status of each response."""
    answers = {"/healthz": health.healthz, "/livez": health.livez}

    def handle(request: Request) -> Response:
        path = request.path
        if path not in answers:
            return NOT_FOUND
        now, wall = time.monotonic(), datetime.now(UTC)

        def rfc3339(moment: float) -> str:
            return (wall - timedelta(seconds=now - moment)).isoformat().replace("+00:00", "Z")

        answer = answers[path](now, rfc3339)
        count(path, answer.status)
        return _response(answer)

    return handle


class HealthCheckPorts:
    """The servers of health check node ports."""

    def __init__(
        self,
        health: Health,
        warn: Warn,
        is_refused: Callable[[NamespacedName], bool] = lambda _: False,
        clients: Clients | None = None,
    ) -> None:
        """`is_refused` returns whether the kernel refused a service. `clients` are those of all servers."""
        self._clients = clients or Clients()
        self._health = health
        self._is_refused = is_refused
        self._warn = warn
        self._served: Served = {}
        self._servers: dict[tuple[str, int], HttpServer] = {}

    def set(self, served: Served, hosts: Sequence[str]) -> None:
        """Serve exactly these ports on these addresses.

        A port that was served before is not interrupted, even if it belongs to another service now.
        """
        self._served = dict(served)
        desired = self._within_limit({(host, port) for port in served for host in hosts})
        for removed in self._servers.keys() - desired:
            self._servers.pop(removed).close()
        for host, port in sorted(desired - self._servers.keys()):
            origin = f"health check node port of Service {served[port][0]}"
            server = HttpServer(
                SocketAddress(host, port), origin, self._handler(port), self._warn, self._clients
            )
            self._servers[host, port] = server
            server.open()

    def close(self) -> None:
        """Stop all servers."""
        self.set({}, ())

    def _within_limit(self, desired: Set[Place]) -> Set[Place]:
        """Return as many of these as there may be listeners, first those that are served already."""
        limit = self._clients.listeners
        if len(desired) <= limit:
            return desired
        self._warn(
            f"{len(desired) - limit} of {len(desired)} health check node ports are not served: too many"
        )
        order = sorted(desired, key=lambda place: (place not in self._servers, place[1], place[0]))
        return frozenset(order[:limit])

    def _handler(self, port: int) -> Handler:
        def handle(_: Request) -> Response:
            service, local = self._served[port]
            healthy = self._health.is_healthy(time.monotonic()) and not self._is_refused(service)
            answer = service_answer(service, local, healthy)
            return _response(answer, ("X-Load-Balancing-Endpoint-Weight", str(local)))

        return handle

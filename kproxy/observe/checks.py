"""The daemon's HTTP: /healthz and /livez on one address, and a listener per health check node port.

A load balancer asks each node on a service's health check node port whether it has an endpoint of the
service, and leads clients of a service with externalTrafficPolicy Local only to those that have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from kproxy.model import NamespacedName
from kproxy.observe.core.health import Health, HealthAnswer, service_answer
from kproxy.observe.http import NOT_FOUND, Handler, HttpServer, Response, Warn
from kproxy.resolve.health_checks import Served
from kproxy.settings.text import SocketAddress

_HEADERS = (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff"))


def _response(answer: HealthAnswer, *headers: tuple[str, str]) -> Response:
    return Response(answer.status, _HEADERS + headers, answer.body)


def health_handler(health: Health, count: Callable[[str, int], None] = lambda path, status: None) -> Handler:
    """Serves /healthz and /livez; `count` is told what was answered to which of them."""
    answers = {"/healthz": health.healthz, "/livez": health.livez}

    def handle(path: str, method: str) -> Response:
        if path not in answers:
            return NOT_FOUND
        now, wall = time.monotonic(), datetime.now(UTC)

        def written(moment: float) -> str:
            return (wall - timedelta(seconds=now - moment)).isoformat().replace("+00:00", "Z")

        answer = answers[path](now, written)
        count(path, answer.status)
        return _response(answer)

    return handle


class HealthCheckPorts:
    """Listeners for the services that have a health check node port."""

    def __init__(
        self, health: Health, warn: Warn, is_refused: Callable[[NamespacedName], bool] = lambda _: False
    ) -> None:
        """`is_refused`: whether a service could not be programmed, though all is well else."""
        self._health = health
        self._is_refused = is_refused
        self._warn = warn
        self._served: Served = {}
        self._servers: dict[tuple[str, int], HttpServer] = {}

    def set(self, served: Served, hosts: Sequence[str]) -> None:
        """From now on these ports on these addresses. What stays is not interrupted, whosever it becomes."""
        self._served = dict(served)
        wanted = {(host, port) for port in served for host in hosts}
        for gone in self._servers.keys() - wanted:
            self._servers.pop(gone).close()
        for host, port in sorted(wanted - self._servers.keys()):
            server = HttpServer(SocketAddress(host, port), self._handler(port), self._warn)
            self._servers[host, port] = server
            server.open()

    def close(self) -> None:
        """End all of them."""
        self.set({}, ())

    def _handler(self, port: int) -> Handler:
        def handle(path: str, method: str) -> Response:
            service, local = self._served[port]
            healthy = self._health.is_healthy(time.monotonic()) and not self._is_refused(service)
            answer = service_answer(service, local, healthy)
            return _response(answer, ("X-Load-Balancing-Endpoint-Weight", str(local)))

        return handle

"""Why a frontend uses an endpoint of its Service, or does not: readiness, traffic policy and hints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kproxy.model import (
    Address,
    Backends,
    Endpoint,
    EndpointSlice,
    Frontend,
    Node,
    Service,
    ServicePort,
    family_of,
)
from kproxy.resolve.frontends import candidates


class EndpointUse(NamedTuple):
    """An endpoint of a Service's port."""

    address: Address
    port: int
    pod: str
    """Its pod, "" if unknown."""
    node: str
    """Its node, "" if unknown."""
    unused: str
    """Why the frontend side does not use it; "" if it does."""
    brief: str
    """The same in one or two words."""


def endpoint_uses(
    service: Service, frontend: Frontend, side: Backends, slices: Iterable[EndpointSlice], node: Node
) -> list[EndpointUse]:
    """Return the endpoints of a frontend's port: for each whether `side` uses it. Sorted by address."""
    used, uses = set(side.endpoints), {}
    local = side is frontend.from_outside or (service.internal_local and side is frontend.backends)
    for endpoint, number in candidates(_port(service, frontend), slices, family_of(frontend.address)):
        at = endpoint.address, number
        why = ("", "") if at in used else _why_unused(endpoint, node, local)
        uses[at] = EndpointUse(*at, endpoint.pod, endpoint.node, *why)
    return [uses[at] for at in sorted(uses)]


def _port(service: Service, frontend: Frontend) -> ServicePort:
    return next(port for port in service.ports if port.name == frontend.owner.port)


def _why_unused(endpoint: Endpoint, node: Node, local: bool) -> tuple[str, str]:
    """Return the reason, and a short form of it."""
    if endpoint.terminating:
        return "terminating", "terminating"
    if not endpoint.ready:
        return "not ready", "not ready"
    if local and endpoint.node != node.name:
        where = f"on node {endpoint.node}" if endpoint.node else "on an unknown node"
        return f"{where}, and traffic policy Local uses only endpoints on {node.name}", "policy Local"
    if endpoint.for_nodes and node.name not in endpoint.for_nodes:
        return f"its hint is for node {', '.join(endpoint.for_nodes)}", "other hint"
    return f"its hint is for zone {', '.join(endpoint.for_zones)}", "other hint"

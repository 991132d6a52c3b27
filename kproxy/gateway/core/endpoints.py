"""Ports of Services -> servers of HAProxy: the endpoints themselves, not the ClusterIP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kproxy.gateway.core.configuration import LARGEST_WEIGHT, Server, State
from kproxy.gateway.core.routes import Share
from kproxy.model import (
    Endpoint,
    EndpointSlice,
    NamespacedName,
    Protocol,
    Service,
    ServicePort,
    format_address,
)


class Services(NamedTuple):
    """The Services and their slices."""

    services: Mapping[NamespacedName, Service]
    slices: Mapping[NamespacedName, Sequence[EndpointSlice]]

    def changed(self, before: Services) -> set[NamespacedName]:
        """Return the Services whose slices differ."""
        names = self.slices.keys() | before.slices.keys()
        return {name for name in names if self.slices.get(name) != before.slices.get(name)}

    def share(self, name: NamespacedName, port: int | str) -> tuple[Share, str]:
        """Return what serves a port, by number or name, and why it has no endpoints; "" if it may have
        some."""
        service, label = self.services.get(name), f"{name}:{port}"
        if service is None:
            return Share(label, ()), f"there is no Service {name}"
        if service.type == "ExternalName":
            return Share(label, ()), f"Service {name} is of type ExternalName, which has no endpoints"
        found = next((each for each in service.ports if port in (each.port, each.name)), None)
        if found is None or found.protocol is not Protocol.TCP:
            return Share(label, ()), f"Service {name} has no TCP port {port}"
        servers = servers_of(service, found, self.slices.get(name, ()))
        return Share(f"{name}:{found.name or found.port}", servers), ""


def servers_of(service: Service, port: ServicePort, slices: Iterable[EndpointSlice]) -> tuple[Server, ...]:
    """Return the servers of a port, sorted: ready ones, and those that end while they still serve.

    If no endpoint is ready, those that end are used like ready ones, as kube-proxy does.
    """
    every = [
        (endpoint, each.port)
        for slice_ in slices
        for each in slice_.ports
        if each.name == port.name and each.protocol is port.protocol
        for endpoint in slice_.endpoints
    ]
    any_ready = any(endpoint.ready for endpoint, _ in every)
    found = {
        _server(service, endpoint, number, draining=any_ready and not endpoint.ready)
        for endpoint, number in every
        if endpoint.ready or (endpoint.serving and endpoint.terminating)
    }
    return tuple(sorted(found))


def _server(service: Service, endpoint: Endpoint, port: int, *, draining: bool) -> Server:
    address = format_address(endpoint.address)
    weight = service.weights.get(endpoint.pod) or service.weights.get(address) or 1
    state = State.DRAIN if draining else State.READY
    return Server(address, port, min(weight, LARGEST_WEIGHT), state)

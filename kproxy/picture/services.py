"""What a picture shows of a Service: frontends, the lists of endpoints that they lead to, and policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from kproxy.explain.endpoints import endpoint_uses
from kproxy.model import (
    Backends,
    Balance,
    Frontend,
    NamespacedName,
    Service,
    ServicePort,
    format_socket,
    is_gateway,
    owner_text,
)
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import duration


class EndpointView(NamedTuple):
    """An endpoint of a Service's port."""

    address: str
    """Address and port."""
    pod: str
    """"" if unknown."""
    node: str
    """"" if unknown."""
    is_here: bool
    """Whether it is on this node."""
    share: Fraction
    """The share of new connections; 0 if it gets none."""
    why: str
    """Why it gets none, in one or two words; "" if it gets some."""

    @property
    def place(self) -> str:
        """Its pod and node, for example `web-1 on n1`; "" if both are unknown."""
        return f"{self.pod} on {self.node}".strip() if self.node else self.pod


class ListView(NamedTuple):
    """A list of endpoints, among which frontends distribute connections."""

    clients: str
    """Which clients use it: "" for all, else `from outside`."""
    result: str
    """What becomes of packets if the list is empty: `refused`, `dropped`; "" if it is not empty."""
    endpoints: tuple[EndpointView, ...]


class FrontendView(NamedTuple):
    """A frontend."""

    address: str
    """Address, port and protocol."""
    kind: str
    lists: tuple[int, ...]
    """The numbers of the lists that it leads to."""


class PortView(NamedTuple):
    """A port of a Service."""

    name: str
    """Name, number and protocol."""
    frontends: tuple[FrontendView, ...]
    lists: tuple[ListView, ...]


class ServiceView(NamedTuple):
    """A Service."""

    name: str
    type: str
    policies: tuple[str, ...]
    """What is not the default, as in a manifest."""
    ports: tuple[PortView, ...]

    @property
    def fails(self) -> bool:
        """Whether clients of a port are refused or dropped."""
        return any(each.result for port in self.ports for each in port.lists)


class Services:
    """Makes the views of the Services of a snapshot, one by one."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._slices = snapshot.inventory.owned_slices
        self._frontends: dict[NamespacedName, list[Frontend]] = {}
        for frontend in snapshot.frontends:
            self._frontends.setdefault(frontend.owner.service, []).append(frontend)

    def view(self, service: Service) -> ServiceView:
        """Return the view of a Service of the snapshot, or of what a Gateway serves in the tables."""
        frontends = self._frontends.get(service.name, [])
        ports = tuple(self._port(service, port, frontends) for port in service.ports if frontends)
        name = owner_text(service.name) if is_gateway(service.name) else str(service.name)
        return ServiceView(name, _type(service), tuple(_policies(service, frontends)), ports)

    def is_empty(self, service: Service) -> bool:
        """Whether a list of endpoints of a frontend is empty."""
        found = self._frontends.get(service.name, ())
        return any(not side.endpoints for frontend in found for side in frontend.sides)

    def _port(self, service: Service, port: ServicePort, frontends: Iterable[Frontend]) -> PortView:
        own = [frontend for frontend in frontends if frontend.owner.port == port.name]
        number = f"{port.port}/{port.protocol}"
        lists: dict[tuple[Backends, str], ListView] = {}
        views = [self._frontend(service, frontend, lists) for frontend in own]
        return PortView(f"{port.name} {number}" if port.name else number, tuple(views), tuple(lists.values()))

    def _frontend(
        self, service: Service, frontend: Frontend, lists: dict[tuple[Backends, str], ListView]
    ) -> FrontendView:
        numbers = []
        for side in frontend.sides:
            clients = "from outside" if side is frontend.from_outside else ""
            if (side, clients) not in lists:
                lists[side, clients] = self._list(service, frontend, side, clients)
            numbers.append(list(lists).index((side, clients)))
        return FrontendView(str(frontend), frontend.kind, tuple(numbers))

    def _list(self, service: Service, frontend: Frontend, side: Backends, clients: str) -> ListView:
        counts, slots = Counter(side.endpoints), len(side.endpoints)
        slices, node = self._slices.get(service.name, ()), self._snapshot.node
        endpoints = tuple(
            EndpointView(
                format_socket(use.address, use.port),
                use.pod,
                use.node,
                bool(node.name) and use.node == node.name,
                Fraction(counts[use.address, use.port], slots or 1),
                use.brief,
            )
            for use in endpoint_uses(service, frontend, side, slices, node)
        )
        empty = "dropped" if side.elsewhere else "refused"
        return ListView(clients, "" if slots else empty, endpoints)


def _type(service: Service) -> str:
    return "headless" if service.headless else service.type


def _policies(service: Service, frontends: Iterable[Frontend]) -> Iterator[str]:
    if service.external_name:
        yield f"externalName: {service.external_name}"
    if service.affinity_timeout is not None:
        yield f"sessionAffinity: ClientIP ({duration(service.affinity_timeout)})"
    if service.internal_local:
        yield "internalTrafficPolicy: Local"
    if service.external_local:
        yield "externalTrafficPolicy: Local"
    if service.distribution:
        yield f"trafficDistribution: {service.distribution}"
    if service.publish_not_ready:
        yield "publishNotReadyAddresses"
    ranges = dict.fromkeys(network for each in frontends for network in each.source_ranges or ())
    if ranges:
        yield f"loadBalancerSourceRanges: {', '.join(map(str, ranges))}"
    if service.hashing:
        of_port = " and port" if service.hashing is Balance.CLIENT_PORT else ""
        yield f"consistent hash of the client's address{of_port}"
    if service.weights:
        yield "weights"

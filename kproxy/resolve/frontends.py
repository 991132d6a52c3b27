"""On which (address, protocol, port) a service is shown, and with which endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kproxy.model import (
    Address,
    EndpointSlice,
    Frontend,
    FrontendKind,
    NamespacedName,
    Node,
    Service,
    ServicePort,
    ServicePortName,
    family_of,
)
from kproxy.resolve.endpoints import Backends, backends


def service_frontends(service: Service, slices: Iterable[EndpointSlice], node: Node) -> Iterator[Frontend]:
    """Every frontend of a service whose addresses and node ports are allocated.

    A headless or ExternalName service has none. A node port is shown on the node's addresses
    of the families that the service has.
    """
    if not service.wants_cluster_ip:
        return
    slices = tuple(slices)
    families = {family_of(address) for address in service.cluster_ips}
    node_addresses = [address for address in node.node_port_addresses if family_of(address) in families]
    for port in service.ports:
        known: dict[str, Backends] = {}
        shown: list[tuple[FrontendKind, Address, int]] = [
            (FrontendKind.CLUSTER_IP, address, port.port) for address in service.cluster_ips
        ]
        if port.node_port:
            shown += [(FrontendKind.NODE_PORT, address, port.node_port) for address in node_addresses]
        for kind, address, number in shown:
            family = family_of(address)
            if family not in known:
                known[family] = backends(port, slices, family, node.name)
            yield _frontend(service, port, kind, address, number, known[family])


def _frontend(
    service: Service, port: ServicePort, kind: FrontendKind, address: Address, number: int, behind: Backends
) -> Frontend:
    return Frontend(
        owner=ServicePortName(service.name, port.name),
        kind=kind,
        address=address,
        protocol=port.protocol,
        port=number,
        endpoints=behind.endpoints,
        local=behind.local,
        affinity_timeout=service.affinity_timeout,
    )


def all_frontends(
    services: Iterable[Service], slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]], node: Node
) -> list[Frontend]:
    """The frontends of all services, in order of their names."""
    return [
        frontend
        for service in sorted(services, key=lambda service: service.name)
        for frontend in service_frontends(service, slices.get(service.name, ()), node)
    ]

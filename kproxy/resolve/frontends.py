"""On which (address, protocol, port) a service is shown, and with which endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import NamedTuple

from kproxy.model import (
    Address,
    EndpointSlice,
    Family,
    Frontend,
    FrontendKind,
    NamespacedName,
    Network,
    Node,
    Protocol,
    Service,
    ServicePort,
    ServicePortName,
    family_of,
    network_family,
)
from kproxy.problems import Problem
from kproxy.resolve.endpoints import Choices, balance_of, choices

ALLOCATED = (FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT)
FIELDS = {
    FrontendKind.CLUSTER_IP: "spec.clusterIP",
    FrontendKind.NODE_PORT: "spec.ports",
    FrontendKind.EXTERNAL_IP: "spec.externalIPs",
    FrontendKind.LOAD_BALANCER: "status.loadBalancer.ingress",
}
"""Which field of a service shows it there."""


def _shown(service: Service, node: Node) -> Iterator[tuple[FrontendKind, Address]]:
    """The addresses on which a service is shown, of the families that it has."""
    families = {family_of(address) for address in service.cluster_ips}
    for kind, addresses in (
        (FrontendKind.CLUSTER_IP, service.cluster_ips),
        (FrontendKind.EXTERNAL_IP, service.external_ips),
        (FrontendKind.LOAD_BALANCER, service.load_balancer_ips),
        (FrontendKind.NODE_PORT, node.node_port_addresses),
    ):
        for address in dict.fromkeys(addresses):
            if family_of(address) in families:
                yield kind, address


def source_ranges(service: Service, address: Address, node: Node) -> tuple[Network, ...] | None:
    """Who may use a load-balancer address: no two ranges overlap. None: everyone.

    Where this node may, the load-balancer addresses count as allowed, too: the node's own packets
    carry one as their source if it is one of the node's. Without a range of the address's family
    everyone may, as with kube-proxy.
    """
    family = family_of(address)
    ranges = [network for network in service.source_ranges if network_family(network) is family]
    own = [ip_address(a) for a in node.addresses if family_of(a) is family]
    if any(a in network for a in own for network in ranges):
        ranges += [ip_network(a) for a in service.load_balancer_ips if family_of(a) is family]
    return tuple(merged(ranges)) if ranges else None


def merged(ranges: Iterable[Network]) -> Iterator[Network]:
    """The same addresses in ranges of which no two overlap, which the kernel would refuse."""
    ranges = list(ranges)
    yield from collapse_addresses(network for network in ranges if isinstance(network, IPv4Network))
    yield from collapse_addresses(network for network in ranges if isinstance(network, IPv6Network))


def service_frontends(service: Service, slices: Iterable[EndpointSlice], node: Node) -> Iterator[Frontend]:
    """Every frontend of a service whose addresses and node ports are allocated.

    A headless or ExternalName service has none, and neither has one that another proxy serves.
    """
    if not service.wants_cluster_ip or service.proxied_elsewhere:
        return
    slices = tuple(slices)
    shown = list(_shown(service, node))
    for port in service.ports:
        known: dict[Family, Choices] = {}
        for kind, address in shown:
            family = family_of(address)
            if kind is FrontendKind.NODE_PORT and not port.node_port:
                continue
            if family not in known:
                known[family] = choices(service, port, slices, family, node)
            yield _frontend(service, port, kind, address, known[family], node)


def _frontend(
    service: Service, port: ServicePort, kind: FrontendKind, address: Address, chosen: Choices, node: Node
) -> Frontend:
    internal = kind is FrontendKind.CLUSTER_IP
    return Frontend(
        owner=ServicePortName(service.name, port.name),
        kind=kind,
        address=address,
        protocol=port.protocol,
        port=port.node_port if kind is FrontendKind.NODE_PORT else port.port,
        backends=chosen.internal if internal else chosen.cluster,
        from_outside=None if internal else chosen.outside,
        local=chosen.local,
        balance=balance_of(service),
        affinity_timeout=service.affinity_timeout,
        source_ranges=source_ranges(service, address, node) if kind is FrontendKind.LOAD_BALANCER else None,
        serving=chosen.serving,
    )


class Shown(NamedTuple):
    """What all services come to."""

    frontends: list[Frontend]
    """In order of the services' names."""
    problems: list[Problem]
    left_out: set[NamespacedName]


def all_frontends(
    services: Iterable[Service], slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]], node: Node
) -> Shown:
    """The frontends of all services, and what of them is contested.

    ClusterIPs and node ports belong to one service (they are allocated). Of several services that
    are shown on one external or load-balancer address and port, the oldest is; the others are left
    out whole. Age is creationTimestamp, then the order of `services`.
    """
    services = list(services)
    shown = {s.name: list(service_frontends(s, slices.get(s.name, ()), node)) for s in services}
    owners = {_socket(f): f.owner.service for found in shown.values() for f in found if f.kind in ALLOCATED}
    problems: list[Problem] = []
    left_out: set[NamespacedName] = set()
    for service in sorted(services, key=lambda service: service.origin.created or "~"):
        found = shown[service.name]
        rivals = [f for f in found if owners.get(_socket(f), service.name) != service.name]
        if rivals:
            first, field = rivals[0], FIELDS[rivals[0].kind]
            message = f"{first} belongs to Service {owners[_socket(first)]}"
            problems.append(Problem(service.origin.source, f"Service {service.name}", field, message))
            left_out.add(service.name)
        else:
            owners.update((_socket(frontend), service.name) for frontend in found)
    kept = [frontend for name in sorted(shown.keys() - left_out) for frontend in shown[name]]
    return Shown(kept, problems, left_out)


def _socket(frontend: Frontend) -> tuple[Address, Protocol, int]:
    return frontend.address, frontend.protocol, frontend.port

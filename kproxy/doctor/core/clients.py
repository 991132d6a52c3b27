"""Checks of the connection that the command asks about: its port, its protocol and its client."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from kproxy.doctor.core.asked import Asked
from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.objects import Objects
from kproxy.explain.question import THIS_NODE
from kproxy.model import (
    Address,
    Frontend,
    FrontendKind,
    Network,
    Service,
    ServicePort,
    family_of,
    format_address,
    network_family,
)
from kproxy.problems import enumeration


def ping(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """The user expects a ClusterIP to answer ping."""
    if asked.ping and objects.served:
        yield Sighting(
            _subject(asked), "ping does not show whether a Service works: no interface has its address"
        )


def wrong_port(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """The Service has no such port at the address in question."""
    for service in objects.served:
        if asked.ping or any(asked.fits(port) for port in service.ports) or _is_node_port(service, asked):
            continue
        evidence = [f"its ports are {enumeration([_port(each) for each in service.ports])}"]
        evidence += _other_meanings(service, asked.port)
        yield Sighting(_subject(asked), f"the Service has no port {asked.port}", tuple(evidence))


def _is_node_port(service: Service, asked: Asked) -> bool:
    is_cluster_ip = asked.address is None or asked.address in service.cluster_ips
    return not is_cluster_ip and asked.port in {str(port.node_port) for port in service.ports}


def _other_meanings(service: Service, asked: str) -> Iterator[str]:
    for port in service.ports:
        if asked == str(port.target_port):
            yield f"{asked} is the target port of port {port.port}: the pods listen on it, not the Service"
        if asked == str(port.node_port):
            yield f"{asked} is the node port of port {port.port}: use it with an address of a node"


def wrong_protocol(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """The Service has the port, but of another protocol."""
    for service in objects.served:
        fitting = [port for port in service.ports if asked.fits(port)]
        if asked.protocol and not asked.ping and fitting and not asked.ports(service):
            have = enumeration([_port(each) for each in fitting])
            what = f"port {asked.port} of the Service is not of protocol {asked.protocol}"
            yield Sighting(_subject(asked), what, (f"it has {have}",))


def from_outside(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """A client outside of the cluster uses a ClusterIP."""
    if asked.client is None or (asked.address and not _is_cluster_ip(objects, asked.address)):
        return
    for service in objects.served:
        for address in service.cluster_ips:
            client = asked.source(family_of(address))
            if client and asked.address in (None, address) and _is_outside(objects, asked, client):
                what = f"{format_address(client)} is outside of the cluster, and asks for a ClusterIP"
                ways = _outside_ways(objects, service)
                evidence = f"{format_address(address)} is the ClusterIP", f"from outside: {ways}"
                yield Sighting(_subject(asked), what, evidence, sure=False)
                return


def _is_cluster_ip(objects: Objects, address: Address) -> bool:
    return any(address in service.cluster_ips for service in objects.services)


def _is_outside(objects: Objects, asked: Asked, client: Address) -> bool:
    assert asked.client is not None
    known = asked.client.text == THIS_NODE or asked.client.text.startswith("pod ")
    nodes = {address for node in objects.inventory.nodes.values() for address in node.host_ips}
    return not known and client not in nodes and not _contains(objects.snapshot.options.pod_cidrs, client)


def _contains(networks: tuple[Network, ...], address: Address) -> bool:
    return any(network_family(n) is family_of(address) and ip_address(address) in n for n in networks)


def _outside_ways(objects: Objects, service: Service) -> str:
    ways = [str(f) for f in objects.context.frontends(service.name) if f.kind is not FrontendKind.CLUSTER_IP]
    return enumeration(ways) if ways else "the Service has no node port and no external address"


def source_ranges(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """loadBalancerSourceRanges do not contain the client."""
    for service in objects.served:
        for frontend in objects.context.frontends(service.name):
            client = asked.source(family_of(frontend.address))
            if client is None or frontend.source_ranges is None or not _is_asked(frontend, asked):
                continue
            if not _contains(frontend.source_ranges, client):
                ranges = enumeration([str(each) for each in frontend.source_ranges])
                what = f"loadBalancerSourceRanges do not contain {format_address(client)}"
                yield Sighting(_subject(asked), what, (f"{frontend} is for {ranges}",))
                break


def _is_asked(frontend: Frontend, asked: Asked) -> bool:
    if asked.address is not None:
        return frontend.address == asked.address
    return asked.port in ("", str(frontend.port), frontend.owner.port)


def node_port_elsewhere(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """A node port is not served on the address in question."""
    if asked.address is None or asked.service is None:
        return
    for service in objects.served:
        frontends = objects.context.frontends(service.name)
        if any(frontend.address == asked.address for frontend in frontends):
            continue
        if asked.port in {str(port.node_port) for port in service.ports}:
            where = [f.address for f in frontends if f.kind is FrontendKind.NODE_PORT]
            on = enumeration(sorted({format_address(each) for each in where})) or "no address"
            what = f"this node does not serve node port {asked.port} on {format_address(asked.address)}"
            yield Sighting(_subject(asked), what, (f"it serves node ports on {on}",))


def _port(port: ServicePort) -> str:
    name = f" ({port.name})" if port.name else ""
    return f"{port.port}/{port.protocol}{name}"


def _subject(asked: Asked) -> str:
    return f"Service {asked.service}" if asked.service else asked.text

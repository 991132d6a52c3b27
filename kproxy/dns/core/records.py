"""Services and pods -> the record sets of the Kubernetes DNS specification 1.1.0.

A Service with a ClusterIP has the records of its addresses and named ports. A headless Service has those of
its ready endpoints, from all its slices together. An ExternalName Service is an alias. A name that DNS cannot
express (a Service name with a dot, an endpoint whose host name is not a label) has no records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import IntEnum
from ipaddress import ip_address
from struct import pack
from typing import NamedTuple, TypeAlias

from kproxy.dns.core.names import Name, below, dashed, endpoint_label, name_of, reverse_name
from kproxy.model import (
    GATEWAY,
    Address,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    NamespacedName,
    Protocol,
    Service,
)

TTL = 5
"""Seconds that clients may keep an answer, also a negative one. CoreDNS has the same default."""
VERSION = "1.1.0"
"""The version of the specification."""
VERSION_TTL = 28800
Published: TypeAlias = tuple[Endpoint, tuple[EndpointPort, ...]]
"""An endpoint that has a name, and the ports of its slice."""
SRV_PRIORITY, SRV_WEIGHT = 0, 100


class Type(IntEnum):
    """A type of record."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    TXT = 16
    AAAA = 28
    SRV = 33


class RecordSet(NamedTuple):
    """The records of one name and type."""

    name: Name
    type: Type
    data: tuple[bytes, ...]
    """The data of each record, in wire format, without compression."""
    ttl: int = TTL
    extras: tuple[RecordSet, ...] = ()
    """The addresses of the targets, for the additional section."""


def zone_records(domain: Name, servers: Iterable[Address]) -> Iterator[RecordSet]:
    """Yield the records that do not depend on Services. `servers`: the addresses of the name server."""
    server = server_name(domain)
    found = addresses(server, servers)
    yield RecordSet(domain, Type.NS, (server,), extras=found)
    yield from found
    text = VERSION.encode()
    version = below(domain, "dns-version")
    assert version is not None
    yield RecordSet(version, Type.TXT, (bytes((len(text),)) + text,), VERSION_TTL)


def server_name(domain: Name) -> Name:
    """Return the name of the name server: `ns.dns.DOMAIN`, as CoreDNS names it."""
    name = below(domain, "ns", "dns")
    assert name is not None
    return name


def service_records(service: Service, slices: Iterable[EndpointSlice], domain: Name) -> Iterator[RecordSet]:
    """Yield the records of a Service with its slices."""
    yield from own_records(service, domain)
    yield from endpoint_records(service.name, published(service, slices), domain)


def own_records(service: Service, domain: Name) -> Iterator[RecordSet]:
    """Yield the records of a Service that do not depend on its endpoints. A Gateway has none."""
    if service.type == GATEWAY:
        return
    name = below(domain, service.name.name, service.name.namespace, "svc")
    if name is None:
        return
    if service.type == "ExternalName":
        yield from _alias(name, service.external_name)
    elif not service.headless:
        yield from _cluster_ip(name, service)


def published(service: Service, slices: Iterable[EndpointSlice]) -> Iterator[Published]:
    """Yield the endpoints that have names: of a headless Service, the ready ones or all."""
    if service.type == "ExternalName" or not service.headless:
        return
    for slice_ in slices:
        for endpoint in slice_.endpoints:
            if endpoint.ready or service.publish_not_ready:
                yield endpoint, slice_.ports


def is_endpoint(name: Name, service: Service, domain: Name) -> bool:
    """Whether a name of a Service is that of one endpoint."""
    own = below(domain, service.name.name, service.name.namespace, "svc")
    return name != own and not name[1:].startswith(b"_")


def pod_records(namespace: str, address: Address, domain: Name) -> Iterator[RecordSet]:
    """Yield the record of an address of a pod: `10-0-0-8.NAMESPACE.pod.DOMAIN`."""
    name = below(domain, dashed(address), namespace, "pod")
    if name is not None:
        yield from addresses(name, (address,))


def addresses(name: Name, found: Iterable[Address]) -> tuple[RecordSet, ...]:
    """Return the A and AAAA records of a name. Equal addresses are merged."""
    unique = dict.fromkeys(found)
    sets = {
        Type.A: tuple(address for address in unique if len(address) == 4),
        Type.AAAA: tuple(address for address in unique if len(address) == 16),
    }
    return tuple(RecordSet(name, kind, data) for kind, data in sets.items() if data)


def _alias(name: Name, target: str) -> Iterator[RecordSet]:
    """Yield a CNAME record. An address is not a name, and is no alias in CoreDNS either."""
    try:
        ip_address(target)
    except ValueError:
        if (wire := name_of(target)) is not None:
            yield RecordSet(name, Type.CNAME, (wire,))


def _cluster_ip(name: Name, service: Service) -> Iterator[RecordSet]:
    own = addresses(name, service.cluster_ips)
    yield from own
    for port in service.ports if own else ():
        if (owner := _port_name(name, port.name, port.protocol)) is not None:
            yield RecordSet(owner, Type.SRV, (_srv(port.port, name),), extras=own)
    for address in service.cluster_ips:
        yield RecordSet(reverse_name(address), Type.PTR, (name,))


def endpoint_records(
    service: NamespacedName, endpoints: Iterable[Published], domain: Name
) -> Iterator[RecordSet]:
    """Yield the records of some endpoints of a headless Service, with what they add to those of its name."""
    name = below(domain, service.name, service.namespace, "svc")
    if name is None:
        return
    every: set[Address] = set()
    hosts: dict[Name, dict[Address, None]] = defaultdict(dict)
    ports: dict[Name, dict[bytes, Name]] = defaultdict(dict)
    for endpoint, numbers in endpoints:
        every.add(endpoint.address)
        host = below(name, endpoint_label(endpoint))
        if host is not None:
            hosts[host][endpoint.address] = None
            for owner, port in _named_ports(name, numbers):
                ports[owner][_srv(port, host)] = host
    yield from addresses(name, sorted(every))
    sets = {host: addresses(host, sorted(found)) for host, found in sorted(hosts.items())}
    for host, found in sets.items():
        yield from found
        for address in hosts[host]:
            yield RecordSet(reverse_name(address), Type.PTR, (host,))
    for owner, targets in ports.items():
        extras = [each for host in sorted(set(targets.values())) for each in sets[host]]
        yield RecordSet(owner, Type.SRV, tuple(sorted(targets)), extras=tuple(extras))


def _named_ports(name: Name, ports: Iterable[EndpointPort]) -> Iterator[tuple[Name, int]]:
    """Yield the name of the SRV records of each port, and its number."""
    for port in ports:
        if (owner := _port_name(name, port.name, port.protocol)) is not None:
            yield owner, port.port


def _port_name(name: Name, port: str, protocol: Protocol) -> Name | None:
    """Return the name of a port's SRV records. A port without name has none."""
    return below(name, f"_{port}", f"_{protocol}") if port else None


def _srv(port: int, target: Name) -> bytes:
    return pack("!HHH", SRV_PRIORITY, SRV_WEIGHT, port) + target

"""ClusterIPs and node ports, as the API server hands them out.

What a service asks for explicitly wins and is checked against its range; what it was
given before stays; the rest is allocated, at a place that its name determines, so that
a lost state or another host comes to the same answer unless names collide. The lower
end of a range is left to explicit requests while the upper has room, as in Kubernetes.
Pure: `Allocations` in, `Allocations` out; standalone/store.py keeps them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from kproxy.model import (
    Family,
    NamespacedName,
    Network,
    Service,
    ServicePort,
    family_of,
    format_address,
    network_family,
)
from kproxy.problems import Problem


class Claim(NamedTuple):
    """What an allocation is for: one family of a service ("ip", "ip6"), or one port's node port."""

    service: NamespacedName
    what: str
    """A family's name, or `PORTNAME/PROTOCOL`."""


class Resource(NamedTuple):
    """What only one service can have: an address (kind: its family), a node port (kind: its protocol)."""

    kind: str
    value: int


Allocations = Mapping[Claim, Resource]


class Ranges(NamedTuple):
    """Where allocations come from."""

    service_cidrs: tuple[Network, ...]
    """One or two, of different families; the first is the primary one."""
    node_ports: tuple[int, int]
    """First and last, both included."""


class Allocated(NamedTuple):
    """Services with every address and node port that they ought to have, and who holds what now."""

    services: dict[NamespacedName, Service]
    allocations: dict[Claim, Resource]
    problems: list[Problem]
    left_out: set[NamespacedName]


class _Refused(Exception):
    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def _places(name: str, low: int, high: int, static: int) -> Iterator[int]:
    """Every number of low..high once: first above the static band, starting where `name` hashes to."""
    for first, last in ((low + static, high), (low, low + static - 1)):
        size = last - first + 1
        if size > 0:
            start = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") % size
            for step in range(size):
                yield first + (start + step) % size


def _address_range(network: Network) -> tuple[int, int, int]:
    """First and last allocatable address of a service CIDR, and the size of its static band."""
    low, high = int(network.network_address) + 1, int(network.broadcast_address) - (network.version == 4)
    size = max(high - low + 1, 1)
    return low, high, 0 if size <= 16 else min(max(16, size // 16), 256)


def _port_range(ports: tuple[int, int]) -> tuple[int, int, int]:
    low, high = ports
    size = high - low + 1
    return low, high, 0 if size <= 16 else min(max(16, size // 32), 128)


def service_families(service: Service, available: tuple[Family, ...]) -> tuple[Family, ...]:
    """The families that a service gets ClusterIPs of, the primary one first."""
    asked = service.families or tuple(family_of(address) for address in service.cluster_ips)
    families = asked or available[:1]
    if service.family_policy == "SingleStack":
        return families[:1]
    if service.family_policy in ("PreferDualStack", "RequireDualStack"):
        families += tuple(family for family in available if family not in families)
    if service.family_policy == "RequireDualStack" and len(families) < 2:
        raise _Refused("spec.ipFamilyPolicy", "RequireDualStack needs --service-cidr of both families")
    return families


class _Ledger:
    """Who has what, while it is being worked out."""

    def __init__(self, ranges: Ranges) -> None:
        self.node_ports = ranges.node_ports
        self.cidrs = {network_family(network): network for network in ranges.service_cidrs}
        self.owners: dict[Resource, NamespacedName] = {}
        self.claims: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)

    def take(self, claim: Claim, resource: Resource) -> bool:
        """Whether `claim` has `resource` now; False if another service has it."""
        if self.owners.setdefault(resource, claim.service) != claim.service:
            return False
        self.claims[claim.service][claim] = resource
        return True

    def release(self, service: NamespacedName) -> None:
        for resource in self.claims.pop(service, {}).values():
            del self.owners[resource]

    def of(self, claim: Claim) -> Resource | None:
        return self.claims[claim.service].get(claim)

    def allocate(self, claim: Claim, kind: str, span: tuple[int, int, int]) -> Resource | None:
        """Something free, at the first place that the claim's name leads to."""
        for value in _places(f"{claim.service} {claim.what}", *span):
            if self.take(claim, resource := Resource(kind, value)):
                return resource
        return None


def _port_claim(service: Service, port: ServicePort) -> Claim:
    return Claim(service.name, f"{port.name}/{port.protocol}")


def _requests(ledger: _Ledger, service: Service) -> Iterator[tuple[str, Claim, Resource, str]]:
    """What the manifest asks for: field, claim, resource and its text; refused if out of range."""
    for index, address in enumerate(service.cluster_ips):
        path, text = f"spec.clusterIPs[{index}]" if index else "spec.clusterIP", format_address(address)
        resource = Resource(family_of(address), int.from_bytes(address, "big"))
        network = ledger.cidrs.get(family_of(address))
        if network is not None and not int(network[0]) < resource.value <= _address_range(network)[1]:
            raise _Refused(path, f"{text} is not an address of --service-cidr {network}")
        yield path, Claim(service.name, family_of(address)), resource, text
    low, high = ledger.node_ports
    for index, port in enumerate(service.ports if service.wants_node_ports else ()):
        if port.node_port:
            path, text = f"spec.ports[{index}].nodePort", f"{port.node_port}/{port.protocol}"
            if not low <= port.node_port <= high:
                raise _Refused(path, f"{text} is not in --service-node-port-range {low}-{high}")
            yield path, _port_claim(service, port), Resource(port.protocol, port.node_port), text


def _needs(ledger: _Ledger, service: Service) -> Iterator[tuple[str, Claim, str, tuple[int, int, int], str]]:
    """Everything that it ought to have: field, claim, kind, range (first, last, static) and its name."""
    for family in service_families(service, tuple(ledger.cidrs)):
        claim, network = Claim(service.name, family), ledger.cidrs.get(family)
        if network is not None:
            yield "spec.clusterIP", claim, family, _address_range(network), f"--service-cidr {network}"
        elif ledger.of(claim) is None:
            raise _Refused("spec.ipFamilies", f"there is no --service-cidr of family {family}")
    low, high = ledger.node_ports
    for index, port in enumerate(service.ports if service.wants_node_ports else ()):
        path, name = f"spec.ports[{index}].nodePort", f"--service-node-port-range {low}-{high}"
        yield path, _port_claim(service, port), port.protocol, _port_range((low, high)), name


def _reserve_held(ledger: _Ledger, service: Service, held: Mapping[Claim, Resource]) -> None:
    """Take what it had before, where the manifest asks for nothing else and the range still allows it."""
    try:
        asked = {claim: resource for _, claim, resource, _ in _requests(ledger, service)}
        for _, claim, kind, (low, high, _), _ in _needs(ledger, service):
            resource = held.get(claim)
            if resource is None or asked.get(claim, resource) != resource:
                continue
            if resource.kind == kind and low <= resource.value <= high:
                ledger.take(claim, resource)
    except _Refused:
        return  # said again, and reported, when its turn comes


def _grant(ledger: _Ledger, service: Service) -> Service:
    for path, claim, resource, text in _requests(ledger, service):
        if not ledger.take(claim, resource):
            raise _Refused(path, f"{text} belongs to Service {ledger.owners[resource]}, which is older")
    return service


def _complete(ledger: _Ledger, service: Service) -> Service:
    """The service with all its addresses and node ports."""
    for path, claim, kind, span, range_ in _needs(ledger, service):
        if ledger.of(claim) is None and ledger.allocate(claim, kind, span) is None:
            raise _Refused(path, f"nothing is free in {range_}")
    families = service_families(service, tuple(ledger.cidrs))
    mine = ledger.claims[service.name]
    return msgspec.structs.replace(
        service,
        families=families,
        cluster_ips=tuple(mine[Claim(service.name, f)].value.to_bytes(f.width, "big") for f in families),
        ports=tuple(
            msgspec.structs.replace(port, node_port=mine[_port_claim(service, port)].value)
            if service.wants_node_ports
            else msgspec.structs.replace(port, node_port=0)
            for port in service.ports
        ),
    )


def allocate(
    services: Collection[Service], held: Allocations, ranges: Ranges, kept: Callable[[NamespacedName], bool]
) -> Allocated:
    """Give every service its addresses and node ports.

    `held` is what was given out before; what it gave to services that are not in the input stays
    theirs if `kept` says so. Of several that want the same thing, who holds it keeps it; else the
    older one gets it, by creationTimestamp, then by the order of the input. A service that cannot
    have all that it needs is left out and reported, and keeps what it held.
    """
    ledger = _Ledger(ranges)
    holdings: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)
    for claim, resource in held.items():
        holdings[claim.service][claim] = resource
    queue = sorted((s for s in services if s.wants_cluster_ip), key=lambda s: s.origin.created or "~")
    names = {service.name for service in services}
    for name in [name for name in holdings if name not in names and kept(name)]:
        for claim, resource in holdings[name].items():
            ledger.take(claim, resource)
    for service in queue:
        if service.name in holdings:
            _reserve_held(ledger, service, holdings[service.name])
    problems: list[Problem] = []
    left_out: set[NamespacedName] = set()
    done = {service.name: service for service in services}
    for step in (_grant, _complete):
        for service in queue:
            if service.name in left_out:
                continue
            try:
                done[service.name] = step(ledger, service)
            except _Refused as refusal:
                problems.append(
                    Problem(service.origin.source, f"Service {service.name}", refusal.path, str(refusal))
                )
                left_out.add(service.name)
                del done[service.name]
                ledger.release(service.name)
                for claim, resource in holdings.get(service.name, {}).items():
                    ledger.take(claim, resource)
    allocations = {claim: resource for mine in ledger.claims.values() for claim, resource in mine.items()}
    return Allocated(done, allocations, problems, left_out)

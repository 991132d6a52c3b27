"""ClusterIPs and node ports, as the API server hands them out.

What a service asks for explicitly wins and is checked against its range; what it was
given before stays; the rest is allocated, at a place that its name determines, so that
a lost state or another host comes to the same answer unless names collide. The lower
end of a range is left to explicit requests while the upper has room, as in Kubernetes.
Pure: `Allocations` in, `Allocations` out; standalone/store.py keeps them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from kproxy.model import (
    Family,
    NamespacedName,
    Network,
    Protocol,
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
    given = tuple(family_of(address) for address in service.cluster_ips)
    families = tuple(dict.fromkeys(service.families + given)) or available[:1]
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
        self.cidrs = {network_family(network): network for network in ranges.service_cidrs}
        # First and last number of each kind, and the size of the static band.
        self.spans: dict[str, tuple[int, int, int]] = {
            **{family: _address_range(network) for family, network in self.cidrs.items()},
            **{protocol: _port_range(ranges.node_ports) for protocol in Protocol},
        }
        self.owners: dict[Resource, Claim] = {}
        self.claims: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)

    def take(self, claim: Claim, resource: Resource) -> bool:
        """Whether `claim` has `resource` now; False if another claim has it."""
        if self.owners.setdefault(resource, claim) != claim:
            return False
        self.claims[claim.service][claim] = resource
        return True

    def release(self, service: NamespacedName) -> None:
        for resource in self.claims.pop(service, {}).values():
            del self.owners[resource]

    def keep_only(self, service: NamespacedName, needed: Set[Claim]) -> None:
        """Let go of what a service held for ports or families that it no longer has."""
        mine = self.claims[service]
        for claim in mine.keys() - needed:
            del self.owners[mine.pop(claim)]

    def of(self, claim: Claim) -> Resource | None:
        return self.claims[claim.service].get(claim)

    def in_range(self, resource: Resource) -> bool:
        """Whether it is where it should be; where no range is known, everything is."""
        span = self.spans.get(resource.kind)
        return span is None or span[0] <= resource.value <= span[1]

    def range_of(self, kind: str) -> str:
        """The flag that says where resources of a kind come from."""
        if kind in self.cidrs:
            return f"--service-cidr {self.cidrs[Family(kind)]}"
        return "--service-node-port-range {}-{}".format(*self.spans[kind])

    def allocate(self, claim: Claim, kind: str) -> Resource | None:
        """Something free, at the first place that the claim's name leads to."""
        for value in _places(f"{claim.service} {claim.what}", *self.spans[kind]):
            if self.take(claim, resource := Resource(kind, value)):
                return resource
        return None


def _port_claim(service: Service, port: ServicePort) -> Claim:
    return Claim(service.name, f"{port.name}/{port.protocol}")


def _has_node_port(service: Service, port: ServicePort) -> bool:
    """Whether a port is shown on the nodes: a number that a manifest gives counts, whatever is allocated."""
    return service.wants_node_ports or (service.type == "LoadBalancer" and port.node_port != 0)


def _asked(service: Service) -> Iterator[tuple[Claim, Resource]]:
    """What the manifest asks for."""
    for address in service.cluster_ips:
        family = family_of(address)
        yield Claim(service.name, family), Resource(family, int.from_bytes(address, "big"))
    for port in service.ports:
        if port.node_port and _has_node_port(service, port):
            yield _port_claim(service, port), Resource(port.protocol, port.node_port)


def _reserve_held(ledger: _Ledger, service: Service, held: Mapping[Claim, Resource]) -> None:
    """Take what it had before, where the manifest asks for nothing else and the range still allows it."""
    asked = dict(_asked(service))
    for claim, resource in held.items():
        if asked.get(claim, resource) == resource and ledger.in_range(resource):
            ledger.take(claim, resource)


def _grant(ledger: _Ledger, service: Service) -> Service:
    """Give it what it asks for, or refuse."""
    for claim, resource in _asked(service):
        if not ledger.in_range(resource):
            raise _Refused(
                _field(service, claim), f"{_text(resource)} is not in {ledger.range_of(resource.kind)}"
            )
        if not ledger.take(claim, resource):
            owner = ledger.owners[resource].service
            whose = "another port" if owner == service.name else f"Service {owner}"
            raise _Refused(_field(service, claim), f"{_text(resource)} belongs to {whose}")
    return service


def _text(resource: Resource) -> str:
    """An address, or `30123/tcp`."""
    if resource.kind in list(Family):
        return format_address(resource.value.to_bytes(Family(resource.kind).width, "big"))
    return f"{resource.value}/{resource.kind}"


def _field(service: Service, claim: Claim) -> str:
    """Where a manifest asks for it."""
    for index, address in enumerate(service.cluster_ips):
        if claim.what == family_of(address) and index:
            return f"spec.clusterIPs[{index}]"
    for index, port in enumerate(service.ports):
        if claim == _port_claim(service, port):
            return f"spec.ports[{index}].nodePort"
    return "spec.clusterIP"


def _claims(service: Service, families: tuple[Family, ...]) -> dict[Claim, str]:
    """Everything that it ought to have, and of which kind."""
    claims: dict[Claim, str] = {Claim(service.name, family): family for family in families}
    for port in service.ports:
        if _has_node_port(service, port):
            claims[_port_claim(service, port)] = port.protocol
    return claims


def _complete(ledger: _Ledger, service: Service) -> Service:
    """The service with all its addresses and node ports."""
    families = service_families(service, tuple(ledger.cidrs))
    needed = _claims(service, families)
    ledger.keep_only(service.name, needed.keys())
    for claim, kind in needed.items():
        if ledger.of(claim) is not None:
            continue
        if kind not in ledger.spans:
            raise _Refused("spec.ipFamilies", f"there is no --service-cidr of family {kind}")
        if ledger.allocate(claim, kind) is None:
            raise _Refused(_field(service, claim), f"nothing is free in {ledger.range_of(kind)}")
    mine = ledger.claims[service.name]
    return msgspec.structs.replace(
        service,
        families=families,
        cluster_ips=tuple(mine[Claim(service.name, f)].value.to_bytes(f.width, "big") for f in families),
        ports=tuple(
            msgspec.structs.replace(port, node_port=mine[_port_claim(service, port)].value)
            if _has_node_port(service, port)
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
    have all that it needs is left out and reported, and keeps what it held: if another one was
    given some of that before it came to this, all is worked out again with this known.
    """
    holdings: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)
    for claim, resource in held.items():
        holdings[claim.service][claim] = resource
    names = {service.name for service in services}
    absent = [name for name in holdings if name not in names and kept(name)]
    queue = sorted((s for s in services if s.wants_cluster_ip), key=lambda s: s.origin.created or "~")
    known: dict[NamespacedName, Problem] = {}
    while True:
        ledger = _Ledger(ranges)
        for name in (*absent, *known):
            _restore(ledger, holdings.get(name, {}))
        done = {service.name: service for service in services if service.name not in known}
        refused = {**known, **_attempt(ledger, queue, holdings, done)}
        given = {claim: resource for mine in ledger.claims.values() for claim, resource in mine.items()}
        robbed = {
            name: problem
            for name, problem in refused.items()
            if name not in known and not holdings.get(name, {}).items() <= given.items()
        }
        if not robbed:
            return Allocated(done, given, list(refused.values()), set(refused))
        known.update(robbed)


def _restore(ledger: _Ledger, holding: Mapping[Claim, Resource]) -> None:
    for claim, resource in holding.items():
        ledger.take(claim, resource)


def _attempt(
    ledger: _Ledger,
    queue: Iterable[Service],
    holdings: Mapping[NamespacedName, Mapping[Claim, Resource]],
    done: dict[NamespacedName, Service],
) -> dict[NamespacedName, Problem]:
    """Complete those services of `done` that are in `queue`, in its order; who is refused, and why."""
    refused: dict[NamespacedName, Problem] = {}
    for service in queue:
        if service.name in done and service.name in holdings:
            _reserve_held(ledger, service, holdings[service.name])
    for step in (_grant, _complete):
        for service in queue:
            if service.name not in done:
                continue
            try:
                done[service.name] = step(ledger, service)
            except _Refused as refusal:
                refused[service.name] = Problem(
                    service.origin.source, f"Service {service.name}", refusal.path, str(refusal)
                )
                del done[service.name]
                ledger.release(service.name)
                _restore(ledger, holdings.get(service.name, {}))
    return refused

"""Allocate ClusterIPs, node ports and load-balancer addresses, as a cluster does.

A value that a Service requests has priority; it must be in the configured range. A value that
was allocated before stays. Other values are allocated, starting at a number that depends on the
Service's name: after a loss of the state, and on other hosts, the result is the same unless
names collide. As in Kubernetes, the lower part of a range is reserved for requests as long as
the upper part has free values. pool.py allocates load-balancer addresses, by rules of its own.

Pure: takes `Allocations` and returns new ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from kproxy.controlplane.ledger import Allocations, Claim, Ledger, Resource
from kproxy.controlplane.pool import add_load_balancer_ips, pool_claims
from kproxy.controlplane.ranges import Ranges, spans
from kproxy.model import (
    GATEWAY,
    Address,
    Family,
    NamespacedName,
    Protects,
    Protocol,
    Service,
    ServicePort,
    family_of,
    owner_text,
)
from kproxy.problems import Problem

PORTS = frozenset(map(str, Protocol))
"""The names of the spans of ports."""


class Allocated(Struct, frozen=True):
    """Services with all their addresses and node ports, and the new allocations."""

    services: dict[NamespacedName, Service]
    allocations: Allocations
    problems: list[Problem]
    refused: dict[NamespacedName, Problem]
    """Services that are not in `services`, because they cannot get all that they need, and why."""


class _Refused(Exception):
    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def service_families(service: Service, available: tuple[Family, ...]) -> tuple[Family, ...]:
    """Return the families of a Service's ClusterIPs, the primary one first; of a Gateway all families."""
    if service.type == GATEWAY:
        return tuple(Family)
    requested = tuple(family_of(address) for address in service.cluster_ips)
    families = tuple(dict.fromkeys(service.families + requested)) or available[:1]
    if service.family_policy == "SingleStack":
        return families[:1]
    if service.family_policy in ("PreferDualStack", "RequireDualStack"):
        families += tuple(family for family in available if family not in families)
    if service.family_policy == "RequireDualStack" and len(families) < 2:
        raise _Refused("spec.ipFamilyPolicy", "RequireDualStack requires a --service-cidr of each family")
    return families


def _port_claim(service: Service, port: ServicePort) -> Claim:
    return Claim(service.name, f"{port.name}/{port.protocol}")


def _health_check_claim(service: Service) -> Claim:
    """Return the claim. It does not collide with a port's claim, since names of ports are lower-case."""
    return Claim(service.name, "healthCheckNodePort/tcp")


def _has_node_port(service: Service, port: ServicePort) -> bool:
    """Whether a port has a node port. A load balancer's requested one counts even without allocation."""
    return service.wants_node_ports or (service.type == "LoadBalancer" and port.node_port != 0)


def _node_port_claims(service: Service) -> dict[str, Claim]:
    """Return the claims of a Service to node ports, by the names of the ports."""
    return {port.name: _port_claim(service, port) for port in service.ports if _has_node_port(service, port)}


def _health_check(service: Service) -> list[Claim]:
    return [_health_check_claim(service)] if service.wants_health_check else []


def _requests(service: Service) -> Iterator[tuple[Claim, Resource]]:
    """Yield the values that the manifest requests."""
    for address in service.cluster_ips:
        family = family_of(address)
        yield Claim(service.name, family), Resource(family, int.from_bytes(address, "big"))
    for port in service.ports:
        if port.node_port and _has_node_port(service, port):
            yield _port_claim(service, port), Resource(port.protocol, port.node_port)
    if service.health_check_node_port:
        yield _health_check_claim(service), Resource("tcp", service.health_check_node_port)


def _reserve_held(ledger: Ledger, service: Service, held: Mapping[Claim, Resource]) -> None:
    """Reserve what a Service held before, if it requests no other value and the range contains it.

    Node ports that the Service no longer needs are free immediately, also for Services before it.
    """
    requested, ports = (
        dict(_requests(service)),
        {*_node_port_claims(service).values(), *_health_check(service)},
    )
    for claim, resource in held.items():
        if ledger.span_name(claim) in PORTS and claim not in ports:
            continue
        is_allowed = ledger.allows if claim in requested else ledger.contains
        if requested.get(claim, resource) == resource and is_allowed(claim, resource):
            ledger.take(claim, resource)


def _grant(ledger: Ledger, service: Service) -> Service:
    """Take the values that a Service requests. Raises _Refused."""
    for claim, resource in _requests(service):
        if not ledger.allows(claim, resource):
            flag = ledger.spans[ledger.span_name(claim)].flag
            raise _Refused(_field(service, claim), f"{resource} is not in {flag}")
        if not ledger.take(claim, resource):
            owner = ledger.owners[resource].service
            holder = "another port" if owner == service.name else owner_text(owner)
            raise _Refused(_field(service, claim), f"{resource} belongs to {holder}")
    return service


def _field(service: Service, claim: Claim) -> str:
    """Return the field of the manifest for a claim."""
    if claim == _health_check_claim(service):
        return "spec.healthCheckNodePort"
    for index, address in enumerate(service.cluster_ips):
        if claim.what == family_of(address) and index:
            return f"spec.clusterIPs[{index}]"
    for index, port in enumerate(service.ports):
        if claim == _port_claim(service, port):
            return f"spec.ports[{index}].nodePort"
    return "spec.clusterIP"


def _with_node_port(port: ServicePort, number: int) -> ServicePort:
    return port if port.node_port == number else msgspec.structs.replace(port, node_port=number)


def _complete(ledger: Ledger, service: Service) -> Service:
    """Return the Service with all its ClusterIPs and node ports. Raises _Refused."""
    families = service_families(service, ledger.families)
    ips = [Claim(service.name, family) for family in families] if service.wants_cluster_ip else []
    ports, health_check = _node_port_claims(service), _health_check(service)
    needed = [*ips, *ports.values(), *health_check]
    ledger.keep_only(service.name, {*needed, *pool_claims(service, families, ledger)})
    mine = ledger.claims[service.name]
    for claim in needed:
        if claim in mine:
            continue
        name = ledger.span_name(claim)
        if name not in ledger.spans:
            version = "IPv4" if claim.what == Family.IPV4 else "IPv6"
            raise _Refused("spec.ipFamilies", f"there is no {version} --service-cidr")
        if ledger.allocate(claim) is None:
            raise _Refused(_field(service, claim), f"{ledger.spans[name].flag} is full")
    return msgspec.structs.replace(
        service,
        families=families,
        cluster_ips=tuple(mine[claim].address for claim in ips),
        ports=tuple(
            _with_node_port(port, mine[ports[port.name]].value if port.name in ports else 0)
            for port in service.ports
        ),
        health_check_node_port=mine[health_check[0]].value if health_check else 0,
    )


def allocate(
    services: Collection[Service],
    past: Allocations,
    ranges: Ranges,
    protected: Protects,
    in_use: Iterable[Address] = (),
) -> Allocated:
    """Allocate the addresses and node ports of all Services.

    `past` are the previous allocations. A Service that is not in the input keeps its values if it is
    `protected`. If several Services claim the same value, its holder keeps it; otherwise it goes to the
    oldest one (creationTimestamp), then to the first of the input.

    A Service that cannot get all that it needs is refused: it is reported and keeps what it held. If
    another Service was allocated some of that before the refusal, allocation starts again with the
    refusal known. A load-balancer address is optional: a Service that cannot get it is reported, but
    remains in the result, with its previous address if it had one. An address that is `in_use` by
    something else is allocated only on request.
    """
    holdings: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)
    for claim, resource in past.held.items():
        holdings[claim.service][claim] = resource
    names = {service.name for service in services}
    absent = [name for name in holdings if name not in names and protected(name)]
    queue = sorted((s for s in services if s.wants_frontends), key=lambda s: s.origin.created or "~")
    early: dict[NamespacedName, Problem] = {}  # refusals whose holdings have to be reserved first
    while True:
        ledger = Ledger(spans(ranges), past)
        for name in (*absent, *early):
            _restore(ledger, holdings.get(name, {}))
        done = {service.name: service for service in services if service.name not in early}
        refused = {**early, **_attempt(ledger, queue, holdings, done)}
        deprived = {
            name: problem
            for name, problem in refused.items()
            if name not in early and not holdings.get(name, {}).items() <= ledger.claims[name].items()
        }
        if not deprived:
            break
        early.update(deprived)
    problems = [*refused.values(), *add_load_balancer_ips(ledger, queue, done, in_use)]
    return Allocated(done, ledger.allocations(), problems, refused)


def _restore(ledger: Ledger, holding: Mapping[Claim, Resource]) -> None:
    for claim, resource in holding.items():
        ledger.take(claim, resource)


def _attempt(
    ledger: Ledger,
    queue: Iterable[Service],
    holdings: Mapping[NamespacedName, Mapping[Claim, Resource]],
    done: dict[NamespacedName, Service],
) -> dict[NamespacedName, Problem]:
    """Complete the Services of `queue` that are in `done`. Returns those that are refused, and why."""
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
                    service.origin.source, owner_text(service.name), refusal.path, str(refusal)
                )
                del done[service.name]
                ledger.keep_only(service.name, set())
                _restore(ledger, holdings.get(service.name, {}))
    return refused

"""ClusterIPs, node ports and load-balancer addresses, as a cluster hands them out.

What a service asks for explicitly wins and is checked against its range; what it was
given before stays; the rest is allocated, at a place that its name determines, so that
a lost state or another host comes to the same answer unless names collide. The lower
end of a range is left to explicit requests while the upper has room, as in Kubernetes.
Pure: `Allocations` in, `Allocations` out. Load-balancer addresses have rules of their
own, in pool.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from kproxy.controlplane.ledger import Allocations, Claim, Ledger, Resource
from kproxy.controlplane.pool import add_load_balancer_ips, pool_claims
from kproxy.controlplane.ranges import Ranges, spans
from kproxy.model import Address, Family, NamespacedName, Protects, Protocol, Service, ServicePort, family_of
from kproxy.problems import Problem

PORTS = frozenset(map(str, Protocol))
"""Spans of ports."""


class Allocated(NamedTuple):
    """Services with every address and node port that they ought to have, and who holds what now."""

    services: dict[NamespacedName, Service]
    allocations: Allocations
    problems: list[Problem]
    left_out: dict[NamespacedName, Problem]
    """Services that cannot have all that they need, and why."""


class _Refused(Exception):
    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


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


def _port_claim(service: Service, port: ServicePort) -> Claim:
    return Claim(service.name, f"{port.name}/{port.protocol}")


def _health_check_claim(service: Service) -> Claim:
    """No port has such a name: they are lower-case."""
    return Claim(service.name, "healthCheckNodePort/tcp")


def _has_node_port(service: Service, port: ServicePort) -> bool:
    """Whether a port is shown on the nodes: a number that a manifest gives counts, whatever is allocated."""
    return service.wants_node_ports or (service.type == "LoadBalancer" and port.node_port != 0)


def _node_port_claims(service: Service) -> dict[str, Claim]:
    """Its claims to node ports, by the ports' names."""
    return {port.name: _port_claim(service, port) for port in service.ports if _has_node_port(service, port)}


def _health_check(service: Service) -> list[Claim]:
    return [_health_check_claim(service)] if service.wants_health_check else []


def _asked(service: Service) -> Iterator[tuple[Claim, Resource]]:
    """What the manifest asks for."""
    for address in service.cluster_ips:
        family = family_of(address)
        yield Claim(service.name, family), Resource(family, int.from_bytes(address, "big"))
    for port in service.ports:
        if port.node_port and _has_node_port(service, port):
            yield _port_claim(service, port), Resource(port.protocol, port.node_port)
    if service.health_check_node_port:
        yield _health_check_claim(service), Resource("tcp", service.health_check_node_port)


def _reserve_held(ledger: Ledger, service: Service, held: Mapping[Claim, Resource]) -> None:
    """Take what it had before, where the manifest asks for nothing else and the range still allows it.

    Node ports that it does not need any more are free at once, for whoever comes before it, too.
    """
    asked, ports = dict(_asked(service)), {*_node_port_claims(service).values(), *_health_check(service)}
    for claim, resource in held.items():
        if ledger.span_name(claim) in PORTS and claim not in ports:
            continue
        if asked.get(claim, resource) == resource and ledger.allows(claim, resource):
            ledger.take(claim, resource)


def _grant(ledger: Ledger, service: Service) -> Service:
    """Give it what it asks for, or refuse."""
    for claim, resource in _asked(service):
        if not ledger.allows(claim, resource):
            flag = ledger.spans[ledger.span_name(claim)].flag
            raise _Refused(_field(service, claim), f"{resource} is not in {flag}")
        if not ledger.take(claim, resource):
            owner = ledger.owners[resource].service
            whose = "another port" if owner == service.name else f"Service {owner}"
            raise _Refused(_field(service, claim), f"{resource} belongs to {whose}")
    return service


def _field(service: Service, claim: Claim) -> str:
    """Where a manifest asks for it."""
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
    """The service with its ClusterIPs and node ports."""
    families = service_families(service, ledger.families)
    ips = [Claim(service.name, family) for family in families]
    ports, health_check = _node_port_claims(service), _health_check(service)
    needed = [*ips, *ports.values(), *health_check]
    ledger.keep_only(service.name, {*needed, *pool_claims(service, families, ledger)})
    mine = ledger.claims[service.name]
    for claim in needed:
        if claim in mine:
            continue
        name = ledger.span_name(claim)
        if name not in ledger.spans:
            raise _Refused("spec.ipFamilies", f"there is no --service-cidr of family {claim.what}")
        if ledger.allocate(claim) is None:
            raise _Refused(_field(service, claim), f"nothing is free in {ledger.spans[name].flag}")
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
    """Give every service its addresses and node ports.

    `past` is what was given out before; what services hold that are not in the input stays
    theirs if `protected` says so. Of several that want the same thing, who holds it keeps it; else the
    older one gets it, by creationTimestamp, then by the order of the input. A service that cannot
    have all that it needs is left out and reported, and keeps what it held: if another one was
    given some of that before it came to this, all is worked out again with this known. Only a
    load-balancer address is not needed: a service that cannot have one is reported, and served
    without, or with the one that it had. None that is `in_use` is given to whoever does not ask for it.
    """
    holdings: dict[NamespacedName, dict[Claim, Resource]] = defaultdict(dict)
    for claim, resource in past.held.items():
        holdings[claim.service][claim] = resource
    names = {service.name for service in services}
    absent = [name for name in holdings if name not in names and protected(name)]
    queue = sorted((s for s in services if s.wants_cluster_ip), key=lambda s: s.origin.created or "~")
    known: dict[NamespacedName, Problem] = {}
    while True:
        ledger = Ledger(spans(ranges), past)
        for name in (*absent, *known):
            _restore(ledger, holdings.get(name, {}))
        done = {service.name: service for service in services if service.name not in known}
        refused = {**known, **_attempt(ledger, queue, holdings, done)}
        robbed = {
            name: problem
            for name, problem in refused.items()
            if name not in known and not holdings.get(name, {}).items() <= ledger.claims[name].items()
        }
        if not robbed:
            break
        known.update(robbed)
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
                ledger.keep_only(service.name, set())
                _restore(ledger, holdings.get(service.name, {}))
    return refused

"""Allocate addresses of --load-balancer-pool to Services whose status contains none, and to Gateways.

In a cluster a controller does this, and a Service without such an address is served anyway. So it
is here: a failed allocation is a problem, and the Service keeps its previous address or has none.
If the status of a Service contains an address of the pool, this address is allocated to it if it
is free; no other Service gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

import msgspec

from kproxy.controlplane.ledger import Claim, Ledger, Resource
from kproxy.controlplane.ranges import LOAD_BALANCER
from kproxy.model import GATEWAY, Address, Family, NamespacedName, Service, family_of, owner_text, read_ip
from kproxy.problems import Problem

CLASS = "kproxy.io/load-balancer"
"""The spec.loadBalancerClass of Services that use the pool. Services without a class use it, too."""
ADDRESS, STATUS = "spec.loadBalancerIP", "status.loadBalancer"


def uses_pool(service: Service) -> bool:
    """Whether kproxy allocates the load-balancer addresses of a Service."""
    return service.type in ("LoadBalancer", GATEWAY) and service.load_balancer_class in ("", CLASS)


def pool_claims(service: Service, families: Iterable[Family], ledger: Ledger) -> list[Claim]:
    """Return the claims of a Service to addresses of the pool: one for each family that both have."""
    if not uses_pool(service):
        return []
    return [Claim(service.name, LOAD_BALANCER + f) for f in families if LOAD_BALANCER + f in ledger.spans]


def add_load_balancer_ips(
    ledger: Ledger,
    queue: Iterable[Service],
    done: dict[NamespacedName, Service],
    in_use: Iterable[Address],
) -> list[Problem]:
    """Add load-balancer addresses to the Services of `queue` that are in `done`. Returns the problems.

    The ledger contains their previous addresses. Requested addresses are allocated first, then the
    others in the order of `queue`. An address that is `in_use` by something else is allocated only on
    request.
    """
    flag = next((span.flag for name, span in ledger.spans.items() if name.startswith(LOAD_BALANCER)), "")
    if not flag:
        return []
    services = [done[s.name] for s in queue if s.name in done and uses_pool(s)]
    requested: dict[Claim, Resource] = {}
    invalid: dict[NamespacedName, str] = {}
    for service in services:
        try:
            requested.update(
                _status_requests(ledger, service)
                if service.ingress
                else _spec_requests(ledger, service, flag)
            )
        except ValueError as error:
            invalid[service.name] = str(error)
    _move(ledger, requested)
    excluded = {_resource(address) for service in done.values() for address in _manifest_addresses(service)}
    excluded.update(map(_resource, in_use))
    problems = []
    for service in services:
        claims = pool_claims(service, service.families, ledger)
        if service.ingress:
            for claim in claims:
                if ledger.held_by(claim) != requested.get(claim):
                    ledger.drop(claim)
            done[service.name] = msgspec.structs.replace(service, pool_ips=_held(ledger, claims))
            continue
        field, message = ADDRESS, invalid.get(service.name) or _conflict(ledger, claims, requested)
        if not message:
            field, message = STATUS, _allocate_missing(ledger, claims, excluded, flag)
        if message:
            field = "spec.addresses" if service.type == GATEWAY else field
            problems.append(Problem(service.origin.source, owner_text(service.name), field, message))
        held = _held(ledger, claims)
        done[service.name] = msgspec.structs.replace(service, load_balancer_ips=held, pool_ips=held)
    return problems


def _held(ledger: Ledger, claims: Iterable[Claim]) -> tuple[Address, ...]:
    return tuple(resource.address for claim in claims if (resource := ledger.held_by(claim)))


def _resource(address: Address) -> Resource:
    return Resource(family_of(address), int.from_bytes(address, "big"))


def _manifest_addresses(service: Service) -> Iterator[Address]:
    """Yield the external IPs and the load-balancer addresses in the manifest of a Service."""
    yield from service.external_ips
    for text in service.ingress:
        try:
            yield read_ip(text).packed
        except ValueError:  # a host name
            continue


def _spec_requests(ledger: Ledger, service: Service, flag: str) -> Iterator[tuple[Claim, Resource]]:
    """Yield the address that spec.loadBalancerIP requests. Raises ValueError if the request is invalid."""
    if not service.load_balancer_ip:
        return
    resource = _resource(read_ip(service.load_balancer_ip).packed)
    claim = Claim(service.name, LOAD_BALANCER + resource.kind)
    if claim.what not in ledger.spans or not ledger.allows(claim, resource):
        raise ValueError(f"{resource} is not in {flag}")
    if resource.kind not in service.families:
        raise ValueError(f"{resource} is not of an address family of the Service")
    yield claim, resource


def _status_requests(ledger: Ledger, service: Service) -> dict[Claim, Resource]:
    """Return, for each family, the first address of the pool in the status that the node serves."""
    requests: dict[Claim, Resource] = {}
    claims = pool_claims(service, service.families, ledger)
    for resource in map(_resource, service.load_balancer_ips):
        claim = Claim(service.name, LOAD_BALANCER + resource.kind)
        if claim in claims and ledger.allows(claim, resource):
            requests.setdefault(claim, resource)
    return requests


def _move(ledger: Ledger, requested: Mapping[Claim, Resource]) -> None:
    """Give each claim the resource that it requests. If that fails, the claim keeps what it holds."""
    staying: set[Claim] = set()
    while True:
        before = {claim: ledger.held_by(claim) for claim in requested if claim not in staying}
        for claim in before:
            ledger.drop(claim)
        failed = {claim for claim in before if not ledger.take(claim, requested[claim])}
        if not failed:
            return
        for claim in before:
            ledger.drop(claim)
        for claim, resource in before.items():
            if resource:
                ledger.take(claim, resource)
        staying |= failed


def _conflict(ledger: Ledger, claims: Iterable[Claim], requested: Mapping[Claim, Resource]) -> str:
    """Return a message if another Service holds a requested address, else ""."""
    for claim in claims:
        resource = requested.get(claim)
        if resource and ledger.held_by(claim) != resource:
            return f"{resource} belongs to {owner_text(ledger.owners[resource].service)}"
    return ""


def _allocate_missing(ledger: Ledger, claims: Iterable[Claim], excluded: Set[Resource], flag: str) -> str:
    """Allocate an address to each claim that holds none. Returns a message if that fails, else ""."""
    claims = list(claims)
    if not claims:
        return f"{flag} has no address of the Service's families"
    missing = [claim for claim in claims if not (ledger.held_by(claim) or ledger.allocate(claim, excluded))]
    names = " and no ".join("IPv4" if c.what.endswith("/ip") else "IPv6" for c in missing)
    return f"no {names} address is free in {flag}" if missing else ""

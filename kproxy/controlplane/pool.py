"""Load-balancer addresses out of --load-balancer-pool, for services whose status names none.

In a cluster a controller does this, and a service that gets no address is served all
the same. So here: what cannot be given is a problem, and the service goes on without
it, or with the address that it had. An address of the pool that a status names already
belongs to that service, if it is free; in any case it is not given to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

import msgspec

from kproxy.controlplane.ledger import Claim, Ledger, Resource
from kproxy.controlplane.ranges import LOAD_BALANCER
from kproxy.model import Address, Family, NamespacedName, Service, family_of, parse_address
from kproxy.problems import Problem

CLASS = "kproxy.io/load-balancer"
"""spec.loadBalancerClass of services that are ours; those without a class are, too."""
ADDRESS, STATUS = "spec.loadBalancerIP", "status.loadBalancer"


def is_ours(service: Service) -> bool:
    """Whether its load-balancer addresses are given out here."""
    return service.type == "LoadBalancer" and service.load_balancer_class in ("", CLASS)


def pool_claims(service: Service, families: Iterable[Family], ledger: Ledger) -> list[Claim]:
    """Its claims to addresses of the pool, one of each family that both have."""
    if not is_ours(service):
        return []
    return [Claim(service.name, LOAD_BALANCER + f) for f in families if LOAD_BALANCER + f in ledger.spans]


def add_load_balancer_ips(
    ledger: Ledger,
    queue: Iterable[Service],
    done: dict[NamespacedName, Service],
    in_use: Iterable[Address],
) -> list[Problem]:
    """Give load-balancer addresses to those of `done` that are in `queue`; what could not be given, and why.

    What they had is in the ledger. Who asks for a certain address goes first, then the others, in
    the order of `queue`; what is `in_use` by something else is given to those only who ask for it.
    """
    flag = next((span.flag for name, span in ledger.spans.items() if name.startswith(LOAD_BALANCER)), "")
    if not flag:
        return []
    ours = [done[s.name] for s in queue if s.name in done and is_ours(s)]
    asked: dict[Claim, Resource] = {}
    unfit: dict[NamespacedName, str] = {}
    for service in ours:
        try:
            asked.update(_named(ledger, service) if service.ingress else _asked(ledger, service, flag))
        except ValueError as error:
            unfit[service.name] = str(error)
    _move(ledger, asked)
    shown = {_resource(address) for service in done.values() for address in _shown(service)}
    shown.update(map(_resource, in_use))
    problems = []
    for service in ours:
        claims = pool_claims(service, service.families, ledger)
        if service.ingress:
            for claim in claims:
                if ledger.of(claim) != asked.get(claim):
                    ledger.drop(claim)
            done[service.name] = msgspec.structs.replace(service, pool_ips=_had(ledger, claims))
            continue
        field, message = ADDRESS, unfit.get(service.name) or _taken(ledger, claims, asked)
        if not message:
            field, message = STATUS, _fill(ledger, claims, shown, flag)
        if message:
            problems.append(Problem(service.origin.source, f"Service {service.name}", field, message))
        had = _had(ledger, claims)
        done[service.name] = msgspec.structs.replace(service, load_balancer_ips=had, pool_ips=had)
    return problems


def _had(ledger: Ledger, claims: Iterable[Claim]) -> tuple[Address, ...]:
    return tuple(resource.address for claim in claims if (resource := ledger.of(claim)))


def _resource(address: Address) -> Resource:
    return Resource(family_of(address), int.from_bytes(address, "big"))


def _shown(service: Service) -> Iterator[Address]:
    """Addresses that a manifest shows a service on, whoever gave them."""
    yield from service.external_ips
    for text in service.ingress:
        try:
            yield parse_address(text)
        except ValueError:  # a host name
            continue


def _asked(ledger: Ledger, service: Service, flag: str) -> Iterator[tuple[Claim, Resource]]:
    """What spec.loadBalancerIP asks for; ValueError if it is not to be had, whoever else asks."""
    if not service.load_balancer_ip:
        return
    resource = _resource(parse_address(service.load_balancer_ip))
    claim = Claim(service.name, LOAD_BALANCER + resource.kind)
    if claim.what not in ledger.spans or not ledger.allows(claim, resource):
        raise ValueError(f"{resource} is not in {flag}")
    if resource.kind not in service.families:
        raise ValueError(f"{resource} is of a family that the service does not have")
    yield claim, resource


def _named(ledger: Ledger, service: Service) -> dict[Claim, Resource]:
    """The first address of each family of the pool that the status names, if the node is to serve it."""
    named: dict[Claim, Resource] = {}
    claims = pool_claims(service, service.families, ledger)
    for resource in map(_resource, service.load_balancer_ips):
        claim = Claim(service.name, LOAD_BALANCER + resource.kind)
        if claim in claims and ledger.allows(claim, resource):
            named.setdefault(claim, resource)
    return named


def _move(ledger: Ledger, asked: Mapping[Claim, Resource]) -> None:
    """Give each claim what it asks for. Where that cannot be, it keeps what it has: none of that is taken."""
    staying: set[Claim] = set()
    while True:
        before = {claim: ledger.of(claim) for claim in asked if claim not in staying}
        for claim in before:
            ledger.drop(claim)
        lost = {claim for claim in before if not ledger.take(claim, asked[claim])}
        if not lost:
            return
        for claim in before:
            ledger.drop(claim)
        for claim, resource in before.items():
            if resource:
                ledger.take(claim, resource)
        staying |= lost


def _taken(ledger: Ledger, claims: Iterable[Claim], asked: Mapping[Claim, Resource]) -> str:
    """Who has what was asked for; "" if all is well."""
    for claim in claims:
        resource = asked.get(claim)
        if resource and ledger.of(claim) != resource:
            return f"{resource} belongs to Service {ledger.owners[resource].service}"
    return ""


def _fill(ledger: Ledger, claims: Iterable[Claim], but: Set[Resource], flag: str) -> str:
    """Allocate what is not there yet; why that cannot be, "" if all is well."""
    claims = list(claims)
    if not claims:
        return f"there is no address of the service's families in {flag}"
    lacking = [claim for claim in claims if not (ledger.of(claim) or ledger.allocate(claim, but))]
    names = " and no ".join("IPv4" if c.what.endswith("/ip") else "IPv6" for c in lacking)
    return f"no {names} address is free in {flag}" if lacking else ""

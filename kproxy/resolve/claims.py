"""Which frontends each Service claims, and which Service owns each of them.

ClusterIPs and node ports are allocated, so each belongs to one Service. External and load-balancer
addresses are copied from manifests, so several Services can claim the same address and port. The
owner is then the Service to which it is allocated, else the oldest one (creationTimestamp), else the
first by name. Each other Service keeps its remaining frontends and gets a `Problem`.

The result depends only on the present claims, not on their order. The cost of a change is
proportional to the number of frontends of the Services that claim the same addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from msgspec import Struct

from kproxy.limits import LOST_FRONTENDS, SERVICE_ENDPOINTS
from kproxy.model import (
    API_SERVER,
    GATEWAY,
    Address,
    EndpointSlice,
    Frontend,
    FrontendKind,
    NamespacedName,
    Node,
    Origin,
    Protocol,
    Service,
    format_address,
    owner_text,
)
from kproxy.problems import Problem, enumeration
from kproxy.resolve.frontends import EXTERNAL, denying, service_frontends

ALLOCATED = (FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT)
FIELDS = {
    FrontendKind.CLUSTER_IP: "spec.clusterIP",
    FrontendKind.NODE_PORT: "spec.ports",
    FrontendKind.EXTERNAL_IP: "spec.externalIPs",
    FrontendKind.LOAD_BALANCER: "status.loadBalancer.ingress",
    FrontendKind.GATEWAY: "spec.listeners",
}
"""The field of the Service or the Gateway that requires a frontend of this kind."""

CLUSTER_IP = FrontendKind.CLUSTER_IP
Socket: TypeAlias = tuple[Address, Protocol, int]

# --- what a Service claims ---


class FrontendClaim(Struct, frozen=True):
    """The frontends that a Service requires."""

    origin: Origin
    frontends: tuple[Frontend, ...]
    warnings: tuple[Problem, ...] = ()
    """What may be a mistake in the Service, and leaves out nothing."""
    refused: tuple[Problem, ...] = ()
    """Addresses on which the settings refuse to serve the Service, and why it is too large."""
    too_large: bool = False
    """There are no `frontends`, but what the tables contain of the Service stays."""


def claim(service: Service, slices: Iterable[EndpointSlice], node: Node) -> FrontendClaim:
    """Return the claim of a Service whose addresses and node ports are allocated."""
    slices = tuple(slices)
    frontends = _of_limited_size(service_frontends(service, slices, node))
    if frontends is None:
        return _too_large(service)
    warnings: list[Problem] = []
    if service.internal_local or service.external_local:
        warnings += _dropping(service, frontends, slices, node)
    own = node.addresses
    if exposed := [
        frontend
        for frontend in frontends
        if frontend.kind in EXTERNAL or (frontend.kind is CLUSTER_IP and frontend.address in own)
    ]:
        warnings += _taking(service, exposed, node)
    refused = tuple(_refused(service, node)) if node.denied else ()
    return FrontendClaim(service.origin, frontends, tuple(warnings), refused)


def _of_limited_size(frontends: Iterable[Frontend]) -> tuple[Frontend, ...] | None:
    """Return the frontends; None if they have too many endpoints."""
    found, size = [], 0
    for frontend in frontends:
        size += sum(len(side.endpoints) for side in frontend.sides)
        if size > SERVICE_ENDPOINTS:
            return None
        found.append(frontend)
    return tuple(found)


def _too_large(service: Service) -> FrontendClaim:
    message = f"its frontends have more than {SERVICE_ENDPOINTS} endpoints together: nothing is changed"
    problem = Problem(service.origin.source, owner_text(service.name), "spec.ports", message)
    return FrontendClaim(service.origin, (), refused=(problem,), too_large=True)


def _refused(service: Service, node: Node) -> Iterator[Problem]:
    """Yield a problem for each address on which the settings refuse to serve a Service."""
    for kind, addresses in _external(service):
        for address in addresses:
            if (network := denying(address, node)) and address not in service.cluster_ips:
                message = f"{format_address(address)} is refused: --deny-external-addresses {network}"
                yield Problem(service.origin.source, owner_text(service.name), FIELDS[kind], message)


def _taking(service: Service, exposed: Iterable[Frontend], node: Node) -> Iterator[Problem]:
    """Yield a warning for each address of a Service that something else has, and needs.

    `exposed` are the frontends with external addresses, and ClusterIPs that are addresses of this node. A
    Gateway may have the addresses of this node, because not all have a pool.
    """
    own = dict.fromkeys((*node.addresses, *node.node_port_addresses), "this node")
    others = {**({} if service.type == GATEWAY else own), **dict(node.relied_on)}
    for kind, address in sorted({(frontend.kind, frontend.address) for frontend in exposed}):
        if address in others and address not in service.pool_ips:
            yield taking(service.name, service.origin, kind, address, f"the address of {others[address]}")


def taking(name: NamespacedName, origin: Origin, kind: FrontendKind, address: Address, whose: str) -> Problem:
    """Return the warning that a Service is served on an address that something else has."""
    text = format_address(address)
    message = f"{text} is {whose}: this {owner_text(name).split()[0]} gets the connections to its ports there"
    return Problem(origin.source, owner_text(name), FIELDS[kind], message)


def _external(service: Service) -> Iterator[tuple[FrontendKind, tuple[Address, ...]]]:
    if service.type == GATEWAY:
        yield FrontendKind.GATEWAY, service.load_balancer_ips
    elif service.wants_cluster_ip and not service.proxied_elsewhere:
        yield FrontendKind.EXTERNAL_IP, service.external_ips
        yield FrontendKind.LOAD_BALANCER, service.load_balancer_ips


def _dropping(
    service: Service, frontends: Iterable[Frontend], slices: Iterable[EndpointSlice], node: Node
) -> Iterator[Problem]:
    """Yield a warning for each traffic policy Local because of which `node` drops packets."""
    policies = {
        ("spec.internalTrafficPolicy", "to the ClusterIP")
        if side is frontend.backends
        else ("spec.externalTrafficPolicy", "from outside")
        for frontend in frontends
        for side in (frontend.backends, frontend.from_outside)
        if side is not None and side.elsewhere and not side.endpoints
    }
    for field, which in sorted(policies):
        message = f"no endpoint is on this node, {node.name}: packets {which} are dropped; {places(slices)}"
        yield Problem(service.origin.source, f"Service {service.name}", field, message)


def places(slices: Iterable[EndpointSlice]) -> str:
    """Return the nodes of the serving endpoints, as a clause."""
    nodes = {endpoint.node for slice_ in slices for endpoint in slice_.endpoints if endpoint.serving}
    known = sorted(nodes - {""})
    if not known:
        return "the nodes of its endpoints are unknown (no nodeName)"
    unknown = ", some on unknown nodes (no nodeName)" if "" in nodes else ""
    return f"its endpoints are on {enumeration(known)}{unknown}"


# --- who owns a frontend ---


class FrontendDiff(Struct, frozen=True):
    """The frontends that a Service owns, before and after a change."""

    before: tuple[Frontend, ...]
    after: tuple[Frontend, ...]


def lost_message(frontend: Frontend, owner: NamespacedName) -> str:
    """Return the message of the problem of a Service or a Gateway that lost a frontend to another one."""
    return f"{frontend} belongs to {owner_text(owner)}"


def socket_of(frontend: Frontend) -> Socket:
    """Return the part of a frontend that only one Service can own."""
    return frontend.address, frontend.protocol, frontend.port


class Claims:
    """The claims of all Services, and the owner of each frontend."""

    def __init__(self) -> None:
        self._claims: dict[NamespacedName, FrontendClaim] = {}
        self._claimants: dict[Socket, NamespacedName | set[NamespacedName]] = {}
        """Usually one name; a set if several Services claim the socket."""
        self._contested: set[Socket] = set()
        self._owners: dict[Socket, NamespacedName] = {}
        """The owners of contested sockets that have been asked for since their claims changed."""
        self._allocated: dict[NamespacedName, set[Socket]] = {}
        """The allocated sockets of Services that were compared with others since their claim changed."""
        self._noted: set[NamespacedName] = set()
        """The Services whose claims have warnings or refused addresses."""
        self._external: set[NamespacedName] = set()
        """The Services that claim external or load-balancer addresses."""
        self._cluster_ips: dict[Address, NamespacedName] = {}
        self._services = self._frontends = 0

    @property
    def totals(self) -> tuple[int, int]:
        """The numbers of Services with frontends, and of frontends."""
        return self._services, self._frontends

    def change(
        self, claims: Mapping[NamespacedName, FrontendClaim | None]
    ) -> dict[NamespacedName, FrontendDiff]:
        """Replace the claims of these Services; None removes a claim.

        Returns the Services whose frontends changed, rivals included, in order of their names.
        """
        changed = {name: claim for name, claim in claims.items() if self._claims.get(name) != claim}
        affected = dict.fromkeys(changed)  # in their order, which is usually sorted
        for name, claim in changed.items() if self._claimants else ():
            for version in (claim, self._claims.get(name)):
                for frontend in version.frontends if version else ():
                    if self._claimants.get(socket_of(frontend), name) != name:
                        affected.update(dict.fromkeys(self._claimants_of(socket_of(frontend))))
        before = {name: self.frontends(name) for name in affected}
        for name, claim in changed.items():
            self._replace(name, claim)
        after = {name: self.frontends(name) for name in affected}
        found = {n: FrontendDiff(before[n], after[n]) for n in sorted(affected) if before[n] != after[n]}
        self._count(found.values())
        return found

    def _count(self, changes: Iterable[FrontendDiff]) -> None:
        for change in changes:
            self._services += bool(change.after) - bool(change.before)
            self._frontends += len(change.after) - len(change.before)

    def frontends(self, name: NamespacedName) -> tuple[Frontend, ...]:
        """Return the frontends that a Service owns."""
        claim = self._claims.get(name)
        if claim is None:
            return ()
        if not self._contested:
            return claim.frontends
        lost = {socket for socket in map(socket_of, claim.frontends) if self._owner(socket) != name}
        if not lost:
            return claim.frontends
        return tuple(frontend for frontend in claim.frontends if socket_of(frontend) not in lost)

    def too_large(self, name: NamespacedName) -> bool:
        """Whether a Service has so many frontends and endpoints that they are not claimed."""
        claim = self._claims.get(name)
        return claim is not None and claim.too_large

    def names(self) -> set[NamespacedName]:
        """Return all Services that have a claim, even an empty one."""
        return set(self._claims)

    def all_frontends(self) -> Iterable[Frontend]:
        """Yield every frontend that has an owner, in order of the Services' names."""
        for name in sorted(self._claims):
            yield from self.frontends(name)

    def problems(self) -> list[Problem]:
        """Return one problem for each frontend that a Service lost, sorted by Service, field and address.

        Of each Service there are the first ones, and how many more.
        """
        refused = [problem for name in sorted(self._noted) for problem in self._claims[name].refused]
        lost: dict[NamespacedName, set[Socket]] = {}
        for socket in self._contested:
            for name in self._claimants_of(socket) - {self._owner(socket)}:
                lost.setdefault(name, set()).add(socket)
        return refused + [problem for name in sorted(lost) for problem in self._lost(name, lost[name])]

    def _lost(self, name: NamespacedName, sockets: set[Socket]) -> Iterator[Problem]:
        claim, subject = self._claims[name], owner_text(name)
        found = {socket_of(each): each for each in reversed(claim.frontends) if socket_of(each) in sockets}
        for each in sorted(found.values(), key=lambda each: (FIELDS[each.kind], socket_of(each)))[
            :LOST_FRONTENDS
        ]:
            owner = self._owner(socket_of(each))
            assert owner is not None
            yield Problem(claim.origin.source, subject, FIELDS[each.kind], lost_message(each, owner))
        if (more := len(found) - LOST_FRONTENDS) > 0:
            yield Problem(claim.origin.source, subject, "", f"{more} more addresses belong to other Services")

    def warnings(self) -> list[Problem]:
        """Return the warnings of all claims and those of `_taken`, in order of the Services' names."""
        names = sorted(self._noted | self._external)
        return [warning for name in names for warning in (*self._claims[name].warnings, *self._taken(name))]

    def _taken(self, name: NamespacedName) -> Iterator[Problem]:
        """Yield a warning for each external address that is a ClusterIP, or the API server's.

        Another port of such an address can be claimed although it belongs to another Service.
        """
        if name not in self._external:
            return
        claim, servers = self._claims[name], self._api_servers()
        addresses = {(f.kind, f.address) for f in claim.frontends if f.kind in EXTERNAL}
        for kind, address in sorted(addresses):
            owner = self._cluster_ips.get(address, name)
            if owner != name:
                yield taking(name, claim.origin, kind, address, f"the ClusterIP of Service {owner}")
            elif address in servers and name != API_SERVER:
                yield taking(name, claim.origin, kind, address, "the address of an API server")

    def _api_servers(self) -> set[Address]:
        claim = self._claims.get(API_SERVER)
        return {address for f in claim.frontends for address, _ in f.backends.endpoints} if claim else set()

    def _claimants_of(self, socket: Socket) -> set[NamespacedName]:
        found = self._claimants.get(socket, set())
        return found if isinstance(found, set) else {found}

    def _owner(self, socket: Socket) -> NamespacedName | None:
        found = self._claimants.get(socket)
        if not isinstance(found, set):
            return found
        if socket not in self._owners:
            self._owners[socket] = min(found, key=lambda name: self._rank(name, socket))
        return self._owners[socket]

    def _rank(self, name: NamespacedName, socket: Socket) -> tuple[bool, str, NamespacedName]:
        claim = self._claims[name]
        if name not in self._allocated:
            self._allocated[name] = {socket_of(each) for each in claim.frontends if each.kind in ALLOCATED}
        return socket not in self._allocated[name], claim.origin.created or "~", name

    def _replace(self, name: NamespacedName, claim: FrontendClaim | None) -> None:
        old = self._claims.pop(name, None)
        self._note(name, old, claim)
        if claim is not None:
            self._claims[name] = claim
        before, after = _sockets(old), _sockets(claim)
        self._allocated.pop(name, None)
        for socket in before | after if self._owners else ():
            self._owners.pop(socket, None)
        for socket in before - after:
            self._set_claimants(socket, self._claimants_of(socket) - {name})
        for socket in after - before:
            if self._claimants.setdefault(socket, name) != name:
                self._set_claimants(socket, self._claimants_of(socket) | {name})

    def _note(self, name: NamespacedName, old: FrontendClaim | None, new: FrontendClaim | None) -> None:
        if old is not None:
            self._noted.discard(name)
            self._external.discard(name)
            for address in _cluster_ips(old):
                if self._cluster_ips.get(address) == name:
                    del self._cluster_ips[address]
        if new is not None:
            self._cluster_ips.update((address, name) for address in _cluster_ips(new))
            if new.warnings or new.refused:
                self._noted.add(name)
            if any(frontend.kind in EXTERNAL for frontend in new.frontends):
                self._external.add(name)

    def _set_claimants(self, socket: Socket, names: set[NamespacedName]) -> None:
        self._contested.discard(socket)
        if len(names) > 1:
            self._claimants[socket] = names
            self._contested.add(socket)
        elif names:
            (self._claimants[socket],) = names
        else:
            del self._claimants[socket]


def _sockets(claim: FrontendClaim | None) -> set[Socket]:
    return set(map(socket_of, claim.frontends)) if claim else set()


def _cluster_ips(claim: FrontendClaim) -> set[Address]:
    return {f.address for f in claim.frontends if f.kind is FrontendKind.CLUSTER_IP}


class Resolved(Struct, frozen=True):
    """The frontends of all Services."""

    frontends: list[Frontend]
    """In order of the Services' names."""
    problems: list[Problem]
    """One for each Service and field that lost a frontend to another Service."""
    warnings: list[Problem]
    """One for each Service and traffic policy that drops packets on this node."""


def all_frontends(
    services: Iterable[Service], slices: Mapping[NamespacedName, tuple[EndpointSlice, ...]], node: Node
) -> Resolved:
    """Return the frontends of all Services. claims.py decides between Services that claim the same one."""
    claims = Claims()
    claims.change({s.name: claim(s, slices.get(s.name, ()), node) for s in services})
    return Resolved(list(claims.all_frontends()), claims.problems(), claims.warnings())

"""Which service is shown where, as services come, change and go.

ClusterIPs and node ports belong to one service: they are allocated. External and load-balancer
addresses are whatever manifests say, so several services may want to be shown on one address and
port. There it is that of who has it allocated, else of the oldest service (creationTimestamp), else
of the one whose name is first; the others are shown everywhere else, and this is a problem of theirs.

An answer depends on what is claimed now alone, not on what came first. A change costs as much as
the services that claim the same addresses have frontends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from kproxy.model import Address, Frontend, FrontendKind, NamespacedName, Origin, Protocol
from kproxy.problems import Problem

ALLOCATED = (FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT)
FIELDS = {
    FrontendKind.CLUSTER_IP: "spec.clusterIP",
    FrontendKind.NODE_PORT: "spec.ports",
    FrontendKind.EXTERNAL_IP: "spec.externalIPs",
    FrontendKind.LOAD_BALANCER: "status.loadBalancer.ingress",
}
"""Which field of a service shows it there."""

Socket: TypeAlias = tuple[Address, Protocol, int]


class FrontendClaim(NamedTuple):
    """Where a service wants to be shown."""

    origin: Origin
    frontends: tuple[Frontend, ...]


class FrontendDiff(NamedTuple):
    """What a change did to the frontends of one service, those aside that it claims in vain."""

    before: tuple[Frontend, ...]
    after: tuple[Frontend, ...]


def socket_of(frontend: Frontend) -> Socket:
    """What only one service can have."""
    return frontend.address, frontend.protocol, frontend.port


class Claims:
    """All claims, and who gets what."""

    def __init__(self) -> None:
        self._claims: dict[NamespacedName, FrontendClaim] = {}
        self._claimants: dict[Socket, NamespacedName | set[NamespacedName]] = {}
        """One name, mostly; a set of them where there are several."""
        self._contested: set[Socket] = set()

    def change(
        self, wanted: Mapping[NamespacedName, FrontendClaim | None]
    ) -> dict[NamespacedName, FrontendDiff]:
        """Replace these services' claims (None: it goes); what that does to them and to their rivals."""
        changed = {name: claim for name, claim in wanted.items() if self._claims.get(name) != claim}
        concerned = set(changed)
        for name, claim in changed.items():
            for some in (claim, self._claims.get(name)):
                for frontend in some.frontends if some else ():
                    if self._claimants.get(socket_of(frontend), name) != name:
                        concerned.update(self._claiming(socket_of(frontend)))
        before = {name: self.shown(name) for name in concerned}
        for name, claim in changed.items():
            self._replace(name, claim)
        after = {name: self.shown(name) for name in concerned}
        return {n: FrontendDiff(before[n], after[n]) for n in sorted(concerned) if before[n] != after[n]}

    def shown(self, name: NamespacedName) -> tuple[Frontend, ...]:
        """The frontends that a service has."""
        claim = self._claims.get(name)
        if claim is None:
            return ()
        if not self._contested:
            return claim.frontends
        lost = {socket for socket in map(socket_of, claim.frontends) if self._owner(socket) != name}
        if not lost:
            return claim.frontends
        return tuple(frontend for frontend in claim.frontends if socket_of(frontend) not in lost)

    def names(self) -> set[NamespacedName]:
        """All services that claim something, or that there are at all."""
        return set(self._claims)

    def everything(self) -> Iterable[Frontend]:
        """All frontends that are shown, in order of the services' names."""
        for name in sorted(self._claims):
            yield from self.shown(name)

    def problems(self) -> list[Problem]:
        """Who is not shown where it wants to be: one for each service and field, in order."""
        found: dict[tuple[NamespacedName, str], Problem] = {}
        for socket in sorted(self._contested):
            owner = self._owner(socket)
            for name in self._claiming(socket) - {owner}:
                claim = self._claims[name]
                lost = next(frontend for frontend in claim.frontends if socket_of(frontend) == socket)
                field = FIELDS[lost.kind]
                message = f"{lost} belongs to Service {owner}"
                problem = Problem(claim.origin.source, f"Service {name}", field, message)
                found.setdefault((name, field), problem)
        return [found[key] for key in sorted(found)]

    def _claiming(self, socket: Socket) -> set[NamespacedName]:
        found = self._claimants.get(socket, set())
        return found if isinstance(found, set) else {found}

    def _owner(self, socket: Socket) -> NamespacedName | None:
        found = self._claimants.get(socket)
        if not isinstance(found, set):
            return found
        return min(found, key=lambda name: self._rank(name, socket))

    def _rank(self, name: NamespacedName, socket: Socket) -> tuple[bool, str, NamespacedName]:
        claim = self._claims[name]
        allocated = any(f.kind in ALLOCATED and socket_of(f) == socket for f in claim.frontends)
        return not allocated, claim.origin.created or "~", name

    def _replace(self, name: NamespacedName, claim: FrontendClaim | None) -> None:
        old = self._claims.pop(name, None)
        if claim is not None:
            self._claims[name] = claim
        before = {socket_of(frontend) for frontend in old.frontends} if old else set()
        after = {socket_of(frontend) for frontend in claim.frontends} if claim else set()
        for socket in before - after:
            self._set_claimants(socket, self._claiming(socket) - {name})
        for socket in after - before:
            self._set_claimants(socket, self._claiming(socket) | {name})

    def _set_claimants(self, socket: Socket, names: set[NamespacedName]) -> None:
        self._contested.discard(socket)
        if len(names) > 1:
            self._claimants[socket] = names
            self._contested.add(socket)
        elif names:
            (self._claimants[socket],) = names
        else:
            del self._claimants[socket]

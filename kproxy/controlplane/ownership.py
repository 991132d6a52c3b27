"""Which of several nodes announces an address. Each node computes it alone.

The nodes have the same pool and the same manifests, but no common disk, clock or leader. So the
owner is a function of the address and the names of the nodes: rendezvous hashing. Each name has a
score for the address, and the highest score wins. If a node is added or removed, only the addresses
move that it gets or had. The disadvantage: no node checks whether another one is alive
(docs/decisions.md discusses it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct

from kproxy.digest import blake2b
from kproxy.model import Address, EndpointSlice, NamespacedName, Protects, Service


def owner(address: Address, nodes: Iterable[str]) -> str:
    """Return the node that announces an address. The order of `nodes` does not matter; it is not empty."""
    return max(nodes, key=lambda node: (_score(address, node), node))


def _score(address: Address, node: str) -> bytes:
    return blake2b(address, key=blake2b(node.encode()).digest(), digest_size=8).digest()


def eligible_nodes(service: Service, slices: Iterable[EndpointSlice], nodes: Collection[str]) -> set[str]:
    """Return those of `nodes` that may announce the addresses of a Service.

    With externalTrafficPolicy Local these are the nodes with an endpoint, if there are any. Otherwise all
    nodes. Readiness does not count: it changes often, and the nodes learn of it at different times.
    """
    if not service.external_local:
        return set(nodes)
    placed = {endpoint.node for slice_ in slices for endpoint in slice_.endpoints}
    return placed.intersection(nodes) or set(nodes)


class Announced(Struct, frozen=True):
    """The addresses that kproxy adds to this node."""

    own: frozenset[Address]
    """Addresses to add to the uplink and to announce."""
    undecided: frozenset[Address]
    """Addresses to leave unchanged, because part of the input for the decision could not be read."""
    loopback: frozenset[Address] = frozenset()
    """Addresses for the interface `lo`, which are not announced: those of the name server."""

    @property
    def protected(self) -> frozenset[Address]:
        """The addresses that must not be removed from this host."""
        return self.own | self.undecided | self.loopback


def announced(
    pool_addresses: Mapping[Address, NamespacedName],
    service_of: Callable[[NamespacedName], Service | None],
    slices_of: Callable[[NamespacedName], Iterable[EndpointSlice]],
    protected: Protects,
    nodes: Collection[str],
    node: str,
) -> Announced:
    """Return which of the allocated `pool_addresses` (address -> Service) `node` announces.

    No node announces the addresses of a Service that another proxy serves: kproxy does not serve it.
    """
    own, undecided = set(), set()
    for address, name in pool_addresses.items():
        service = service_of(name)
        if protected(name) and (service is None or service.external_local):
            undecided.add(address)
        elif service is None or service.proxied_elsewhere:
            continue
        elif owner(address, eligible_nodes(service, slices_of(name), nodes)) == node:
            own.add(address)
    return Announced(frozenset(own), frozenset(undecided))

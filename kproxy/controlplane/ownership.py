"""Which of several nodes announces an address, worked out by each of them alone.

The nodes share a pool and read the same manifests, but not a disk, a clock or a leader. So
the owner is a function of the address and of the nodes' names: rendezvous hashing, where each
name has a score for the address and the highest wins. A node more or less moves only the
addresses that it gets or had. That no node looks whether another is alive is the price:
docs/decisions.md weighs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from kproxy.model import Address, EndpointSlice, NamespacedName, Protects, Service


def owner(address: Address, nodes: Iterable[str]) -> str:
    """The node that announces an address: the same one whatever the order of `nodes`, which is not empty."""
    return max(nodes, key=lambda node: (_score(address, node), node))


def _score(address: Address, node: str) -> bytes:
    return blake2b(address, key=blake2b(node.encode()).digest(), digest_size=8).digest()


def candidates(service: Service, slices: Iterable[EndpointSlice], nodes: Collection[str]) -> set[str]:
    """Those of `nodes` that may announce a service's addresses.

    All of them; with externalTrafficPolicy Local those that have an endpoint of it, if any has.
    Whether it is ready does not count: it changes often, and nodes hear of it at different times.
    """
    if not service.external_local:
        return set(nodes)
    placed = {endpoint.node for slice_ in slices for endpoint in slice_.endpoints}
    return placed.intersection(nodes) or set(nodes)


class Announced(NamedTuple):
    """Which addresses of the pool this node is to have on its uplink."""

    own: frozenset[Address]
    """To be put there, and announced."""
    unsure: frozenset[Address]
    """To be left as they are, since part of what decides it could not be read."""

    @property
    def protected(self) -> frozenset[Address]:
        """Those that are not to be taken back."""
        return self.own | self.unsure


def announced(
    given: Mapping[Address, NamespacedName],
    service_of: Callable[[NamespacedName], Service | None],
    slices_of: Callable[[NamespacedName], Iterable[EndpointSlice]],
    protected: Protects,
    nodes: Collection[str],
    node: str,
) -> Announced:
    """What of the addresses that were `given` from the pool, and to which service, is for `node` to announce.

    A service that another proxy serves is announced by nobody: here nothing would answer for it.
    `protected` says of which services part of the input is missing.
    """
    own, unsure = set(), set()
    for address, name in given.items():
        service = service_of(name)
        if protected(name) and (service is None or service.external_local):
            unsure.add(address)
        elif service is None or service.proxied_elsewhere:
            continue
        elif owner(address, candidates(service, slices_of(name), nodes)) == node:
            own.add(address)
    return Announced(frozenset(own), frozenset(unsure))

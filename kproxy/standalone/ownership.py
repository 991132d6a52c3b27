"""Which of several nodes announces an address, worked out by each of them alone.

The nodes share a pool and read the same manifests, but not a disk, a clock or a leader. So
the owner is a function of the address and of the nodes' names: rendezvous hashing, where each
name has a score for the address and the highest wins. A node more or less moves only the
addresses that it gets or had. That no node looks whether another is alive is the price:
docs/decisions.md weighs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import blake2b

from kproxy.model import Address, EndpointSlice, Service


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

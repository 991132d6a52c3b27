"""The ranges of ServiceCIDRs, without the addresses of Services that another proxy serves.

Packets to the other addresses of the ranges that no Service has are dropped, before another proxy could
translate them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range

from kproxy.model import Address, Network
from kproxy.resolve.frontends import merged


def without(networks: Iterable[Network], addresses: Iterable[Address]) -> tuple[Network, ...]:
    """Return disjoint networks that contain the addresses of `networks`, except for `addresses`."""
    taken = sorted(set(addresses))
    return tuple(part for network in merged(networks) for part in _split(network, taken))


def _split(network: Network, taken: Sequence[Address]) -> Iterator[Network]:
    first, last = int(network.network_address), int(network.broadcast_address)
    holes = (int.from_bytes(address) for address in taken if ip_address(address) in network)
    for hole in (*holes, last + 1):
        if first < hole:
            yield from _range(network.version, first, hole - 1)
        first = hole + 1


def _range(version: int, first: int, last: int) -> Iterator[Network]:
    if version == 4:
        return summarize_address_range(IPv4Address(first), IPv4Address(last))
    return summarize_address_range(IPv6Address(first), IPv6Address(last))

"""Where addresses and ports that are given out come from.

A `Span` is the numbers of one sort, with the flag that names them. Pure arithmetic; who
has what is in ledger.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple

from kproxy.model import Family, Network, Protocol, network_family, parse_ip

NOT_UNICAST = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
    )
)
"""What no address of a pool can be in: `this network`, loopback, link-local, multicast, reserved."""


class AddressRange(NamedTuple):
    """Addresses of one family, first and last included."""

    family: Family
    first: int
    last: int

    def __str__(self) -> str:
        kind = IPv4Address if self.family is Family.IPV4 else IPv6Address
        return f"{kind(self.first)}-{kind(self.last)}"

    def meets(self, network: Network) -> bool:
        """Whether a network has any of these addresses."""
        low, high = int(network.network_address), int(network.broadcast_address)
        return network_family(network) is self.family and self.first <= high and low <= self.last


class Pool(NamedTuple):
    """Load-balancer addresses: ranges of which no two have an address in common."""

    ranges: tuple[AddressRange, ...]
    text: str
    """As it was given."""


class Ranges(NamedTuple):
    """Where allocations come from."""

    service_cidrs: tuple[Network, ...]
    """One or two, of different families; the first is the primary one."""
    node_ports: tuple[int, int]
    """First and last, both included."""
    pool: Pool = Pool((), "")


class Span(NamedTuple):
    """Numbers that are given out: in ascending intervals, the first `static` of them last."""

    intervals: tuple[tuple[int, int], ...]
    static: int
    flag: str
    """The flag that says so, with its value."""

    @property
    def size(self) -> int:
        """How many there are."""
        return sum(last - first + 1 for first, last in self.intervals)

    def has(self, value: int) -> bool:
        """Whether a number is one of them."""
        return any(first <= value <= last for first, last in self.intervals)

    def places(self, name: str) -> Iterator[int]:
        """Every number once: first those above the static band, starting where `name` hashes to."""
        start = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
        total = self.size
        for low, size in ((self.static, total - self.static), (0, self.static)):
            for step in range(size):
                yield self._number(low + (start + step) % size)

    def _number(self, index: int) -> int:
        for first, last in self.intervals:
            if index <= last - first:
                return first + index
            index -= last - first + 1
        raise IndexError(index)


LOAD_BALANCER = "loadBalancer/"
"""Before a family's name: the span of load-balancer addresses."""


def spans(ranges: Ranges) -> dict[str, Span]:
    """By name: a family for ClusterIPs, a protocol for node ports, `loadBalancer/ip` and `.../ip6`.

    The families of ClusterIPs come first, the primary one before the other.
    """
    found = {str(network_family(network)): _service_span(network) for network in ranges.service_cidrs}
    low, high = ranges.node_ports
    size = high - low + 1
    static = 0 if size <= 16 else min(max(16, size // 32), 128)
    ports = Span(((low, high),), static, f"--service-node-port-range {low}-{high}")
    found |= {str(protocol): ports for protocol in Protocol}
    for family in Family:
        intervals = tuple((r.first, r.last) for r in ranges.pool.ranges if r.family is family)
        if intervals:
            found[LOAD_BALANCER + family] = Span(intervals, 0, f"--load-balancer-pool {ranges.pool.text}")
    return found


def _service_span(network: Network) -> Span:
    low, high = int(network.network_address) + 1, int(network.broadcast_address) - (network.version == 4)
    size = max(high - low + 1, 1)
    static = 0 if size <= 16 else min(max(16, size // 16), 256)
    return Span(((low, high),) if low <= high else (), static, f"--service-cidr {network}")


def parse_pool(text: str) -> Pool:
    """`RANGE[,RANGE...]`: each a CIDR, FIRST-LAST, or one address; ValueError if it is not that.

    Ranges that overlap or touch become one. Of a CIDR its hosts count: not the network's and the
    broadcast address of IPv4, nor the subnet-router address of IPv6, where it is longer than two.
    """
    return Pool(tuple(_merged(map(_range, text.split(",")))), text)


def _range(text: str) -> AddressRange:
    first, dash, last = text.strip().partition("-")
    if dash:
        low, high = parse_ip(first.strip()), parse_ip(last.strip())
        family = Family.IPV4 if low.version == 4 else Family.IPV6
        if low.version != high.version or int(low) > int(high):
            raise ValueError(f"{text.strip()!r} is not FIRST-LAST: two addresses of one family, in order")
        found = AddressRange(family, int(low), int(high))
    else:
        network = ip_network(first)
        edges = network.num_addresses > 2
        low_edge = int(network.network_address) + edges
        high_edge = int(network.broadcast_address) - (edges and network.version == 4)
        found = AddressRange(network_family(network), low_edge, high_edge)
    for network in NOT_UNICAST:
        if found.meets(network):
            raise ValueError(f"{text.strip()!r} will not do: it has addresses of {network}")
    return found


def _merged(ranges: Iterable[AddressRange]) -> Iterator[AddressRange]:
    waiting: AddressRange | None = None
    for one in sorted(ranges):
        if waiting and one.family is waiting.family and one.first <= waiting.last + 1:
            waiting = waiting._replace(last=max(waiting.last, one.last))
            continue
        if waiting:
            yield waiting
        waiting = one
    if waiting:
        yield waiting

"""The ranges from which addresses and ports are allocated.

A `Span` contains the numbers of one kind, and the flag that sets them. ledger.py knows
which of them are allocated. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from kproxy.digest import blake2b
from kproxy.model import Family, Network, Protocol, network_family, parse_ip

NOT_UNICAST = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
    )
)
"""A pool must not contain these: `this network`, loopback, link-local, multicast, reserved addresses."""


class AddressRange(NamedTuple):
    """Addresses of one family, from `first` to `last` inclusive."""

    family: Family
    first: int
    last: int

    def __str__(self) -> str:
        kind = IPv4Address if self.family is Family.IPV4 else IPv6Address
        return f"{kind(self.first)}-{kind(self.last)}"

    def overlaps(self, network: Network) -> bool:
        """Whether a network contains any of these addresses."""
        low, high = int(network.network_address), int(network.broadcast_address)
        return network_family(network) is self.family and self.first <= high and low <= self.last


class Pool(Struct, frozen=True):
    """Load-balancer addresses, as disjoint ranges."""

    ranges: tuple[AddressRange, ...]
    text: str
    """The value of the flag."""


class Ranges(Struct, frozen=True):
    """The configured ranges."""

    service_cidrs: tuple[Network, ...]
    """One or two, of different families; the first is the primary one."""
    node_ports: tuple[int, int]
    """First and last, both inclusive."""
    pool: Pool = Pool((), "")
    restricts_addresses: bool = True
    """Whether a Service may request only ClusterIPs in `service_cidrs`."""
    restricts_ports: bool = True
    """Whether a Service may request only node ports in `node_ports`."""


class Span(Struct, frozen=True):
    """Numbers that can be allocated: ascending intervals, whose first `static` numbers are used last."""

    intervals: tuple[tuple[int, int], ...]
    static: int
    flag: str
    """The flag with its value, for messages."""
    restricts: bool = True
    """Whether a Service may request only these numbers."""

    @property
    def size(self) -> int:
        """The amount of numbers."""
        return sum(last - first + 1 for first, last in self.intervals)

    def has(self, value: int) -> bool:
        """Whether it contains a number."""
        return any(first <= value <= last for first, last in self.intervals)

    def values_from(self, name: str) -> Iterator[int]:
        """Yield every number once: those above the static band from the hash of `name` on, then the band."""
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
"""The prefix of a family in the name of a span of load-balancer addresses."""


def spans(ranges: Ranges) -> dict[str, Span]:
    """Return the spans by name: FAMILY (ClusterIPs), PROTOCOL (node ports), loadBalancer/FAMILY.

    The spans of ClusterIPs come first, the primary family before the other.
    """
    found = {
        str(network_family(network)): replace(_service_span(network), restricts=ranges.restricts_addresses)
        for network in ranges.service_cidrs
    }
    low, high = ranges.node_ports
    size = high - low + 1
    static = 0 if size <= 16 else min(max(16, size // 32), 128)
    flag = f"--service-node-port-range {low}-{high}"
    ports = Span(((low, high),), static, flag, ranges.restricts_ports)
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
    """Parse `RANGE[,RANGE...]`; each RANGE is a CIDR, FIRST-LAST or one address. Raises ValueError.

    Ranges that overlap or touch are merged. Of a CIDR with more than two addresses only the hosts count:
    not the network and broadcast addresses of IPv4, nor the subnet-router address of IPv6.
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
        if found.overlaps(network):
            raise ValueError(f"{text.strip()!r} is not allowed: it contains addresses of {network}")
    return found


def _merged(ranges: Iterable[AddressRange]) -> Iterator[AddressRange]:
    current: AddressRange | None = None
    for following in sorted(ranges):
        if current and following.family is current.family and following.first <= current.last + 1:
            current = current._replace(last=max(current.last, following.last))
            continue
        if current:
            yield current
        current = following
    if current:
        yield current

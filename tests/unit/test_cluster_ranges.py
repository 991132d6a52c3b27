"""Ranges of ClusterIPs without the addresses of Services that another proxy serves."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, ip_network

from kproxy.model import parse_address
from kproxy.sources.cluster.core.ranges import without
from tests.cases import cases


@cases(
    """
    networks                             addresses          expected
    -                                    10.0.0.1           -
    10.0.0.0/24                          -                  10.0.0.0/24
    10.0.0.0/24                          10.0.1.1 fd00::1   10.0.0.0/24
    10.0.0.0/24 10.0.0.0/25 10.0.1.0/24  -                  10.0.0.0/23
    10.0.0.0/30                          10.0.0.0           10.0.0.1/32 10.0.0.2/31
    10.0.0.0/30                          10.0.0.3           10.0.0.0/31 10.0.0.2/32
    10.0.0.0/30                          10.0.0.1 10.0.0.2  10.0.0.0/32 10.0.0.3/32
    10.0.0.0/31                          10.0.0.1 10.0.0.0  -
    fd00::/127 10.0.0.0/30               fd00::1 10.0.0.1   10.0.0.0/32 10.0.0.2/31 fd00::/128
    """
)
def test_without(networks: str, addresses: str, expected: str) -> None:
    found = without(map(ip_network, networks.split()), map(parse_address, addresses.split()))
    assert " ".join(map(str, found)) == expected


def test_many_addresses() -> None:
    network = IPv4Network("10.96.0.0/16")
    taken = random.Random(1).sample(list(network), 2000)
    found = without([network], [address.packed for address in taken])
    assert sum(each.num_addresses for each in found) == network.num_addresses - 2000
    assert not any(address in each for address in taken[:20] for each in found)

"""Connections are distributed evenly: a chi-square test that also detects a small skew."""

from __future__ import annotations

from collections import Counter

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import many
from netns_lab.topology import Family

from tests.support import FAMILIES, SERVICE_IP, Kproxy, service, slices

pytestmark = pytest.mark.lab

CONNECTIONS, CONNECTIONS_WITH_SKEW = 3000, 6000
LIMIT = 27.63
"""Chi-square with two degrees of freedom exceeds this by chance once in a million tests.

With a skew of four to three, and the larger number of connections, it is about 120. It is below this limit
less often than once in a million tests.
"""


def chi_square(seen: Counter[str], connections: int) -> float:
    expected = connections / 3
    assert sum(seen.values()) == connections
    return sum((seen[f"pod-{n}"] - expected) ** 2 / expected for n in (1, 2, 3))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_endpoints_get_equal_shares(lab: Lab, kproxy: Kproxy, family: Family) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2", "pod-3"]))
    seen = many(lab.client("outside"), SERVICE_IP[family], 80, CONNECTIONS)
    assert chi_square(seen, CONNECTIONS) < LIMIT, seen


def test_a_skew_of_four_to_three_is_detected(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2", "pod-3"]))
    pods = [lab.pod(f"pod-{n}").address(4) for n in (1, 1, 1, 1, 2, 2, 2, 3, 3, 3)]
    slots = ", ".join(f"{SERVICE_IP[4]} . 80 . {n} : {pod} . 8080" for n, pod in enumerate(pods))
    kproxy.nft(f"""
        flush map ip kproxy endpoints-tcp
        add element ip kproxy endpoints-tcp {{ {slots} }}
        add chain ip kproxy lb-10
        add rule ip kproxy lb-10 dnat ip to ip daddr . tcp dport . numgen random mod 10 map @endpoints-tcp
        delete element ip kproxy services {{ {SERVICE_IP[4]} . tcp . 80 }}
        add element ip kproxy services {{ {SERVICE_IP[4]} . tcp . 80 : goto lb-10 }}
    """)
    seen = many(lab.client("outside"), SERVICE_IP[4], 80, CONNECTIONS_WITH_SKEW)
    assert chi_square(seen, CONNECTIONS_WITH_SKEW) > LIMIT, seen


def test_the_kernels_counters_agree(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2", "pod-3"]))
    seen = many(lab.client("outside"), SERVICE_IP[4], 80, 200)
    listed = kproxy.nft("list map ip kproxy endpoints-tcp")
    for name, count in seen.items():
        assert f"counter packets {count} bytes" in listed, name

"""Depends on the version of nft: a rule that older versions cannot load."""

from __future__ import annotations

import re
import subprocess

import pytest
from netns_lab.lab import Lab

from kproxy.kernel import libnftables
from kproxy.kernel.netlink.core.batch import rule_message
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.structure import load_skeleton
from kproxy.model import Balance, Family, Protocol
from kproxy.nft.render import render_table
from kproxy.nft.ruleset import MapUpdate
from kproxy.table.layout import EndpointScope, SlotChain
from kproxy.table.skeleton import NumberedChains, Options, skeleton
from tests.support import FAMILIES, Kproxy, service, slices, sticky

pytestmark = pytest.mark.lab

SLOT_CHAINS = frozenset(SlotChain(scope, balance, 2) for scope in EndpointScope for balance in Balance)
CHAINS = NumberedChains(SLOT_CHAINS, frozenset({10, 10800}))
UPDATES = len(CHAINS.timeouts) * len(Protocol)


def nft_version() -> tuple[int, ...]:
    text = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", text)
    assert found, text
    return tuple(map(int, found.groups()))


needs_ipv6_update = pytest.mark.skipif(
    nft_version() < (1, 1, 3), reason="nft before 1.1.3 aborts on an update of a map wider than 16 bytes"
)


@pytest.mark.parametrize("family", [Family.IPV4, pytest.param(Family.IPV6, marks=needs_ipv6_update)])
def test_kproxys_encoding_of_the_rule_equals_libnftables(lab: Lab, family: Family) -> None:
    wanted = skeleton(family, Options(), CHAINS)
    updates = [(c.name, rule) for c in wanted.chains for rule in c.rules if isinstance(rule, MapUpdate)]
    assert len(updates) == UPDATES

    def listed(by_netlink: bool) -> str:
        libnftables.run(f"flush ruleset\n{render_table(wanted, {})}")
        if by_netlink:
            for name in {name for name, _ in updates}:
                libnftables.run(f"flush chain {family} kproxy {name}")
            with Netlink() as netlink:
                netlink.commit([rule_message(*update) for update in updates])
        return libnftables.run("list ruleset")

    node = lab.node("n1")
    assert node.inside(lambda: listed(by_netlink=True)) == node.inside(lambda: listed(by_netlink=False))


@needs_ipv6_update
def test_the_listing_of_ipv6_affinity_loads_again(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service("web", **sticky()), *slices(lab, ["pod-1", "pod-2"]))
    saved = kproxy.nft("list ruleset")
    empty = lab.client("outside")
    empty.run(["nft", "-f", "-"], input=saved, check=True)
    assert empty.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout == saved


def test_a_skeleton_loads_with_every_supported_nft(lab: Lab) -> None:
    def load() -> None:
        with Netlink() as netlink:
            for family in Family:
                load_skeleton(netlink, skeleton(family, Options(), CHAINS))

    lab.node("n1").inside(load)
    listed = lab.node("n1").run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout
    assert listed.count("update @affinity-") == UPDATES * len(FAMILIES)

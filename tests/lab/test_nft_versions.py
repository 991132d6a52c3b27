"""kproxy packs its rules itself. nft lists them as the same rules that it has loaded from text."""

from __future__ import annotations

import os
import re
import subprocess
from ipaddress import ip_network
from itertools import product

import pytest
from netns_lab.lab import Lab
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.core.structure import whole_table
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Balance, Family, Protocol, parse_address
from kproxy.nft.render import render_table
from kproxy.nft.ruleset import Skeleton
from kproxy.table.layout import EndpointScope, SlotChain
from kproxy.table.skeleton import NumberedChains, Options, skeleton
from tests.support import Kproxy, service, slices, sticky

pytestmark = pytest.mark.lab

SLOT_CHAINS = frozenset(SlotChain(*each) for each in product(EndpointScope, Balance, (1, 2, 1021)))
PODS = (ip_network("10.244.0.0/16"), ip_network("fd00:244::/48"))
SERVICES = (ip_network("10.96.0.0/12"), ip_network("fd00:96::/112"))
OPTIONS = {
    "networks": Options(PODS, SERVICES),
    "networks that overlap": Options((ip_network("10.1.0.0/16"), ip_network("10.0.0.0/8"))),
    "nothing is known": Options(),
    "everything is masqueraded": Options(PODS, masquerade_all=True),
    "the last address, and the first": Options(
        tuple(map(ip_network, ("255.0.0.0/8", "0.0.0.0/8", "ff00::/8", "::/8")))
    ),
    "a name server": Options(name_servers=(parse_address("10.96.0.10"), parse_address("fd00:96::a"))),
    "a name server of one family": Options(name_servers=(parse_address("10.96.0.10"),)),
    "no counters of endpoints": Options(max_endpoint_counters=0),
    "an interface": Options(pod_interface="cni0"),
    "a pattern of interfaces": Options(pod_interface="veth*", stateless_ipv6_affinity=True),
}


def nft_version() -> tuple[int, ...]:
    text = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", text)
    assert found, text
    return tuple(map(int, found.groups()))


aborts_on_ipv6_updates = nft_version() < (1, 1, 3)
"""nft before 1.1.3 aborts on an update of a map wider than 16 bytes."""
needs_ipv6_update = pytest.mark.skipif(
    aborts_on_ipv6_updates, reason="this nft aborts on updates of IPv6 maps"
)


def output(*command: str, script: str = "") -> str:
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(table: Skeleton) -> None:
    with Netlink() as netlink:
        netlink.commit(whole_table(table))


def listed(*flags: str) -> str:
    """Return what nft lists.

    While the kernel moves the elements of a new set to a larger hash table, a listing may repeat some. So it
    lists until two listings are equal.
    """
    found = ""
    while (again := output("nft", *flags, "list", "ruleset")) != found:
        found = again
    return found


def listed_after_netlink(table: Skeleton, *flags: str) -> str:
    load(table)
    return listed(*flags)


def listed_after_text(text: str) -> str:
    output("nft", "-f", "-", script=text)
    return listed()


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_nft_lists_our_messages_as_its_own(family: Family, options: Options) -> None:
    """What it lists also loads again. Without the rule that updates maps, where nft cannot load it."""
    counted = options.max_endpoint_counters != 0
    timeouts = frozenset() if aborts_on_ipv6_updates and family is Family.IPV6 else frozenset({10, 10800})
    table = skeleton(family, options, NumberedChains(SLOT_CHAINS, timeouts), counted)
    listing = in_fresh_namespace(lambda: listed_after_netlink(table))
    assert in_fresh_namespace(lambda: listed_after_text(render_table(table, {}))) == listing
    assert in_fresh_namespace(lambda: listed_after_text(listing)) == listing


OTHER = os.environ.get("KPROXY_TEST_OTHER_NFT", "")
"""The command of another version of nft: `chroot FOLDER nft`."""


@pytest.mark.skipif(not OTHER, reason="KPROXY_TEST_OTHER_NFT does not name another version of nft")
@pytest.mark.parametrize("family", Family)
def test_another_version_of_nft_lists_the_table(family: Family) -> None:
    """The versions differ in a few names, for example of priorities."""
    table = skeleton(family, OPTIONS["networks"], NumberedChains(SLOT_CHAINS, frozenset({10})))

    def listings() -> list[str]:
        load(table)
        return [output(*command, "list", "ruleset") for command in (["nft"], OTHER.split())]

    ours, others = in_fresh_namespace(listings)
    assert len(others.splitlines()) == len(ours.splitlines())
    assert [d for d in table.sets for statement in d.spec(family) if statement not in others] == []
    lookups = [str(rule) for chain in table.chains for rule in chain.rules if "vmap @" in str(rule)]
    assert [rule for rule in lookups if rule not in others] == []


@needs_ipv6_update
def test_the_listing_of_ipv6_affinity_loads_again(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service("web", **sticky()), *slices(lab, ["pod-1", "pod-2"]))
    saved = kproxy.nft("list ruleset")
    empty = lab.client("outside")
    empty.run(["nft", "-f", "-"], input=saved, check=True)
    assert empty.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout == saved


@pytest.mark.parametrize("family", Family)
def test_every_supported_nft_lists_updates_of_maps(family: Family) -> None:
    table = skeleton(family, Options(), NumberedChains(SLOT_CHAINS, frozenset({10, 10800})))
    # Without /etc/protocols (Debian: netbase), nft lists protocols as numbers in any case.
    listing = in_fresh_namespace(lambda: listed_after_netlink(table, "--numeric-protocol"))
    updates = [str(rule) for chain in table.chains for rule in chain.rules if " update @" in str(rule)]
    assert len(updates) == 6
    for protocol in Protocol:
        text = f"meta l4proto {protocol} ", f"meta l4proto {protocol.number} "
        updates = [rule.replace(*text) for rule in updates]
    assert [rule for rule in updates if rule.replace("10800s", "3h") not in listing] == []

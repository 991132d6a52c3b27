"""Checks of what other programs do to the packets of Services: firewalls, other proxies, bridges."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.objects import Objects
from kproxy.model import Frontend, FrontendKind, owner_text
from kproxy.nft.foreign import Foreign, ForeignTranslation
from kproxy.problems import enumeration

KUBE_PROXY_CHAIN, KUBE_PROXY_TABLE = "KUBE-SERVICES", "kube-proxy"
"""The chain that kube-proxy makes in mode iptables, and its table in mode nftables."""
DSTNAT = -100
"""The priority at which kproxy translates. Of two translations of one packet, the first one counts."""


def forward_drops(foreign: Foreign) -> Iterator[Sighting]:
    """A firewall drops forwarded packets unless one of its rules accepts them."""
    for chain in foreign.chains:
        if chain.hook == "forward" and chain.drops:
            what = "a firewall drops forwarded packets that none of its rules accepts"
            evidence = f"chain {chain}: policy drop, {chain.rules} rules"
            yield Sighting(NODE, what, (evidence,), sure=chain.rules == 0)


def another_proxy(foreign: Foreign) -> Iterator[Sighting]:
    """Rules of kube-proxy are still there."""
    chains = [
        str(each)
        for each in foreign.chains
        if each.rules and (each.name == KUBE_PROXY_CHAIN or each.table == KUBE_PROXY_TABLE)
    ]
    if chains:
        what = "rules of kube-proxy translate packets to Services, too"
        yield Sighting(NODE, what, (f"chains with rules: {enumeration(chains)}",))


def other_translations(objects: Objects, foreign: Foreign) -> Iterator[Sighting]:
    """A rule of another program takes the packets to a Service."""
    for each in foreign.translations:
        if each.first > DSTNAT or each.chain.table == KUBE_PROXY_TABLE or each.chain.name.startswith("KUBE-"):
            continue
        taken = next((f for f in objects.snapshot.frontends if _takes(each, f)), None)
        if taken is not None and objects.concerns(taken.owner.service):
            what = f"a rule of another program translates packets to {taken}"
            evidence = f"chain {each.chain}, through priority {each.first}; kproxy translates at {DSTNAT}"
            yield Sighting(owner_text(taken.owner.service), what, (evidence,), sure=False)


def _takes(rule: ForeignTranslation, frontend: Frontend) -> bool:
    """Whether the matches of a rule name the address of a frontend, or the port of an external one."""
    if frontend.address in rule.constants:
        return True
    if frontend.kind is FrontendKind.CLUSTER_IP or any(len(each) in (4, 16) for each in rule.constants):
        return False
    return frontend.port.to_bytes(2, "big") in rule.constants

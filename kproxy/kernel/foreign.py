"""Reads the chains of other programs, and their rules that translate destinations or exempt from tracking.

iptables-nft keeps most of a rule in the form of xtables, as expressions `match` and `target`. Of these, only
the names of targets and the ports of the matches tcp and udp are read (struct xt_tcp and xt_udp in
linux/netfilter/xt_tcpudp.h: the range of source ports, then that of destination ports, in host order).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from kproxy.kernel.netlink.core.codec import INET, attributes, read_string, string
from kproxy.kernel.netlink.core.constants import (
    NF_DROP,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSETELEM,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE,
    NFTA_CMP_DATA,
    NFTA_DATA_VALUE,
    NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY,
    NFTA_NAT_TYPE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_XT_INFO,
    NFTA_XT_NAME,
)
from kproxy.kernel.netlink.core.exemptions import (
    Data,
    Ranges,
    exemption_tests,
    is_exemption,
    read_expressions,
    set_ranges,
)
from kproxy.kernel.netlink.socket import Netlink, listed_elements
from kproxy.model import Family
from kproxy.nft.foreign import Foreign, ForeignChain, ForeignExemption, ForeignTest, ForeignTranslation
from kproxy.table.layout import TABLE

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""By number (NF_INET_*)."""
FAMILIES = (*Family, INET)
NFT_NAT_DNAT = 1
TARGETS = ("DNAT", "REDIRECT")
MOST_RULES = 20_000
"""The maximum number of rules of a family to read. kube-proxy makes ten thousands of them with iptables."""
MOST_EXEMPTIONS = 64
"""The maximum number of rules of a family to read that exempt packets from connection tracking."""
MOST_RANGES = 256
"""The maximum number of elements of a set to read."""
Key: TypeAlias = tuple[str, str]
"""A table and a name in it."""


def read_foreign(netlink: Netlink) -> Foreign:
    """Return what other programs have in this network namespace. Raises NetlinkError and Interrupted."""
    chains: list[ForeignChain] = []
    translations: list[ForeignTranslation] = []
    exemptions: list[ForeignExemption] = []
    for family in FAMILIES:
        declared = {(each.table, each.name): each for each in _chains(netlink, family)}
        counts: Counter[Key] = Counter()
        found: list[tuple[Key, frozenset[bytes]]] = []
        exempting: list[tuple[Key, memoryview]] = []
        for key, expressions in _rules(netlink, family) if declared else ():
            counts[key] += 1
            if counts.total() > MOST_RULES:
                continue
            if (constants := _translates(expressions)) is not None:
                found.append((key, constants))
            if len(exempting) < MOST_EXEMPTIONS and is_exemption(expressions):
                exempting.append((key, expressions))
        counted = {key: each._replace(rules=counts[key]) for key, each in declared.items()}
        chains += counted.values()
        first = _first_priorities(counted)
        translations += [
            ForeignTranslation(counted[key], constants, first[key])
            for key, constants in found
            if key in first
        ]
        exemptions += [
            ForeignExemption(counted[key], _tests(netlink, family, key[0], expressions), first[key])
            for key, expressions in exempting
            if key in first
        ]
    return Foreign(tuple(chains), tuple(translations), tuple(exemptions))


def _chains(netlink: Netlink, family: str) -> Iterator[ForeignChain]:
    for content in netlink.dump(NFT_MSG_GETCHAIN, family):
        found = dict(attributes(content))
        table = read_string(found[NFTA_CHAIN_TABLE])
        if table == TABLE and family != INET:
            continue
        hook = dict(attributes(found[NFTA_CHAIN_HOOK])) if NFTA_CHAIN_HOOK in found else {}
        number = int.from_bytes(hook.get(NFTA_HOOK_HOOKNUM, b""), "big")
        yield ForeignChain(
            str(family),
            table,
            read_string(found[NFTA_CHAIN_NAME]),
            HOOKS[number] if hook and number < len(HOOKS) else "",
            int.from_bytes(hook.get(NFTA_HOOK_PRIORITY, b""), "big", signed=True),
            NFTA_CHAIN_POLICY in found and int.from_bytes(found[NFTA_CHAIN_POLICY], "big") == NF_DROP,
        )


def _rules(netlink: Netlink, family: str) -> Iterator[tuple[Key, memoryview]]:
    for content in netlink.dump(NFT_MSG_GETRULE, family):
        found = dict(attributes(content))
        key = read_string(found[NFTA_RULE_TABLE]), read_string(found[NFTA_RULE_CHAIN])
        if key[0] != TABLE or family == INET:
            yield key, found.get(NFTA_RULE_EXPRESSIONS, memoryview(b""))


def _translates(expressions: memoryview) -> frozenset[bytes] | None:
    """Return the constants of a rule that translates destinations; None for other rules."""
    constants: set[bytes] = set()
    translates = False
    for name, data in read_expressions(expressions):
        translates |= _is_translation(name, data)
        constants |= set(_constants(name, data))
    return frozenset(constants) if translates else None


def _is_translation(name: str, data: Data) -> bool:
    match name:
        case "nat":
            return int.from_bytes(data[NFTA_NAT_TYPE], "big") == NFT_NAT_DNAT
        case "target":
            return read_string(data[NFTA_XT_NAME]) in TARGETS
        case _:
            return name == "redir"


def _constants(name: str, data: Data) -> Iterator[bytes]:
    if name == "cmp":
        yield bytes(dict(attributes(data[NFTA_CMP_DATA])).get(NFTA_DATA_VALUE, b""))
    elif name == "match" and read_string(data[NFTA_XT_NAME]) in ("tcp", "udp"):
        *_, first, last = struct.unpack_from("=HHHH", data[NFTA_XT_INFO])
        if first == last:
            yield first.to_bytes(2, "big")


def _first_priorities(chains: Mapping[Key, ForeignChain]) -> Mapping[Key, int]:
    """Return the lowest priority at which packets with their first destination may reach each chain.

    Any chain with such a hook may lead to the chains of its table that have none.
    """
    own = {key: chain.priority for key, chain in chains.items() if chain.hook in ("prerouting", "output")}
    first: dict[str, int] = {}
    for (table, _), priority in own.items():
        first[table] = min(priority, first.get(table, priority))
    return own | {key: first[key[0]] for key, chain in chains.items() if not chain.hook and key[0] in first}


def _tests(netlink: Netlink, family: str, table: str, expressions: memoryview) -> tuple[ForeignTest, ...]:
    def ranges_of(name: str) -> Ranges | None:
        """Return what a set contains; None if it has too many elements."""
        body = string(NFTA_SET_ELEM_LIST_TABLE, table) + string(NFTA_SET_ELEM_LIST_SET, name)
        found: list[memoryview] = []
        for content in netlink.dump(NFT_MSG_GETSETELEM, family, body):  # to its end: the socket has no other
            if len(found) <= MOST_RANGES:
                found += listed_elements(content)
        return set_ranges(found) if len(found) <= MOST_RANGES else None

    return tuple(exemption_tests(expressions, ranges_of))

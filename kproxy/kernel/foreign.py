"""Reads the chains of other programs, and their rules that translate destinations.

iptables-nft keeps most of a rule in the form of xtables, as expressions `match` and `target`. Of these, only
the names of targets and the ports of the matches tcp and udp are read (struct xt_tcp and xt_udp in
linux/netfilter/xt_tcpudp.h: the range of source ports, then that of destination ports, in host order).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from kproxy.kernel.netlink.core.codec import INET, attributes, read_string
from kproxy.kernel.netlink.core.constants import (
    NF_DROP,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE,
    NFTA_CMP_DATA,
    NFTA_DATA_VALUE,
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY,
    NFTA_NAT_TYPE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE,
)
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.nft.foreign import Foreign, ForeignChain, ForeignTranslation
from kproxy.table.layout import TABLE

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""By number (NF_INET_*)."""
FAMILIES = (*Family, INET)
NFT_NAT_DNAT = 1
NFTA_XT_NAME, NFTA_XT_INFO = 1, 3
"""The same for the expressions `match` and `target`."""
TARGETS = ("DNAT", "REDIRECT")
MOST_RULES = 20_000
"""The maximum number of rules of a family to read. kube-proxy makes ten thousands of them with iptables."""


def read_foreign(netlink: Netlink) -> Foreign:
    """Return what other programs have in this network namespace. Raises NetlinkError and Interrupted."""
    chains: list[ForeignChain] = []
    translations: list[ForeignTranslation] = []
    for family in FAMILIES:
        declared = {(each.table, each.name): each for each in _chains(netlink, family)}
        counts: Counter[tuple[str, str]] = Counter()
        found: list[tuple[tuple[str, str], frozenset[bytes]]] = []
        for key, expressions in _rules(netlink, family) if declared else ():
            counts[key] += 1
            if counts.total() <= MOST_RULES and (constants := _translates(expressions)) is not None:
                found.append((key, constants))
        counted = {key: each._replace(rules=counts[key]) for key, each in declared.items()}
        chains += counted.values()
        translations += _with_priorities(counted, found)
    return Foreign(tuple(chains), tuple(translations))


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


def _rules(netlink: Netlink, family: str) -> Iterator[tuple[tuple[str, str], memoryview]]:
    for content in netlink.dump(NFT_MSG_GETRULE, family):
        found = dict(attributes(content))
        key = read_string(found[NFTA_RULE_TABLE]), read_string(found[NFTA_RULE_CHAIN])
        if key[0] != TABLE or family == INET:
            yield key, found.get(NFTA_RULE_EXPRESSIONS, memoryview(b""))


def _translates(expressions: memoryview) -> frozenset[bytes] | None:
    """Return the constants of a rule that translates destinations; None for other rules."""
    constants: set[bytes] = set()
    translates = False
    for _, expression in attributes(expressions):
        found = dict(attributes(expression))
        name, data = read_string(found[NFTA_EXPR_NAME]), found.get(NFTA_EXPR_DATA, memoryview(b""))
        translates |= _is_translation(name, dict(attributes(data)))
        constants |= set(_constants(name, dict(attributes(data))))
    return frozenset(constants) if translates else None


def _is_translation(name: str, data: dict[int, memoryview]) -> bool:
    match name:
        case "nat":
            return int.from_bytes(data[NFTA_NAT_TYPE], "big") == NFT_NAT_DNAT
        case "target":
            return read_string(data[NFTA_XT_NAME]) in TARGETS
        case _:
            return name == "redir"


def _constants(name: str, data: dict[int, memoryview]) -> Iterator[bytes]:
    if name == "cmp":
        yield bytes(dict(attributes(data[NFTA_CMP_DATA])).get(NFTA_DATA_VALUE, b""))
    elif name == "match" and read_string(data[NFTA_XT_NAME]) in ("tcp", "udp"):
        *_, first, last = struct.unpack_from("=HHHH", data[NFTA_XT_INFO])
        if first == last:
            yield first.to_bytes(2, "big")


def _with_priorities(
    chains: dict[tuple[str, str], ForeignChain], found: list[tuple[tuple[str, str], frozenset[bytes]]]
) -> Iterator[ForeignTranslation]:
    first: dict[str, int] = {}
    for (table, _), chain in chains.items():
        if chain.hook in ("prerouting", "output"):
            first[table] = min(chain.priority, first.get(table, chain.priority))
    for key, constants in found:
        if key in chains and key[0] in first:
            yield ForeignTranslation(chains[key], constants, first[key[0]])

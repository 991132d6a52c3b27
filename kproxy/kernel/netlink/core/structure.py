"""Packs the messages that create, change and remove the structure of a table: tables, sets, chains, rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from kproxy.kernel.netlink.core.codec import BatchMessage, be32, nested, string
from kproxy.kernel.netlink.core.constants import (
    NF_ACCEPT,
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE,
    NFTA_CHAIN_TYPE,
    NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY,
    NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_TABLE_FLAGS,
    NFTA_TABLE_NAME,
    NLM_F_APPEND,
    NLM_F_CREATE,
)
from kproxy.kernel.netlink.core.rules import pack_rule
from kproxy.kernel.netlink.core.sets import constant_messages, set_message
from kproxy.model import Family
from kproxy.nft.rules import Rule
from kproxy.nft.ruleset import Chain, Hook, Skeleton
from kproxy.nft.structure import TableFlags

HOOKS = {
    "prerouting": NF_INET_PRE_ROUTING,
    "input": NF_INET_LOCAL_IN,
    "output": NF_INET_LOCAL_OUT,
    "postrouting": NF_INET_POST_ROUTING,
}


def whole_table(skeleton: Skeleton, flags: TableFlags = TableFlags.NONE) -> list[BatchMessage]:
    """Return the messages that create a table, without elements that are written later."""
    sets, chains = [d.name for d in skeleton.sets], [c.name for c in skeleton.chains]
    return [table_message(skeleton.family, skeleton.table, flags), *writing(skeleton, sets, (), chains)]


def writing(
    skeleton: Skeleton, sets: Collection[str], contents: Collection[str], chains: Collection[str]
) -> list[BatchMessage]:
    """Return the messages that create `sets`, refill the constant sets `contents`, and rewrite `chains`.

    In one transaction, there is no moment at which a chain has no rules.
    """
    written = [chain for chain in skeleton.chains if chain.name in chains]
    return [
        *_set_messages(skeleton, sets, contents),
        *(_chain_message(skeleton, chain) for chain in written),
        *(flush_message(skeleton.family, skeleton.table, chain.name) for chain in written),
        *(rule_message(skeleton, chain.name, rule) for chain in written for rule in chain.rules),
    ]


def removal(family: Family, table: str, sets: Iterable[str], chains: Iterable[str]) -> list[BatchMessage]:
    """Return the messages that delete chains and sets, to which nothing but each other refers."""
    names = sorted(chains)
    return [
        *(flush_message(family, table, name) for name in names),
        *(BatchMessage(NFT_MSG_DELSET, 0, family, _set(table, name)) for name in sorted(sets)),
        *(BatchMessage(NFT_MSG_DELCHAIN, 0, family, _chain(table, name)) for name in names),
    ]


def table_message(family: Family, table: str, flags: TableFlags) -> BatchMessage:
    """Return the message that creates a table, or sets the flags of an existing one."""
    body = string(NFTA_TABLE_NAME, table) + be32(NFTA_TABLE_FLAGS, flags)
    return BatchMessage(NFT_MSG_NEWTABLE, NLM_F_CREATE, family, body)


def table_removal(family: Family, table: str) -> BatchMessage:
    """Return the message that deletes a table with all that it contains."""
    return BatchMessage(NFT_MSG_DELTABLE, 0, family, string(NFTA_TABLE_NAME, table))


def flush_message(family: Family, table: str, chain: str) -> BatchMessage:
    """Return the message that deletes all rules of a chain."""
    body = string(NFTA_RULE_TABLE, table) + string(NFTA_RULE_CHAIN, chain)
    return BatchMessage(NFT_MSG_DELRULE, 0, family, body)


def rule_message(skeleton: Skeleton, chain: str, rule: Rule) -> BatchMessage:
    """Return the message that appends a rule to a chain."""
    head = string(NFTA_RULE_TABLE, skeleton.table) + string(NFTA_RULE_CHAIN, chain)
    body = head + pack_rule(rule, skeleton.family)
    return BatchMessage(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, skeleton.family, body)


def _set_messages(
    skeleton: Skeleton, sets: Collection[str], contents: Collection[str]
) -> Iterator[BatchMessage]:
    for number, declaration in enumerate(skeleton.sets, 1):
        is_new = declaration.name in sets
        if is_new:
            yield set_message(skeleton, number, declaration)
        elif declaration.name in contents:
            head = string(NFTA_SET_ELEM_LIST_TABLE, skeleton.table)
            everything = head + string(NFTA_SET_ELEM_LIST_SET, declaration.name)
            yield BatchMessage(NFT_MSG_DELSETELEM, 0, skeleton.family, everything)
        if is_new or declaration.name in contents:
            yield from constant_messages(skeleton, declaration)


def _set(table: str, name: str) -> bytes:
    return string(NFTA_SET_TABLE, table) + string(NFTA_SET_NAME, name)


def _chain(table: str, name: str) -> bytes:
    return string(NFTA_CHAIN_TABLE, table) + string(NFTA_CHAIN_NAME, name)


def _chain_message(skeleton: Skeleton, chain: Chain) -> BatchMessage:
    body = _chain(skeleton.table, chain.name) + (_hook(chain.hook) if chain.hook else b"")
    return BatchMessage(NFT_MSG_NEWCHAIN, NLM_F_CREATE, skeleton.family, body)


def _hook(hook: Hook) -> bytes:
    where = be32(NFTA_HOOK_HOOKNUM, HOOKS[hook.name]) + be32(NFTA_HOOK_PRIORITY, hook.priority)
    kind = string(NFTA_CHAIN_TYPE, hook.type)
    return nested(NFTA_CHAIN_HOOK, where) + be32(NFTA_CHAIN_POLICY, NF_ACCEPT) + kind

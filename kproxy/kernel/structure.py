"""Reads the structure of a table: its declarations and rules, in the kernel's bytes.

Another program may change the structure, for example with `delete map` or `replace rule`. The text that nft
lists differs between its versions, so comparing text would not find such changes reliably. The kernel's bytes
are compared with those that it lists for kproxy's own rules (rehearsal.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from msgspec import Struct

from kproxy.kernel.netlink.core.codec import attributes, message_type, read_string, string
from kproxy.kernel.netlink.core.constants import (
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETTABLE,
    NFT_SET_ANONYMOUS,
    NFTA_CHAIN_FLAGS,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE,
    NFTA_CHAIN_TYPE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE,
    NFTA_SET_DATA_LEN,
    NFTA_SET_DATA_TYPE,
    NFTA_SET_DESC,
    NFTA_SET_EXPR,
    NFTA_SET_EXPRESSIONS,
    NFTA_SET_FLAGS,
    NFTA_SET_KEY_LEN,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_SET_TIMEOUT,
    NFTA_TABLE_FLAGS,
    NFTA_TABLE_NAME,
    NFTA_TABLE_OWNER,
)
from kproxy.kernel.netlink.core.sets import has_types
from kproxy.kernel.netlink.socket import Interrupted, Netlink, NetlinkError, is_missing, unusable
from kproxy.model import Family
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.structure import ChainStructure, Structure, TableFlags
from kproxy.table.layout import TABLE

# The attributes that define an object. Names, handles and counters are excluded.
_CHAIN_ATTRIBUTES = {NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE, NFTA_CHAIN_FLAGS}
_RULE_ATTRIBUTES = {NFTA_RULE_EXPRESSIONS}
_SET_ATTRIBUTES = {
    *(NFTA_SET_FLAGS, NFTA_SET_DESC, NFTA_SET_TIMEOUT),
    *(NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN),
}
_COUNTER_ATTRIBUTES = {NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS}


GET_CHAIN = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN)
_TABLE_ATTRIBUTES = NFTA_TABLE_FLAGS, NFTA_TABLE_OWNER


def _select(fields: list[tuple[int, memoryview]], kinds: set[int]) -> bytes:
    return b"".join(bytes([kind]) + bytes(data) for kind, data in fields if kind in kinds)


class TableState(Struct, frozen=True):
    """The declaration of a table."""

    flags: TableFlags
    owner: int
    """The netlink port of the socket that owns it; 0 if none does."""


def read_table(netlink: Netlink, family: Family) -> TableState | None:
    """Return the declaration of kproxy's table; None if the table does not exist.

    Raises HostError if this process cannot use nftables.
    """
    try:
        found = dict(attributes(netlink.get(NFT_MSG_GETTABLE, family, string(NFTA_TABLE_NAME, TABLE))))
    except NetlinkError as error:
        if is_missing(error):
            return None
        raise unusable(error) from None
    flags, owner = (int.from_bytes(found.get(kind, b""), "big") for kind in _TABLE_ATTRIBUTES)
    return TableState(TableFlags(flags), owner)


def has_table(netlink: Netlink, family: Family) -> bool:
    """Whether kproxy's table exists in the kernel."""
    return read_table(netlink, family) is not None


def lacks_counters(netlink: Netlink, family: Family, name: str) -> bool:
    """Whether kproxy's table has a set with this name, and its elements get no counters."""
    try:
        wanted = string(NFTA_SET_TABLE, TABLE) + string(NFTA_SET_NAME, name)
        found = dict(attributes(netlink.get(NFT_MSG_GETSET, family, wanted)))
    except NetlinkError as error:
        if is_missing(error):
            return False
        raise
    return _COUNTER_ATTRIBUTES.isdisjoint(found)


def read_structure(netlink: Netlink, skeleton: Skeleton, settled: bool = True) -> Structure | None:
    """Return the structure of kproxy's table in the kernel; None if the table does not exist.

    Raises Interrupted if a program commits during a list, unless `settled` is False. Then the result is right
    if all commits in the meantime were to other tables.
    """
    family, listed = skeleton.family, partial(list_objects, netlink, skeleton.family, settled)
    table = read_table(netlink, family)
    if table is None:
        return None
    expected, other_types = {each.name: each for each in skeleton.sets}, set[str]()
    sets: dict[str, bytes] = {}
    counters: dict[str, bytes] = {}
    for content in listed(NFT_MSG_GETSET, string(NFTA_SET_TABLE, TABLE)):
        fields = list(attributes(content))
        found = dict(fields)
        # An anonymous set belongs to a rule, and the kernel deletes it with the rule.
        if not int.from_bytes(found.get(NFTA_SET_FLAGS, b""), "big") & NFT_SET_ANONYMOUS:
            name = read_string(found[NFTA_SET_NAME])
            sets[name] = _select(fields, _SET_ATTRIBUTES)
            if counter := _select(fields, _COUNTER_ATTRIBUTES):
                counters[name] = counter
            if name in expected and not has_types(found, expected[name], family):
                other_types.add(name)
    rules: dict[str, list[bytes]] = {}
    for content in listed(NFT_MSG_GETRULE, string(NFTA_RULE_TABLE, TABLE)):
        fields = list(attributes(content))
        chain = read_string(dict(fields)[NFTA_RULE_CHAIN])
        rules.setdefault(chain, []).append(_select(fields, _RULE_ATTRIBUTES))
    declarations = dict(_declarations(listed(NFT_MSG_GETCHAIN)))
    if not settled:
        names = {*declarations, *rules, *(chain.name for chain in skeleton.chains)}
        declarations = dict(_declarations(_each_chain(netlink, family, names)))
    chains = {name: ChainStructure(d, tuple(rules.get(name, ()))) for name, d in declarations.items()}
    constants = {
        declaration.name: frozenset(bytes(element) for element in netlink.elements(family, declaration.name))
        for declaration in skeleton.sets
        if declaration.constant is not None and declaration.name in sets
    }
    return Structure(table.flags, sets, counters, chains, constants, frozenset(other_types))


def list_objects(
    netlink: Netlink, family: Family, settled: bool, kind: int, body: bytes = b""
) -> Iterator[memoryview]:
    """Return the attributes of each object, as Netlink.dump does. Raises Interrupted only if `settled`."""
    try:
        yield from netlink.dump(kind, family, body)
    except Interrupted:
        if settled:
            raise


def _declarations(chains: Iterable[memoryview]) -> Iterator[tuple[str, bytes]]:
    """Return name and declaration of those chains that are in kproxy's table."""
    for content in chains:
        fields = list(attributes(content))
        found = dict(fields)
        if read_string(found[NFTA_CHAIN_TABLE]) == TABLE:
            yield read_string(found[NFTA_CHAIN_NAME]), _select(fields, _CHAIN_ATTRIBUTES)


def _each_chain(netlink: Netlink, family: Family, names: Iterable[str]) -> Iterator[memoryview]:
    """Return the attributes of the chains with these names, if they exist.

    The kernel lists the chains of all tables of a family. While other programs remove chains, its list lacks
    some. If they have many, the list takes so long that a busy program interrupts it every time.
    """
    for name in sorted(names):
        wanted = string(NFTA_CHAIN_TABLE, TABLE) + string(NFTA_CHAIN_NAME, name)
        if (found := netlink.one(GET_CHAIN, family, wanted)) is not None:
            yield found

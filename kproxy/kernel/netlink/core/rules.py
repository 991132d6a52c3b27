"""Packs the rules that update a map. libnftables loads all other rules.

libnftables before 1.1 aborts on an update of a map with IPv6 addresses, although the kernel accepts it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kproxy.kernel.netlink.core.codec import attribute, be32, nested, string
from kproxy.kernel.netlink.core.constants import (
    IP_CT_DIR_ORIGINAL,
    IP_CT_DIR_REPLY,
    NFT_CMP_EQ,
    NFT_CT_DST_IP,
    NFT_CT_DST_IP6,
    NFT_CT_PROTO_DST,
    NFT_CT_PROTO_SRC,
    NFT_CT_SRC_IP,
    NFT_CT_SRC_IP6,
    NFT_DYNSET_OP_UPDATE,
    NFT_META_L4PROTO,
    NFT_REG32_00,
    NFT_REG_1,
    NFTA_CMP_DATA,
    NFTA_CMP_OP,
    NFTA_CMP_SREG,
    NFTA_CT_DIRECTION,
    NFTA_CT_DREG,
    NFTA_CT_KEY,
    NFTA_DATA_VALUE,
    NFTA_DYNSET_OP,
    NFTA_DYNSET_SET_NAME,
    NFTA_DYNSET_SREG_DATA,
    NFTA_DYNSET_SREG_KEY,
    NFTA_DYNSET_TIMEOUT,
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_LIST_ELEM,
    NFTA_META_DREG,
    NFTA_META_KEY,
    NFTA_RULE_EXPRESSIONS,
)
from kproxy.model import Family
from kproxy.nft.ruleset import MapUpdate, TupleField

DIRECTIONS = {"original": IP_CT_DIR_ORIGINAL, "reply": IP_CT_DIR_REPLY}
KEYS = {
    (Family.IPV4, "saddr"): NFT_CT_SRC_IP,
    (Family.IPV4, "daddr"): NFT_CT_DST_IP,
    (Family.IPV6, "saddr"): NFT_CT_SRC_IP6,
    (Family.IPV6, "daddr"): NFT_CT_DST_IP6,
    **{(family, "proto-src"): NFT_CT_PROTO_SRC for family in Family},
    **{(family, "proto-dst"): NFT_CT_PROTO_DST for family in Family},
}
"""NFT_CT_*, by family and nft's name of the field."""


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *attributes))


def _conntrack(register: int, key: int, direction: int) -> bytes:
    packed_direction = attribute(NFTA_CT_DIRECTION, bytes([direction]))
    return _expression("ct", be32(NFTA_CT_DREG, register), be32(NFTA_CT_KEY, key), packed_direction)


def _protocol(number: int) -> tuple[bytes, bytes]:
    """Return the expressions that compare the protocol with `number`."""
    data = nested(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, bytes([number])))
    return (
        _expression("meta", be32(NFTA_META_KEY, NFT_META_L4PROTO), be32(NFTA_META_DREG, NFT_REG_1)),
        _expression("cmp", be32(NFTA_CMP_SREG, NFT_REG_1), be32(NFTA_CMP_OP, NFT_CMP_EQ), data),
    )


def _register(word: int) -> int:
    """Return the register that begins at this word (of four bytes)."""
    return word // 4 + NFT_REG_1 if word % 4 == 0 else word + NFT_REG32_00


def _load(fields: Iterable[TupleField], word: int, family: Family) -> tuple[list[bytes], int]:
    """Return the expressions that load the fields into consecutive words, and the first word after them."""
    expressions = []
    for field in fields:
        key, direction = KEYS[family, field.field], DIRECTIONS[field.direction]
        expressions.append(_conntrack(_register(word), key, direction))
        word += field.width(family) // 4
    return expressions, word


def map_update(update: MapUpdate) -> bytes:
    """Return the expressions of a map update. They are the same as those that libnftables creates.

    They load the key of the map into consecutive words (of four bytes), and the value into the following
    words.
    """
    key, value_word = _load(update.key, 0, update.family)
    value, _ = _load(update.value, value_word, update.family)
    write = _expression(
        "dynset",
        string(NFTA_DYNSET_SET_NAME, update.map),
        be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
        be32(NFTA_DYNSET_SREG_KEY, _register(0)),
        be32(NFTA_DYNSET_SREG_DATA, _register(value_word)),
        attribute(NFTA_DYNSET_TIMEOUT, struct.pack(">Q", update.timeout * 1000)),
    )
    return nested(NFTA_RULE_EXPRESSIONS, *_protocol(update.protocol.number), *key, *value, write)

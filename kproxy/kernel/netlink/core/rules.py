"""The one rule that kproxy packs itself, expression by expression; libnftables loads all others.

libnftables before 1.1 aborts on the IPv6 form of the affinity rule, which the kernel accepts.
"""

from __future__ import annotations

import struct

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
from kproxy.nft.ruleset import AffinityUpdate


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *attributes))


def _conntrack(register: int, key: int, direction: int) -> bytes:
    way = attribute(NFTA_CT_DIRECTION, bytes([direction]))
    return _expression("ct", be32(NFTA_CT_DREG, register), be32(NFTA_CT_KEY, key), way)


def _protocol(number: int) -> tuple[bytes, bytes]:
    """Compare the protocol with `number`."""
    data = nested(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, bytes([number])))
    return (
        _expression("meta", be32(NFTA_META_KEY, NFT_META_L4PROTO), be32(NFTA_META_DREG, NFT_REG_1)),
        _expression("cmp", be32(NFTA_CMP_SREG, NFT_REG_1), be32(NFTA_CMP_OP, NFT_CMP_EQ), data),
    )


def _register(word: int) -> int:
    """The register that begins at the `word`-th group of four bytes."""
    return word // 4 + NFT_REG_1 if word % 4 == 0 else word + NFT_REG32_00


def affinity_rule(update: AffinityUpdate) -> bytes:
    """The expressions of an affinity rule; nft lists it as it lists libnftables' own.

    The map's key is put together in consecutive words (of four bytes), its value right behind it.
    """
    words = update.family.width // 4
    source, destination = NFT_CT_SRC_IP, NFT_CT_DST_IP
    if update.family is Family.IPV6:
        source, destination = NFT_CT_SRC_IP6, NFT_CT_DST_IP6
    key, value = _register(0), _register(2 * words + 1)
    return nested(
        NFTA_RULE_EXPRESSIONS,
        *_protocol(update.protocol.number),
        _conntrack(key, source, IP_CT_DIR_ORIGINAL),
        _conntrack(_register(words), destination, IP_CT_DIR_ORIGINAL),
        _conntrack(_register(2 * words), NFT_CT_PROTO_DST, IP_CT_DIR_ORIGINAL),
        _conntrack(value, source, IP_CT_DIR_REPLY),
        _conntrack(_register(3 * words + 1), NFT_CT_PROTO_SRC, IP_CT_DIR_REPLY),
        _expression(
            "dynset",
            string(NFTA_DYNSET_SET_NAME, f"affinity-{update.protocol}"),
            be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
            be32(NFTA_DYNSET_SREG_KEY, key),
            be32(NFTA_DYNSET_SREG_DATA, value),
            attribute(NFTA_DYNSET_TIMEOUT, struct.pack(">Q", update.timeout * 1000)),
        ),
    )

"""Packs the expressions that load values into the kernel's registers.

There are 16 words of four bytes. A word that begins a group of four has a second number (NFT_REG_1 and so
on). Values begin at a word, so a port takes four bytes, as in the keys of maps.
"""

from __future__ import annotations

from functools import cache

from kproxy.kernel.netlink.core.codec import attribute, be32, nested, string
from kproxy.kernel.netlink.core.constants import (
    IP_CT_DIR_ORIGINAL,
    IP_CT_DIR_REPLY,
    NFT_CT_DST_IP,
    NFT_CT_DST_IP6,
    NFT_CT_PROTO_DST,
    NFT_CT_PROTO_SRC,
    NFT_CT_SRC_IP,
    NFT_CT_SRC_IP6,
    NFT_CT_STATE,
    NFT_CT_STATUS,
    NFT_FIB_RESULT_ADDRTYPE,
    NFT_HASH_JENKINS,
    NFT_META_IIFNAME,
    NFT_META_L4PROTO,
    NFT_META_OIFNAME,
    NFT_NG_RANDOM,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER,
    NFT_REG32_00,
    NFT_REG_1,
    NFTA_CT_DIRECTION,
    NFTA_CT_DREG,
    NFTA_CT_KEY,
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_FIB_DREG,
    NFTA_FIB_F_DADDR,
    NFTA_FIB_F_SADDR,
    NFTA_FIB_FLAGS,
    NFTA_FIB_RESULT,
    NFTA_HASH_DREG,
    NFTA_HASH_LEN,
    NFTA_HASH_MODULUS,
    NFTA_HASH_OFFSET,
    NFTA_HASH_SEED,
    NFTA_HASH_SREG,
    NFTA_HASH_TYPE,
    NFTA_LIST_ELEM,
    NFTA_META_DREG,
    NFTA_META_KEY,
    NFTA_NG_DREG,
    NFTA_NG_MODULUS,
    NFTA_NG_OFFSET,
    NFTA_NG_TYPE,
    NFTA_PAYLOAD_BASE,
    NFTA_PAYLOAD_DREG,
    NFTA_PAYLOAD_LEN,
    NFTA_PAYLOAD_OFFSET,
)
from kproxy.model import Family
from kproxy.nft import expressions as nft

WORD = 4
DIRECTIONS = {"original": IP_CT_DIR_ORIGINAL, "reply": IP_CT_DIR_REPLY}
FIB_FLAGS = {"saddr": NFTA_FIB_F_SADDR, "daddr": NFTA_FIB_F_DADDR}
ADDRESSES = {
    nft.HeaderField("ip", "saddr"): (12, 4),
    nft.HeaderField("ip", "daddr"): (16, 4),
    nft.HeaderField("ip6", "saddr"): (8, 16),
    nft.HeaderField("ip6", "daddr"): (24, 16),
}
"""Offset and length of addresses in the network header."""
PORTS = {"sport": (0, 2), "dport": (2, 2)}
"""Offset and length of ports in all transport headers."""
TUPLE_KEYS = {
    (Family.IPV4, "saddr"): NFT_CT_SRC_IP,
    (Family.IPV4, "daddr"): NFT_CT_DST_IP,
    (Family.IPV6, "saddr"): NFT_CT_SRC_IP6,
    (Family.IPV6, "daddr"): NFT_CT_DST_IP6,
    **{(family, "proto-src"): NFT_CT_PROTO_SRC for family in Family},
    **{(family, "proto-dst"): NFT_CT_PROTO_DST for family in Family},
}
"""NFT_CT_*, by family and nft's name of the field."""
META_KEYS = {
    nft.Meta.PROTOCOL: NFT_META_L4PROTO,
    nft.Meta.INPUT_INTERFACE: NFT_META_IIFNAME,
    nft.Meta.OUTPUT_INTERFACE: NFT_META_OIFNAME,
}
CONNECTION_KEYS = {nft.Connection.STATE: NFT_CT_STATE, nft.Connection.STATUS: NFT_CT_STATUS}


def expression(name: str, *attributes: bytes) -> bytes:
    """Pack an expression of a rule."""
    return nested(NFTA_LIST_ELEM, named(name, *attributes))


def named(name: str, *attributes: bytes) -> bytes:
    """Pack the name and the attributes of an expression."""
    return string(NFTA_EXPR_NAME, name) + nested(NFTA_EXPR_DATA, *attributes)


def register(word: int) -> int:
    """Return the number of the register that begins at this word."""
    return word // 4 + NFT_REG_1 if word % 4 == 0 else word + NFT_REG32_00


def words(read: nft.Expression) -> int:
    """Return the number of words that a value takes."""
    if isinstance(read, nft.HeaderField):
        _, length = ADDRESSES.get(read, (0, WORD))
        return length // WORD
    if isinstance(read, nft.TupleField):
        return read.family.width // WORD if read.name in ("saddr", "daddr") else 1
    return 1


def load_all(key: nft.Concatenation, first: int = 0) -> list[bytes]:
    """Pack the expressions that load consecutive values, from word `first` on."""
    packed, word, after = [], first, first + sum(map(words, key))
    for read in key:
        packed += _load_hash(read, word, after) if isinstance(read, nft.Hash) else [load(read, word)]
        word += words(read)
    return packed


@cache
def load(read: nft.Field | nft.Connection | nft.AddressType | nft.RandomNumber, word: int) -> bytes:
    """Pack the expression that loads a value into the register at `word`."""
    to = register(word)
    match read:
        case nft.HeaderField():
            return _load_field(read, to)
        case nft.NetworkByte(offset):
            return _payload(to, NFT_PAYLOAD_NETWORK_HEADER, offset, 1)
        case nft.Meta():
            return expression("meta", be32(NFTA_META_KEY, META_KEYS[read]), be32(NFTA_META_DREG, to))
        case nft.Connection():
            return expression("ct", be32(NFTA_CT_DREG, to), be32(NFTA_CT_KEY, CONNECTION_KEYS[read]))
        case nft.TupleField():
            key = be32(NFTA_CT_KEY, TUPLE_KEYS[read.family, read.name])
            direction = attribute(NFTA_CT_DIRECTION, bytes([DIRECTIONS[read.direction]]))
            return expression("ct", be32(NFTA_CT_DREG, to), key, direction)
        case nft.AddressType(name):
            result = be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
            flags = be32(NFTA_FIB_FLAGS, FIB_FLAGS[name])
            return expression("fib", be32(NFTA_FIB_DREG, to), result, flags)
        case nft.RandomNumber():
            numbers = be32(NFTA_NG_MODULUS, read.modulus), be32(NFTA_NG_OFFSET, read.offset)
            return expression("numgen", be32(NFTA_NG_DREG, to), be32(NFTA_NG_TYPE, NFT_NG_RANDOM), *numbers)


def _load_field(field: nft.HeaderField, to: int) -> bytes:
    is_address = field in ADDRESSES
    offset, length = ADDRESSES[field] if is_address else PORTS[field.name]
    header = NFT_PAYLOAD_NETWORK_HEADER if is_address else NFT_PAYLOAD_TRANSPORT_HEADER
    return _payload(to, header, offset, length)


def _payload(to: int, header: int, offset: int, length: int) -> bytes:
    return expression(
        "payload",
        be32(NFTA_PAYLOAD_DREG, to),
        be32(NFTA_PAYLOAD_BASE, header),
        be32(NFTA_PAYLOAD_OFFSET, offset),
        be32(NFTA_PAYLOAD_LEN, length),
    )


def _load_hash(read: nft.Hash, word: int, free: int) -> list[bytes]:
    """Pack a hash. Its fields are loaded into the registers at `free` and after it."""
    length = WORD * sum(map(words, read.fields))
    hashed = expression(
        "hash",
        be32(NFTA_HASH_SREG, register(free)),
        be32(NFTA_HASH_DREG, register(word)),
        be32(NFTA_HASH_LEN, length),
        be32(NFTA_HASH_MODULUS, read.modulus),
        be32(NFTA_HASH_SEED, read.seed),
        be32(NFTA_HASH_OFFSET, read.offset),
        be32(NFTA_HASH_TYPE, NFT_HASH_JENKINS),
    )
    return [*load_all(read.fields, free), hashed]

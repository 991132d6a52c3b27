"""Packs the messages that create sets and maps, and those with the elements of constant sets.

The kernel stores a type as a number, and the user data of a set, without knowing their meaning. They are for
`nft list`. They have the form that nft 1.0.6 writes, so all later versions can read them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from kproxy.kernel.netlink.core.codec import BatchMessage, attribute, attributes, be32, nested, string
from kproxy.kernel.netlink.core.constants import (
    BYTEORDER_BIG_ENDIAN,
    BYTEORDER_INVALID,
    EXPR_CONCAT,
    EXPR_NUMGEN,
    EXPR_PAYLOAD,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_NG_RANDOM,
    NFT_SET_CONCAT,
    NFT_SET_ELEM_INTERVAL_END,
    NFT_SET_EVAL,
    NFT_SET_INTERVAL,
    NFT_SET_MAP,
    NFT_SET_TIMEOUT,
    NFTA_COUNTER_BYTES,
    NFTA_COUNTER_PACKETS,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_SET_DATA_LEN,
    NFTA_SET_DATA_TYPE,
    NFTA_SET_DESC,
    NFTA_SET_DESC_CONCAT,
    NFTA_SET_DESC_SIZE,
    NFTA_SET_ELEM_FLAGS,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_EXPR,
    NFTA_SET_FIELD_LEN,
    NFTA_SET_FLAGS,
    NFTA_SET_ID,
    NFTA_SET_KEY_LEN,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_SET_TIMEOUT,
    NFTA_SET_USERDATA,
    NFTNL_UDATA_SET_DATA_TYPEOF,
    NFTNL_UDATA_SET_DATABYTEORDER,
    NFTNL_UDATA_SET_KEY_TYPEOF,
    NFTNL_UDATA_SET_KEYBYTEORDER,
    NFTNL_UDATA_SET_TYPEOF_DATA,
    NFTNL_UDATA_SET_TYPEOF_EXPR,
    NLM_F_CREATE,
    PROTO_DESC_IP,
    PROTO_DESC_IP6,
    PROTO_DESC_SCTP,
    PROTO_DESC_TCP,
    PROTO_DESC_UDP,
    TYPE_BITS,
    TYPE_INET_PROTOCOL,
    TYPE_INET_SERVICE,
    TYPE_INTEGER,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    TYPE_VERDICT,
)
from kproxy.kernel.netlink.core.elements import element_messages, packed_messages
from kproxy.kernel.netlink.core.expressions import named
from kproxy.kernel.netlink.core.rules import record
from kproxy.model import Family, Network
from kproxy.nft.elements import Field
from kproxy.nft.expressions import Concatenation, Expression, HeaderField, RandomNumber
from kproxy.nft.ruleset import SetDeclaration, Skeleton

TYPES = {
    Field.PROTOCOL: TYPE_INET_PROTOCOL,
    Field.PORT: TYPE_INET_SERVICE,
    Field.NUMBER: TYPE_INTEGER,
    Field.BYTE: TYPE_INTEGER,
}
LENGTHS = {Field.PROTOCOL: 1, Field.PORT: 2, Field.NUMBER: 4, Field.BYTE: 1}
"""The length of a field without padding."""
VERDICT_LENGTH = 16
HEADERS = {
    "ip": (PROTO_DESC_IP, {"ttl": 8, "saddr": 11, "daddr": 12}),
    "ip6": (PROTO_DESC_IP6, {"hoplimit": 7, "saddr": 8, "daddr": 9}),
    "tcp": (PROTO_DESC_TCP, {"sport": 1, "dport": 2}),
    "udp": (PROTO_DESC_UDP, {"sport": 1, "dport": 2}),
    "sctp": (PROTO_DESC_SCTP, {"sport": 1, "dport": 2}),
}
"""nft's numbers of headers and of their fields."""
ZERO = bytes(8)
FORM = NFT_SET_INTERVAL | NFT_SET_CONCAT | NFT_SET_MAP
"""The flags of a set that decide of which parts its elements consist."""


def set_message(skeleton: Skeleton, number: int, declaration: SetDeclaration) -> BatchMessage:
    """Return the message that creates a set. `number` must differ from those of other sets in the batch."""
    family = skeleton.family
    body = (
        string(NFTA_SET_TABLE, skeleton.table),
        string(NFTA_SET_NAME, declaration.name),
        be32(NFTA_SET_ID, number),
        be32(NFTA_SET_FLAGS, _set_flags(declaration)),
        be32(NFTA_SET_KEY_TYPE, _type(declaration.key, family)),
        be32(NFTA_SET_KEY_LEN, _length(declaration.key, family)),
        *_value_type(declaration, family),
        _description(declaration, family),
        attribute(NFTA_SET_USERDATA, _user_data(declaration)),
    )
    timeout = attribute(NFTA_SET_TIMEOUT, struct.pack(">Q", declaration.timeout * 1000))
    parts = (*body, timeout * bool(declaration.timeout), _counter() * declaration.counter)
    return BatchMessage(NFT_MSG_NEWSET, NLM_F_CREATE, family, b"".join(parts))


def has_types(listed: Mapping[int, memoryview], declaration: SetDeclaration, family: Family) -> bool:
    """Whether the elements of a set have the types that a declaration says.

    `listed` are the attributes of the set in the kernel, which another program may have created.
    """
    flags = int.from_bytes(listed.get(NFTA_SET_FLAGS, b""), "big") & FORM
    wanted = be32(NFTA_SET_KEY_LEN, _length(declaration.key, family)), *_value_type(declaration, family)
    sizes = dict(attributes(memoryview(b"".join(wanted))))
    return flags == _set_flags(declaration) & FORM and all(listed.get(k) == v for k, v in sizes.items())


def _counter() -> bytes:
    """Pack the counter that each element gets."""
    counts = attribute(NFTA_COUNTER_BYTES, ZERO), attribute(NFTA_COUNTER_PACKETS, ZERO)
    return nested(NFTA_SET_EXPR, named("counter", *counts))


def _set_flags(declaration: SetDeclaration) -> int:
    flags = NFT_SET_INTERVAL * declaration.intervals | NFT_SET_CONCAT * declaration.interval_key
    dynamic = NFT_SET_TIMEOUT | NFT_SET_EVAL if declaration.timeout else 0
    return flags | NFT_SET_MAP * declaration.is_map | dynamic


def _type(fields: Iterable[Field], family: Family) -> int:
    number = 0
    for field in fields:
        address = TYPE_IPADDR if family is Family.IPV4 else TYPE_IP6ADDR
        number = number << TYPE_BITS | TYPES.get(field, address)
    return number


def _length(fields: Iterable[Field], family: Family) -> int:
    return sum(family.width if field is Field.ADDRESS else 4 for field in fields)


def _value_type(declaration: SetDeclaration, family: Family) -> tuple[bytes, ...]:
    if not declaration.is_map:
        return ()
    if not declaration.value:
        return be32(NFTA_SET_DATA_TYPE, TYPE_VERDICT), be32(NFTA_SET_DATA_LEN, VERDICT_LENGTH)
    number, length = _type(declaration.value, family), _length(declaration.value, family)
    return be32(NFTA_SET_DATA_TYPE, number), be32(NFTA_SET_DATA_LEN, length)


def _description(declaration: SetDeclaration, family: Family) -> bytes:
    """Pack the maximum size. Ranges of concatenated fields also need the lengths of the fields."""
    size = be32(NFTA_SET_DESC_SIZE, declaration.size) if declaration.size else b""
    if not declaration.interval_key:
        return nested(NFTA_SET_DESC, size)
    lengths = (LENGTHS.get(field, family.width) for field in declaration.key)
    fields = (nested(NFTA_LIST_ELEM, be32(NFTA_SET_FIELD_LEN, length)) for length in lengths)
    return nested(NFTA_SET_DESC, size, nested(NFTA_SET_DESC_CONCAT, *fields))


# --- the user data of a set: the order of bytes, and the expressions of `typeof` ---


def _user_data(declaration: SetDeclaration) -> bytes:
    order = BYTEORDER_INVALID if len(declaration.key) > 1 else BYTEORDER_BIG_ENDIAN
    found = record(NFTNL_UDATA_SET_KEYBYTEORDER, _number(order))
    if declaration.is_map:
        found += record(NFTNL_UDATA_SET_DATABYTEORDER, _number(BYTEORDER_INVALID))
    if declaration.key_typeof:
        found += record(NFTNL_UDATA_SET_KEY_TYPEOF, _typeof(declaration.key_typeof))
    if declaration.value_typeof:
        found += record(NFTNL_UDATA_SET_DATA_TYPEOF, _typeof(declaration.value_typeof))
    return found


def _number(number: int) -> bytes:
    return struct.pack("=I", number)


def _typeof(key: Concatenation) -> bytes:
    parts = b"".join(record(position, _typeof_expression(part)) for position, part in enumerate(key))
    return _typed(EXPR_CONCAT, parts)


def _typeof_expression(part: Expression) -> bytes:
    match part:
        case HeaderField(header, name):
            number, fields = HEADERS[header]
            return _typed(EXPR_PAYLOAD, _numbers(number, fields[name]))
        case RandomNumber(modulus, offset):
            return _typed(EXPR_NUMGEN, _numbers(NFT_NG_RANDOM, modulus, offset))
        case _:
            raise ValueError(f"typeof {part} is not needed")


def _typed(kind: int, data: bytes) -> bytes:
    return record(NFTNL_UDATA_SET_TYPEOF_EXPR, _number(kind)) + record(NFTNL_UDATA_SET_TYPEOF_DATA, data)


def _numbers(*numbers: int) -> bytes:
    return b"".join(record(position, _number(number)) for position, number in enumerate(numbers))


# --- the elements of constant sets ---


def constant_messages(skeleton: Skeleton, declaration: SetDeclaration) -> Iterator[BatchMessage]:
    """Return the messages that fill a constant set: with keys, or with the ends of networks."""
    constant, to = declaration.constant or (), (NFT_MSG_NEWSETELEM, skeleton.family, declaration.name)
    keys = {each: b"" for each in constant if isinstance(each, bytes)}
    ends = (end for each in constant if not isinstance(each, bytes) for end in _ends(each))
    yield from element_messages(*to, keys)
    yield from packed_messages(*to, ends)


def _ends(network: Network) -> Iterator[bytes]:
    """Pack the first address of a network, and the first one after it, unless there is none."""
    yield _element(network.network_address.packed)
    after = int(network.broadcast_address) + 1
    if after < 1 << network.max_prefixlen:
        end = be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
        yield _element(after.to_bytes(network.max_prefixlen // 8, "big"), end)


def _element(key: bytes, *flags: bytes) -> bytes:
    value = nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, key))
    return nested(NFTA_LIST_ELEM, *flags, value)

"""Packs rules: the statements of a rule become the kernel's expressions.

kproxy packs its few statements itself, because libnftables may crash, and tests/lab/test_nft_versions.py
verifies that nft lists the result as the same rules. docs/decisions.md gives the reasons.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from kproxy.kernel.netlink.core.codec import NFPROTO, attribute, be32, nested, string
from kproxy.kernel.netlink.core.constants import (
    ICMP_PORT_UNREACH,
    ICMPV6_PORT_UNREACH,
    IFNAMSIZ,
    IP_CT_NEW_BIT,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPS_DST_NAT,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY,
    NFT_CMP_EQ,
    NFT_CMP_NEQ,
    NFT_DYNSET_OP_UPDATE,
    NFT_LOOKUP_F_INV,
    NFT_META_NFTRACE,
    NFT_NAT_DNAT,
    NFT_REG_VERDICT,
    NFT_REJECT_ICMP_UNREACH,
    NFT_REJECT_TCP_RST,
    NFTA_BITWISE_DREG,
    NFTA_BITWISE_LEN,
    NFTA_BITWISE_MASK,
    NFTA_BITWISE_SREG,
    NFTA_BITWISE_XOR,
    NFTA_CMP_DATA,
    NFTA_CMP_OP,
    NFTA_CMP_SREG,
    NFTA_DATA_VALUE,
    NFTA_DYNSET_OP,
    NFTA_DYNSET_SET_NAME,
    NFTA_DYNSET_SREG_DATA,
    NFTA_DYNSET_SREG_KEY,
    NFTA_DYNSET_TIMEOUT,
    NFTA_IMMEDIATE_DATA,
    NFTA_IMMEDIATE_DREG,
    NFTA_LOOKUP_DREG,
    NFTA_LOOKUP_FLAGS,
    NFTA_LOOKUP_SET,
    NFTA_LOOKUP_SREG,
    NFTA_MASQ_FLAGS,
    NFTA_META_KEY,
    NFTA_META_SREG,
    NFTA_NAT_FAMILY,
    NFTA_NAT_REG_ADDR_MIN,
    NFTA_NAT_REG_PROTO_MIN,
    NFTA_NAT_TYPE,
    NFTA_REJECT_ICMP_CODE,
    NFTA_REJECT_TYPE,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_USERDATA,
    NFTNL_UDATA_RULE_COMMENT,
    RTN_LOCAL,
)
from kproxy.kernel.netlink.core.elements import pack_verdict
from kproxy.kernel.netlink.core.expressions import WORD, expression, load, load_all, register, words
from kproxy.model import Family, Protocol
from kproxy.nft import rules as nft
from kproxy.nft.expressions import INTERFACES, Connection, Meta

FIRST = register(0)
PROTOCOLS = {
    "icmp": IPPROTO_ICMP,
    "icmpv6": IPPROTO_ICMPV6,
    **{protocol.value: protocol.number for protocol in Protocol},
}
CONNECTION_BITS = {"dnat": IPS_DST_NAT, "new": IP_CT_NEW_BIT}
ADDRESS_TYPES = {"local": RTN_LOCAL}
PORT_UNREACHABLE = {Family.IPV4: ICMP_PORT_UNREACH, Family.IPV6: ICMPV6_PORT_UNREACH}


def pack_rule(rule: nft.Rule, family: Family) -> bytes:
    """Return the attributes of a rule: its expressions and its comment."""
    packed = [expression for statement in _statements(rule) for expression in _pack(statement, family)]
    return nested(NFTA_RULE_EXPRESSIONS, *packed) + _comment(rule.comment)


def _statements(rule: nft.Rule) -> Iterator[nft.Statement]:
    if rule.protocol:
        yield nft.Match(Meta.PROTOCOL, rule.protocol)
    yield from rule.statements


def record(kind: int, data: bytes) -> bytes:
    """Pack a record of user data."""
    return bytes([kind, len(data)]) + data


def _comment(comment: str) -> bytes:
    if not comment:
        return b""
    return attribute(NFTA_RULE_USERDATA, record(NFTNL_UDATA_RULE_COMMENT, comment.encode() + b"\0"))


def _pack(statement: nft.Statement, family: Family) -> list[bytes]:
    match statement:
        case nft.Match(Connection() as bits, value):
            return _test(bits, CONNECTION_BITS[value])
        case nft.Match(read, _, equal):
            return [load(read, 0), _compare(_value(statement), equal)]
        case nft.Comparison(field, value):
            return [load(field, 0), _compare(value, equal=True)]
        case nft.StartTrace():
            one = be32(NFTA_IMMEDIATE_DREG, FIRST), _data(NFTA_IMMEDIATE_DATA, b"\x01")
            setting = be32(NFTA_META_KEY, NFT_META_NFTRACE), be32(NFTA_META_SREG, FIRST)
            return [expression("immediate", *one), expression("meta", *setting)]
        case nft.Lookup(key, name, contained):
            flags = 0 if contained else NFT_LOOKUP_F_INV
            return [*load_all(key), _lookup(name, be32(NFTA_LOOKUP_FLAGS, flags))]
        case nft.VerdictLookup(key, name):
            return [*load_all(key), _lookup(name, be32(NFTA_LOOKUP_DREG, NFT_REG_VERDICT))]
        case nft.Translation():
            return _translation(statement)
        case nft.NoTrack():
            return [expression("notrack")]
        case nft.Masquerade():
            return [expression("masq", be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY))]
        case nft.Reject(reset):
            return [_reject(family, reset)]
        case nft.Conclusion(text):
            verdict = pack_verdict(NFTA_IMMEDIATE_DATA, text)
            return [expression("immediate", be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT), verdict)]
        case nft.SetUpdate():
            return _set_update(statement)


def _value(match: nft.Match) -> bytes:
    """Return the value with which a match compares, in the kernel's form."""
    if match.expression is Meta.PROTOCOL:
        return bytes([PROTOCOLS[match.value]])
    if match.expression in INTERFACES:
        name = match.value.removesuffix("*").encode()
        return name if match.value.endswith("*") else name.ljust(IFNAMSIZ, b"\0")
    return ADDRESS_TYPES[match.value].to_bytes(WORD, sys.byteorder)


def _data(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(NFTA_DATA_VALUE, value))


def _compare(value: bytes, equal: bool) -> bytes:
    operator = be32(NFTA_CMP_OP, NFT_CMP_EQ if equal else NFT_CMP_NEQ)
    return expression("cmp", be32(NFTA_CMP_SREG, FIRST), operator, _data(NFTA_CMP_DATA, value))


def _test(bits: Connection, mask: int) -> list[bytes]:
    zero = bytes(WORD)
    masked = expression(
        "bitwise",
        be32(NFTA_BITWISE_SREG, FIRST),
        be32(NFTA_BITWISE_DREG, FIRST),
        be32(NFTA_BITWISE_LEN, WORD),
        _data(NFTA_BITWISE_MASK, mask.to_bytes(WORD, sys.byteorder)),
        _data(NFTA_BITWISE_XOR, zero),
    )
    return [load(bits, 0), masked, _compare(zero, equal=False)]


def _lookup(name: str, *attributes: bytes) -> bytes:
    return expression("lookup", string(NFTA_LOOKUP_SET, name), be32(NFTA_LOOKUP_SREG, FIRST), *attributes)


def _translation(to: nft.Translation) -> list[bytes]:
    port = register(to.family.width // WORD)
    translate = expression(
        "nat",
        be32(NFTA_NAT_TYPE, NFT_NAT_DNAT),
        be32(NFTA_NAT_FAMILY, NFPROTO[to.family]),
        be32(NFTA_NAT_REG_ADDR_MIN, FIRST),
        be32(NFTA_NAT_REG_PROTO_MIN, port),
    )
    return [*load_all(to.key), _lookup(to.map, be32(NFTA_LOOKUP_DREG, FIRST)), translate]


def _reject(family: Family, reset: bool) -> bytes:
    kind = NFT_REJECT_TCP_RST if reset else NFT_REJECT_ICMP_UNREACH
    code = attribute(NFTA_REJECT_ICMP_CODE, bytes([0 if reset else PORT_UNREACHABLE[family]]))
    return expression("reject", be32(NFTA_REJECT_TYPE, kind), code)


def _set_update(update: nft.SetUpdate) -> list[bytes]:
    value_word = sum(map(words, update.key))
    timeout = attribute(NFTA_DYNSET_TIMEOUT, struct.pack(">Q", update.timeout * 1000))
    write = expression(
        "dynset",
        string(NFTA_DYNSET_SET_NAME, update.set),
        be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
        be32(NFTA_DYNSET_SREG_KEY, FIRST),
        be32(NFTA_DYNSET_SREG_DATA, register(value_word)) * bool(update.value),
        timeout * bool(update.timeout),
    )
    return [*load_all(update.key), *load_all(update.value, value_word), write]

"""The messages that create kproxy's table: each rule becomes these expressions of the kernel."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from kproxy.kernel.netlink.core import constants as nl
from kproxy.kernel.netlink.core.codec import attribute, attributes, be32, nested, read_string, string
from kproxy.kernel.netlink.core.elements import pack_elements, read_element, read_expiration
from kproxy.kernel.netlink.core.structure import removal, table_removal, whole_table, writing
from kproxy.kernel.netlink.core.traces import read_trace
from kproxy.model import Balance, Family, Protocol, parse_address
from kproxy.nft.elements import Verdict
from kproxy.nft.tracing import Flow, trace_table
from kproxy.table.layout import EndpointScope, SlotChain
from kproxy.table.skeleton import NumberedChains, Options, skeleton

CHAINS = NumberedChains(
    frozenset(SlotChain(scope, balance, 2) for scope in EndpointScope for balance in Balance), frozenset({10})
)
NETWORKS = Options(
    (ip_network("10.244.0.0/16"), ip_network("fd00:244::/64")),
    (ip_network("10.96.0.0/16"), ip_network("fd00:96::/112")),
    name_servers=(parse_address("10.96.0.10"), parse_address("fd00:96::a")),
)
OPTIONS = {
    "networks": NETWORKS,
    "masquerade all": Options(masquerade_all=True),
    "an interface": Options(pod_interface="br0"),
    "interfaces": Options(pod_interface="veth*"),
    "stateless": Options(stateless_ipv6_affinity=True),
}
EXPRESSIONS = {
    "ip daddr . meta l4proto . th dport vmap @services": "payload meta payload lookup",
    "ip daddr @cluster-ips fib daddr type != local meta l4proto icmp drop": "payload lookup fib cmp meta cmp immediate",
    "ct status dnat goto remember": "ct bitwise cmp immediate",
    "dnat ip to ip daddr . tcp dport . numgen random mod 2 map @endpoints-tcp": "meta cmp payload payload numgen lookup nat",
    "dnat ip to ip saddr . ip daddr . tcp dport map @affinity-tcp": "meta cmp payload payload payload lookup nat",
    "masquerade fully-random": "masq",
    "fib saddr type local masquerade fully-random": "fib cmp masq",
    "meta l4proto tcp reject with tcp reset": "meta cmp reject",
    "reject": "reject",
    "drop": "immediate",
}  # fmt: skip


def rules(family: Family, options: Options) -> Iterator[tuple[str, list[str]]]:
    """Return nft's notation of each rule, and the names of its expressions."""
    table = skeleton(family, options, CHAINS)
    packed = [m for m in whole_table(table) if m.kind == nl.NFT_MSG_NEWRULE]
    texts = [(chain.name, str(rule)) for chain in table.chains for rule in chain.rules]
    for (chain, text), message in zip(texts, packed, strict=True):
        found = dict(attributes(memoryview(message.body)))
        assert read_string(found[nl.NFTA_RULE_CHAIN]) == chain
        names = [
            read_string(dict(attributes(each))[nl.NFTA_EXPR_NAME])
            for _, each in attributes(found[nl.NFTA_RULE_EXPRESSIONS])
        ]
        yield text.partition(" comment ")[0], names


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS.items())
def test_the_expressions_of_a_rule(text: str, expected: str) -> None:
    assert dict(rules(Family.IPV4, NETWORKS))[text] == expected.split()


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_part_of_the_table_has_a_message(family: Family, options: Options) -> None:
    table = skeleton(family, options, CHAINS)
    messages = whole_table(table)
    kinds = [message.kind for message in messages]
    assert kinds.count(nl.NFT_MSG_NEWTABLE) == 1
    assert kinds.count(nl.NFT_MSG_NEWCHAIN) == len(table.chains)
    names = [
        read_string(dict(attributes(memoryview(m.body)))[nl.NFTA_SET_NAME])
        for m in messages
        if m.kind == nl.NFT_MSG_NEWSET
    ]
    assert names == [declaration.name for declaration in table.sets]
    assert kinds.count(nl.NFT_MSG_NEWSETELEM) == sum(bool(each.constant) for each in table.sets)
    assert all(names for _, names in rules(family, options))


def test_a_rewritten_constant_set_is_emptied_first() -> None:
    table = skeleton(Family.IPV4, NETWORKS, CHAINS)
    kinds = [message.kind for message in writing(table, (), ["pod-cidrs"], ["services"])]
    assert len(kinds) > 4
    assert len(removal(Family.IPV4, "kproxy", ["a"], ["b", "c"])) == 5
    assert table_removal(Family.IPV4, "kproxy").body == string(1, "kproxy")


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"\x0a\0\0\1", b""), (b"\x0a\0\0\1", b"\x0a\0\0\2"), (b"abcd", Verdict("goto lb-3", "a/b")), (b"", Verdict("drop"))],
)  # fmt: skip
def test_an_element_is_read_as_it_was_packed(key: bytes, value: bytes | Verdict) -> None:
    (packed,) = pack_elements({key: value})
    assert read_element(memoryview(packed)[4:]) == (key, value)
    assert read_expiration(memoryview(packed)[4:]) is None


def test_the_expiration_of_an_element_is_in_seconds() -> None:
    assert read_expiration(memoryview(attribute(5, struct.pack(">Q", 2500)))) == 2


@pytest.mark.parametrize("family", Family)
def test_the_table_that_starts_a_trace(family: Family) -> None:
    address = bytes([1] * family.width)
    table = trace_table(Flow(address, address, Protocol.TCP, 80), "kproxy-trace-1")
    (text,) = {str(rule) for chain in table.chains for rule in chain.rules}
    assert text.endswith("meta l4proto tcp th dport 80 meta nftrace set 1")
    assert len(whole_table(table)) == 1 + 2 + 2 + 2  # the table; the chains, which are emptied; the rules
    ping = trace_table(Flow(address, address, None), "t").chains[0].rules[0]
    assert "icmp" in str(ping)


def test_a_trace_message() -> None:
    header = bytes([0x45, *[0] * 11, *(10, 0, 0, 1), *(10, 0, 0, 2)])
    body = string(nl.NFTA_TRACE_TABLE, "kproxy") + string(nl.NFTA_TRACE_CHAIN, "lb-2")
    matched = (
        body
        + be32(nl.NFTA_TRACE_TYPE, nl.NFT_TRACETYPE_RULE)
        + attribute(nl.NFTA_TRACE_RULE_HANDLE, struct.pack(">Q", 7))
        + nested(
            nl.NFTA_TRACE_VERDICT,
            be32(nl.NFTA_VERDICT_CODE, nl.NFT_GOTO),
            string(nl.NFTA_VERDICT_CHAIN, "x"),
        )
        + attribute(nl.NFTA_TRACE_NETWORK_HEADER, header)
        + attribute(nl.NFTA_TRACE_TRANSPORT_HEADER, struct.pack(">HHI", 4000, 80, 0))
        + be32(nl.NFTA_TRACE_OIF, 3)
    )
    found = read_trace(memoryview(matched))
    assert (found.table, found.chain, found.handle, found.verdict) == ("kproxy", "lb-2", 7, "goto x")
    assert (found.source, found.destination) == (b"\x0a\0\0\1", b"\x0a\0\0\2")
    assert (found.ports, found.interface) == ((4000, 80), 3)
    # The end of a chain, without headers, which come from the message before.
    end = read_trace(memoryview(body + be32(nl.NFTA_TRACE_TYPE, 1) + be32(nl.NFTA_TRACE_POLICY, 1)))
    assert (end.handle, end.verdict, end.source) == (None, "accept", b"")
    assert end.completed(found).destination == found.destination
    returned = matched.replace(struct.pack(">Q", 7), struct.pack(">Q", 0))
    assert read_trace(memoryview(returned)).handle is None
    assert found.completed(end) == found
    assert nested(1) == attribute(1 | 0x8000, b"")

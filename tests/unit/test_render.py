"""Rendering as nft text: elements, tables and repairs. tests/golden has complete scripts."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from ipaddress import ip_network

import pytest

from kproxy.model import Balance, Family, Protocol, parse_address
from kproxy.nft.elements import Field, Value, Verdict
from kproxy.nft.render import (
    render_element,
    render_replacement,
)
from kproxy.nft.rules import Conclusion, rule
from kproxy.nft.ruleset import Chain, Hook, SetDeclaration, Skeleton
from kproxy.table.layout import (
    EndpointScope,
    SetName,
    SlotChain,
    frontend_key,
    frontend_socket,
    pack_socket,
    range_key,
)
from kproxy.table.skeleton import EQUAL_BYTES, NO_NUMBERED_CHAINS, NumberedChains, Options, skeleton
from tests.keys import slot_key

V4, V6 = parse_address("10.96.0.9"), parse_address("fd00::9")
KEY, KEY6 = frontend_key(V4, Protocol.TCP, 80), frontend_key(V6, Protocol.UDP, 53)
STICKY = NumberedChains(frozenset({SlotChain(EndpointScope.ALL, Balance.STICKY, 2)}), frozenset({60}))


@pytest.mark.parametrize(
    ("set_name", "key", "value", "text"),
    [
        (SetName.CLUSTER_IPS, V4, b"", "10.96.0.9"),
        (SetName.CLUSTER_IPS, V6, b"", "fd00::9"),
        (SetName.EQUAL_BYTES, EQUAL_BYTES[17], b"", "17 . 17"),
        (SetName.SERVICES, KEY, Verdict("goto lb-3"), "10.96.0.9 . tcp . 80 : goto lb-3"),
        (SetName.SERVICES, KEY6, Verdict("goto lb-3", "a/b"), 'fd00::9 . udp . 53 comment "a/b" : goto lb-3'),
        (SetName.SERVICES_FROM_OUTSIDE, KEY, Verdict("goto outside-lb-3"), "10.96.0.9 . tcp . 80 : goto outside-lb-3"),
        (SetName.ENDPOINTS_TCP, slot_key(frontend_socket(KEY), 2), pack_socket(V4, 8080), "10.96.0.9 . 80 . 2 : 10.96.0.9 . 8080"),
        (SetName.SOURCE_RESTRICTED, KEY, b"", "10.96.0.9 . tcp . 80"),
        (SetName.SOURCE_RANGES, range_key(KEY, parse_address("10.0.0.0"), parse_address("10.0.0.255")), b"", "10.96.0.9 . tcp . 80 . 10.0.0.0-10.0.0.255"),
        (SetName.SOURCE_RANGES, range_key(KEY6, V6, V6), b"", "fd00::9 . udp . 53 . fd00::9"),
    ],
)  # fmt: skip
def test_an_element(set_name: SetName, key: bytes, value: Value, text: str) -> None:
    family = Family.IPV6 if V6 in key else Family.IPV4
    assert (
        render_element(skeleton(family, Options(), NO_NUMBERED_CHAINS).set(set_name), family, key, value)
        == text
    )


TINY = Skeleton(
    Family.IPV4,
    "mine",
    (
        SetDeclaration(
            "pods", "where", (Field.ADDRESS,), intervals=True, constant=(ip_network("10.0.0.0/8"),)
        ),
        SetDeclaration("ips", "which", (Field.ADDRESS,)),
        SetDeclaration("to", "what", (Field.ADDRESS,), is_map=True),
    ),
    (
        Chain("a", (rule(Conclusion("accept")),), "first", Hook("input", 1)),
        Chain("b", (rule(Conclusion("drop")), rule(Conclusion("accept"), comment="all")), "then"),
    ),
)


def test_a_replacement_is_a_whole_table() -> None:
    assert render_replacement(TINY, {}) == (
        "add table ip mine\ndelete table ip mine\n"
        "table ip mine {\n"
        "\t# where\n\tset pods {\n\t\ttype ipv4_addr\n\t\tflags interval\n"
        "\t\telements = {\n\t\t\t10.0.0.0/8,\n\t\t}\n\t}\n\n"
        "\t# which\n\tset ips {\n\t\ttype ipv4_addr\n\t}\n\n"
        "\t# what\n\tmap to {\n\t\ttype ipv4_addr : verdict\n\t}\n\n"
        "\t# first\n\tchain a {\n\t\ttype nat hook input priority 1; policy accept;\n\t\taccept\n\t}\n\n"
        '\t# then\n\tchain b {\n\t\tdrop\n\t\taccept comment "all"\n\t}\n'
        "}\n"
    )


def test_stateless_affinity_uses_no_entries() -> None:
    options = Options(stateless_ipv6_affinity=True)
    chains = {chain.name: chain.rules for chain in skeleton(Family.IPV6, options, STICKY).chains}
    assert "jhash ip6 saddr mod 2 " in str(chains["sticky-2"][0])
    assert "affinity" not in str(chains["sticky-2"])
    assert skeleton(Family.IPV4, options, STICKY) == skeleton(Family.IPV4, Options(), STICKY)


def test_a_set_that_is_not_declared() -> None:
    with pytest.raises(KeyError):
        TINY.set("nothing")

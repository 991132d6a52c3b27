"""The socket to netfilter remains usable after any answer, and names the refused elements."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.core.codec import BatchMessage, nested, string
from kproxy.kernel.netlink.core.constants import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSETELEM,
    NFTA_EXPR_NAME,
    NFTA_LIST_ELEM,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE,
    NLM_F_APPEND,
    NLM_F_CREATE,
)
from kproxy.kernel.netlink.core.elements import element_messages
from kproxy.kernel.netlink.core.structure import table_removal, whole_table
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Balance, Family, Protocol
from kproxy.nft.elements import Field, Value, Verdict
from kproxy.nft.ruleset import SetDeclaration
from kproxy.table.layout import (
    TABLE,
    EndpointScope,
    FrontendKey,
    SetName,
    SlotChain,
    frontend_key,
    frontend_socket,
    pack_socket,
    range_key,
)
from kproxy.table.skeleton import INTERVAL_KEYS, NumberedChains, Options, skeleton
from tests.keys import slot_key

pytestmark = pytest.mark.lab

CHAINS = NumberedChains(frozenset({SlotChain(EndpointScope.ALL, Balance.RANDOM, 1)}), frozenset({60}))
SMALL = SetDeclaration("small", "a set of at most two elements", (Field.ADDRESS,), size=2)
SERVED = Verdict("goto lb-1", "default/web:http")
UNSERVED = Verdict("goto lb-9", "default/web:http")
"""This chain does not exist."""


def test_a_large_transaction_in_which_every_message_is_refused() -> None:
    """If another program removed the table, the kernel answers each message."""

    def refused() -> tuple[int | None, int]:
        members = {number.to_bytes(12, "big"): Verdict("goto lb-3", "a/b") for number in range(700)}
        (one,) = element_messages(NFT_MSG_NEWSETELEM, Family.IPV4, SetName.SERVICES, members)
        with Netlink() as netlink:
            try:
                netlink.commit([one] * 300)  # 15 MB; the socket's buffer has room for 8
            except NetlinkError as error:
                return error.errno, netlink.generation()
        raise AssertionError("the kernel accepted it")

    assert in_fresh_namespace(refused) == (errno.ENOENT, 1)


def test_more_answers_than_the_buffer_holds() -> None:
    """The first answers name elements, and the others are lost. The next transaction is still accepted."""

    def refused() -> tuple[int | None, list[bytes], int]:
        keys = [number.to_bytes(4, "big") for number in range(500)]
        with Netlink() as netlink:
            netlink.commit(whole_table(skeleton(Family.IPV4, Options(), CHAINS)))
            netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            with pytest.raises(NetlinkError) as caught:
                netlink.commit(removal for key in keys for removal in remove(SetName.CLUSTER_IPS, key))
            named = [refusal.key for refusal in caught.value.refusals]
            assert named == keys[: len(named)]
            return caught.value.errno, named, netlink.commit(add(SetName.CLUSTER_IPS, {keys[0]: b""}))

    number, named, size = in_fresh_namespace(refused)
    assert number == errno.ENOENT
    assert 10 < len(named) < 400
    assert size


class Refused(NamedTuple):
    """The content of the table, the messages to send, and the elements that the kernel refuses."""

    before: Iterable[BatchMessage]
    sent: Iterable[BatchMessage]
    errno: int
    named: list[tuple[str, bytes]]
    """Set (for a rule: chain) and key; b"" if only the set is known."""


def add(name: str, members: dict[bytes, Value], family: Family = Family.IPV4) -> Iterable[BatchMessage]:
    return element_messages(NFT_MSG_NEWSETELEM, family, name, members, name in INTERVAL_KEYS)


def remove(name: str, *keys: bytes, family: Family = Family.IPV4) -> Iterable[BatchMessage]:
    members: dict[bytes, Value] = dict.fromkeys(keys, b"")
    return element_messages(NFT_MSG_DELSETELEM, family, name, members, name in INTERVAL_KEYS)


class Table:
    """Keys and messages of one family."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.add = partial(add, family=family)
        self.remove = partial(remove, family=family)
        self.a, self.b, self.c = (self.frontend(last) for last in (1, 2, 3))

    def address(self, last: int) -> bytes:
        return bytes([10, *[0] * (self.family.width - 2), last])

    def frontend(self, last: int) -> FrontendKey:
        return frontend_key(self.address(last), Protocol.TCP, 80)

    def slot(self, last: int) -> bytes:
        return slot_key(frontend_socket(self.frontend(last)), 0)

    def endpoint(self, last: int) -> bytes:
        return pack_socket(self.address(last), 8080)

    def range(self, last: int, begin: int, end: int) -> bytes:
        return range_key(self.frontend(last), self.address(begin), self.address(end))

    def rule(self, chain: str, expression: str) -> BatchMessage:
        """Return a rule with one expression, without attributes."""
        packed = nested(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, expression))
        body = string(NFTA_RULE_TABLE, TABLE) + string(NFTA_RULE_CHAIN, chain)
        body += nested(NFTA_RULE_EXPRESSIONS, packed)
        return BatchMessage(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, self.family, body)


REFUSED: dict[str, Callable[[Table], Refused]] = {
    "a verdict to a missing chain": lambda t: Refused(
        [],
        t.add(SetName.SERVICES, {t.a: SERVED, t.b: UNSERVED, t.c: SERVED}),
        errno.ENOENT,
        [(SetName.SERVICES, t.b)],
    ),
    "a key with another verdict": lambda t: Refused(
        t.add(SetName.SERVICES, {t.b: SERVED}),
        t.add(SetName.SERVICES, {t.a: SERVED, t.b: Verdict("goto no-endpoints")}),
        errno.EEXIST,
        [(SetName.SERVICES, t.b)],
    ),
    "a key with another value": lambda t: Refused(
        t.add(SetName.ENDPOINTS_TCP, {t.slot(1): t.endpoint(1)}),
        t.add(SetName.ENDPOINTS_TCP, {t.slot(2): t.endpoint(2), t.slot(1): t.endpoint(2)}),
        errno.EEXIST,
        [(SetName.ENDPOINTS_TCP, t.slot(1))],
    ),
    "a range that overlaps": lambda t: Refused(
        t.add(SetName.SOURCE_RANGES, {t.range(1, 64, 127): b""}),
        t.add(SetName.SOURCE_RANGES, {t.range(2, 64, 127): b"", t.range(1, 100, 200): b""}),
        errno.EEXIST,
        [(SetName.SOURCE_RANGES, t.range(1, 100, 200))],
    ),
    "removal of a missing element": lambda t: Refused(
        t.add(SetName.SERVICES, {t.a: SERVED}),
        t.remove(SetName.SERVICES, t.a, t.b),
        errno.ENOENT,
        [(SetName.SERVICES, t.b)],
    ),
    "removal of a missing range": lambda t: Refused(
        t.add(SetName.SOURCE_RANGES, {t.range(1, 64, 127): b""}),
        t.remove(SetName.SOURCE_RANGES, t.range(1, 64, 127), t.range(1, 1, 2)),
        errno.ENOENT,
        [(SetName.SOURCE_RANGES, t.range(1, 1, 2))],
    ),
    "a full set": lambda t: Refused(
        t.add("small", {t.address(1): b""}),
        t.add("small", {t.address(2): b"", t.address(3): b""}),
        errno.ENFILE,
        [("small", t.address(3))],
    ),
    "a value of another length": lambda t: Refused(
        [],
        t.add(SetName.ENDPOINTS_TCP, {t.slot(1): t.endpoint(1), t.slot(2): t.endpoint(2)[:-4]}),
        errno.EINVAL,
        [(SetName.ENDPOINTS_TCP, t.slot(2))],
    ),
    "no value": lambda t: Refused(
        [],
        t.add(SetName.ENDPOINTS_TCP, {t.slot(1): t.endpoint(1), t.slot(2): b""}),
        errno.EINVAL,
        [(SetName.ENDPOINTS_TCP, t.slot(2))],
    ),
    "a value in a set": lambda t: Refused(
        [],
        t.add(SetName.CLUSTER_IPS, {t.address(1): b"", t.address(2): t.address(2)}),
        errno.EINVAL,
        [(SetName.CLUSTER_IPS, t.address(2))],
    ),
    "a key of another length": lambda t: Refused(
        [],
        t.add(SetName.CLUSTER_IPS, {t.address(1): b"", t.a: b""}),
        errno.EINVAL,
        [(SetName.CLUSTER_IPS, t.a)],
    ),
    "a loop of chains: only the map is known": lambda t: Refused(
        [], t.add(SetName.SERVICES, {t.a: Verdict("goto services")}), errno.EMLINK, [(SetName.SERVICES, b"")]
    ),
    "a missing set": lambda t: Refused([], t.add("nothing", {t.a: b""}), errno.ENOENT, [("nothing", b"")]),
    "a rule of an unknown expression": lambda t: Refused(
        [], [t.rule("remember-60", "nonsense")], errno.ENOENT, [("remember-60", b"")]
    ),
    "a rule in a missing chain": lambda t: Refused(
        [], [t.rule("remember-61", "counter")], errno.ENOENT, [("remember-61", b"")]
    ),
    "several messages": lambda t: Refused(
        [],
        [
            *t.add(SetName.SERVICES, {t.a: SERVED, t.b: UNSERVED}),
            *t.add(SetName.CLUSTER_IPS, {t.address(1): b""}),
            *t.add(SetName.MASQUERADE_RULES, {t.c: UNSERVED}),
            t.rule("remember-60", "nonsense"),
            *t.add(SetName.SERVICES, {t.c: UNSERVED}),
        ],
        errno.ENOENT,
        [
            (SetName.SERVICES, t.b),
            (SetName.MASQUERADE_RULES, t.c),
            ("remember-60", b""),
            (SetName.SERVICES, t.c),
        ],
    ),
    "an addition that follows from a removal": lambda t: Refused(
        t.add(SetName.SERVICES, {t.b: SERVED}),
        [
            *t.remove(SetName.SERVICES, t.a, t.b),
            *t.add(SetName.SERVICES, {t.b: Verdict("goto no-endpoints")}),
        ],
        errno.ENOENT,
        [(SetName.SERVICES, t.a)],
    ),
}


@pytest.mark.parametrize("family", Family)
def test_a_refusal_names_the_elements(family: Family) -> None:
    table = Table(family)
    rows = {about: make(table) for about, make in REFUSED.items()}

    def outcomes() -> dict[str, tuple[int | None, list[tuple[str, bytes]]]]:
        with Netlink() as netlink:
            return {about: outcome(netlink, family, row) for about, row in rows.items()}

    expected = {about: (row.errno, row.named) for about, row in rows.items()}
    assert in_fresh_namespace(outcomes) == expected


def outcome(netlink: Netlink, family: Family, row: Refused) -> tuple[int | None, list[tuple[str, bytes]]]:
    """Return errno and the named elements. Uses a new table."""
    table = skeleton(family, Options(), CHAINS)
    netlink.commit(whole_table(replace(table, sets=(*table.sets, SMALL))))
    try:
        netlink.commit(row.before)
        with pytest.raises(NetlinkError) as caught:
            netlink.commit(row.sent)
        return caught.value.errno, [(refusal.name, refusal.key) for refusal in caught.value.refusals]
    finally:
        netlink.commit([table_removal(family, TABLE)])

"""The fake table against the kernel: the same stories, the same outcome."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import pytest

from kproxy.kernel.netlink.core.batch import BatchMessage
from kproxy.kernel.netlink.core.codec import string
from kproxy.kernel.netlink.core.constants import NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.kernel.structure import load_skeleton
from kproxy.model import Balance, Family, Protocol
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.transaction import Transaction
from kproxy.problems import TransactionError
from kproxy.reconcile.dataplane import transaction_messages
from kproxy.table.keys import FrontendKey, frontend_key, frontend_socket, pack_socket, range_key
from kproxy.table.layout import EndpointScope, FrontendSide, SlotChain
from kproxy.table.names import TABLE, SetName
from kproxy.table.skeleton import NumberedChains, Options, skeleton
from tests.fake_table import EBUSY, EEXIST, EINVAL, ENOENT, FakeTable
from tests.keys import affinity_key, slot
from tests.unit.namespace import in_fresh_namespace

SPREADS = (
    SlotChain(EndpointScope.ALL, Balance.RANDOM, 2),
    SlotChain(EndpointScope.ALL, Balance.STICKY, 1),
    SlotChain(EndpointScope.LOCAL, Balance.STICKY, 1),
    SlotChain(EndpointScope.LOCAL, Balance.CLIENT, 2),
)
SHAPES = NumberedChains(frozenset(SPREADS), frozenset({60}))
NFT_MSG_DELCHAIN = 5  # libnftables does that for kproxy


class Names(NamedTuple):
    """Keys and values of one family: a, b, c are three frontends, addresses, endpoints."""

    family: Family

    def address(self, which: str) -> bytes:
        return bytes([10, *[0] * (self.family.width - 2), ord(which)])

    def key(self, which: str) -> FrontendKey:
        return frontend_key(self.address(which), Protocol.TCP, 80)

    def slot(self, which: str, number: int, scope: EndpointScope = EndpointScope.ALL) -> bytes:
        return slot(FrontendSide(scope, self.key(which)), number)

    def range(self, which: str, first: int, last: int) -> bytes:
        low = self.address("x")[:-1]
        return range_key(self.key(which), low + bytes([first]), low + bytes([last]))

    def endpoint(self, which: str) -> bytes:
        return pack_socket(self.address(which), 8080)

    def client(self, which: str) -> bytes:
        return affinity_key(self.address("x"), frontend_socket(self.key(which)))


Change: TypeAlias = tuple[str, bytes, Value]
Step: TypeAlias = Transaction | str
"""A transaction, or the name of a chain to delete."""


def lets(
    *add: Change, remove: tuple[tuple[str, bytes], ...] = (), forget: tuple[tuple[str, bytes], ...] = ()
) -> Transaction:
    transaction = Transaction()
    for set_name, key, value in add:
        transaction.add[set_name][key] = value
    for set_name, key in remove:
        transaction.remove[set_name][key] = b""
    for set_name, key in forget:
        transaction.forget[set_name].append(key)
    return transaction


TO_1, TO_2 = Verdict("goto lb-1", "default/web"), Verdict("goto lb-2", "default/web")
SERVICES, SLOTS, IPS = SetName.SERVICES, SetName.ENDPOINTS_TCP, SetName.CLUSTER_IPS
CLIENTS, LOCAL = SetName.AFFINITY_TCP, SetName.SERVICES_FROM_OUTSIDE
RESTRICTED, RANGES = SetName.SOURCE_RESTRICTED, SetName.SOURCE_RANGES
TO_OUTSIDE = Verdict("goto outside-sticky-1", "default/web")

# What is done, step by step, and the errno of each step.
STORIES: dict[str, Callable[[Names], list[tuple[Step, int]]]] = {
    "elements come and go": lambda n: [
        (lets((SERVICES, n.key("a"), TO_1), (SLOTS, n.slot("a", 0), n.endpoint("b"))), 0),
        (lets(remove=((SERVICES, n.key("a")), (SLOTS, n.slot("a", 0)))), 0),
    ],
    "an equal element again": lambda n: [
        (lets((IPS, n.address("a"), b""), (SLOTS, n.slot("a", 0), n.endpoint("b"))), 0),
        (lets((IPS, n.address("a"), b""), (SLOTS, n.slot("a", 0), n.endpoint("b"))), 0),
    ],
    "a comment does not make another element": lambda n: [
        (lets((SERVICES, n.key("a"), TO_1)), 0),
        (lets((SERVICES, n.key("a"), TO_1._replace(comment="other"))), 0),
    ],
    "another verdict": lambda n: [
        (lets((SERVICES, n.key("a"), TO_1)), 0),
        (lets((SERVICES, n.key("a"), TO_2)), EEXIST),
    ],
    "another endpoint": lambda n: [
        (lets((SLOTS, n.slot("a", 0), n.endpoint("a"))), 0),
        (lets((SLOTS, n.slot("a", 0), n.endpoint("b"))), EEXIST),
    ],
    "out and in with another value": lambda n: [
        (lets((SERVICES, n.key("a"), TO_1), (SLOTS, n.slot("a", 0), n.endpoint("a"))), 0),
        (
            lets(
                *((SERVICES, n.key("a"), TO_2), (SLOTS, n.slot("a", 0), n.endpoint("b"))),
                remove=((SERVICES, n.key("a")), (SLOTS, n.slot("a", 0))),
            ),
            0,
        ),
    ],
    "out and in with the same value": lambda n: [
        (lets((SERVICES, n.key("a"), TO_1)), 0),
        (lets((SERVICES, n.key("a"), TO_1._replace(comment="new")), remove=((SERVICES, n.key("a")),)), 0),
    ],
    "removing what is not there": lambda n: [(lets(remove=((IPS, n.address("a")),)), ENOENT)],
    "all or nothing": lambda n: [
        (lets((IPS, n.address("a"), b"")), 0),
        (lets((IPS, n.address("b"), b""), remove=((IPS, n.address("a")), (SERVICES, n.key("a")))), ENOENT),
        (lets((IPS, n.address("b"), b""), (SERVICES, n.key("a"), Verdict("goto lb-9"))), ENOENT),
    ],
    "a verdict to no chain": lambda n: [(lets((SERVICES, n.key("a"), Verdict("goto lb-9"))), ENOENT)],
    "no such set": lambda n: [
        (lets(("nothing", n.key("a"), b"")), ENOENT),
        (lets(remove=(("nothing", n.key("a")),)), ENOENT),
        (lets(forget=(("nothing", n.key("a")),)), ENOENT),
    ],
    "a key of another length": lambda n: [
        (lets((IPS, n.key("a"), b"")), EINVAL),
        (lets(remove=((IPS, n.key("a")),)), EINVAL),
    ],
    "values that do not fit": lambda n: [
        (lets((IPS, n.address("a"), n.endpoint("a"))), EINVAL),
        (lets((SLOTS, n.slot("a", 0), b"")), EINVAL),
        (lets((SLOTS, n.slot("a", 0), n.address("a"))), EINVAL),
        (lets((SLOTS, n.slot("a", 0), TO_1)), EINVAL),
        (lets((SERVICES, n.key("a"), b"")), EINVAL),
        (lets((SERVICES, n.key("a"), n.endpoint("a"))), EINVAL),
    ],
    "a chain that elements lead to": lambda n: [
        (lets((SERVICES, n.key("a"), TO_2), (SERVICES, n.key("b"), TO_2)), 0),
        ("lb-2", EBUSY),
        (lets(remove=((SERVICES, n.key("a")),)), 0),
        ("lb-2", EBUSY),
        (lets(remove=((SERVICES, n.key("b")),)), 0),
        ("lb-2", 0),
        ("lb-2", ENOENT),
        (lets((SERVICES, n.key("a"), TO_2)), ENOENT),
    ],
    "a chain that a rule leads to": lambda n: [
        ("lb-1", EBUSY),
        ("sticky-1", 0),
        ("lb-1", 0),
        ("services", EBUSY),
    ],
    "two sides of a frontend": lambda n: [
        (lets((SERVICES, n.key("a"), TO_2), (LOCAL, n.key("a"), TO_OUTSIDE)), 0),
        (lets(*((SLOTS, n.slot("a", 0, scope), n.endpoint("a")) for scope in EndpointScope)), 0),
        (lets((LOCAL, n.key("a"), Verdict("goto outside-lb-2"))), ENOENT),
        (lets((LOCAL, n.key("a"), TO_2)), EEXIST),
        (lets(remove=((SERVICES, n.key("a")), (SLOTS, n.slot("a", 0)))), 0),
        (lets(remove=((SLOTS, n.slot("a", 0)),)), ENOENT),
        (lets(remove=((LOCAL, n.key("a")), (SLOTS, n.slot("a", 0, EndpointScope.LOCAL)))), 0),
    ],
    "a chain that one side leads to": lambda n: [
        (lets((LOCAL, n.key("a"), TO_OUTSIDE)), 0),
        ("outside-sticky-1", EBUSY),
        ("outside-lb-1", EBUSY),
        ("sticky-1", 0),
        (lets(remove=((LOCAL, n.key("a")),)), 0),
        ("outside-sticky-1", 0),
        ("outside-lb-1", 0),
        ("hash-client-2", ENOENT),
        ("outside-hash-client-2", 0),
        ("check-source", EBUSY),
        ("discard", 0),
    ],
    "ranges": lambda n: [
        (lets((RESTRICTED, n.key("a"), b""), (RANGES, n.range("a", 0, 127), b"")), 0),
        (lets((RANGES, n.range("a", 0, 127), b"")), 0),
        (lets((RANGES, n.range("a", 128, 255), b""), (RANGES, n.range("b", 0, 127), b"")), 0),
        (lets(remove=((RANGES, n.range("a", 0, 127)), (RESTRICTED, n.key("a")))), 0),
        (lets(remove=((RANGES, n.range("a", 0, 127)),)), ENOENT),
    ],
    "ranges that overlap: not if the new one has both ends outside": lambda n: [
        (lets((RANGES, n.range("a", 64, 127), b"")), 0),
        (lets((RANGES, n.range("a", 100, 200), b"")), EEXIST),
        (lets((RANGES, n.range("a", 0, 64), b"")), EEXIST),
        (lets((RANGES, n.range("a", 65, 66), b"")), EEXIST),
        (lets((RANGES, n.range("a", 64, 64), b"")), EEXIST),
        (lets((RANGES, n.range("a", 64, 128), b"")), EEXIST),
        (lets((RANGES, n.range("a", 0, 255), b"")), 0),
    ],
    "a range in place of another": lambda n: [
        (lets((RANGES, n.range("a", 64, 127), b"")), 0),
        (lets((RANGES, n.range("a", 64, 255), b""), remove=((RANGES, n.range("a", 64, 127)),)), 0),
        (lets((RANGES, n.range("a", 0, 95), b""), remove=((RANGES, n.range("a", 64, 255)),)), 0),
        (lets((RANGES, n.range("a", 0, 95), b""), remove=((RANGES, n.range("a", 0, 95)),)), 0),
    ],
    "removing a range: its first address says which": lambda n: [
        (lets((RANGES, n.range("a", 64, 127), b"")), 0),
        (lets(remove=((RANGES, n.range("a", 0, 64)),)), ENOENT),
        (lets(remove=((RANGES, n.range("a", 0, 200)),)), ENOENT),
        (lets(remove=((RANGES, n.range("a", 65, 66)),)), 0),
        (lets(remove=((RANGES, n.range("a", 64, 127)),)), ENOENT),
        (lets((RANGES, n.range("a", 64, 127), b"")), 0),
        (lets(remove=((RANGES, n.range("a", 64, 127)), (RANGES, n.range("b", 64, 127)))), ENOENT),
    ],
    "what is no range": lambda n: [
        (lets((RANGES, n.key("a"), b"")), EINVAL),
        (lets(remove=((RANGES, n.key("a")),)), EINVAL),
    ],
    "packets' elements are forgotten, there or not": lambda n: [
        (lets((CLIENTS, n.client("a"), n.endpoint("a")), (CLIENTS, n.client("b"), n.endpoint("a"))), 0),
        (lets(forget=((CLIENTS, n.client("a")), (CLIENTS, n.client("c")))), 0),
    ],
}

Outcome: TypeAlias = tuple[list[int], Elements]


def table(family: Family) -> Skeleton:
    return skeleton(family, Options(), SHAPES)


def on_fake(family: Family, steps: list[Step]) -> Outcome:
    fake = FakeTable(table(family))
    errors = []
    for step in steps:
        try:
            fake.delete_chain(step) if isinstance(step, str) else fake.commit(step)
            errors.append(0)
        except TransactionError as error:
            errors.append(error.errno)
    return errors, fake.elements


def in_kernel(family: Family, steps: list[Step]) -> Outcome:
    errors = []
    with Netlink() as netlink:
        load_skeleton(netlink, table(family))
        for step in steps:
            if isinstance(step, str):
                body = string(NFTA_CHAIN_TABLE, TABLE) + string(NFTA_CHAIN_NAME, step)
                messages = [BatchMessage(NFT_MSG_DELCHAIN, 0, family, body)]
            else:
                messages = transaction_messages(family, step)
            try:
                netlink.commit(messages)
                errors.append(0)
            except NetlinkError as error:
                errors.append(error.errno or -1)
        names = FakeTable(table(family)).sets
        return errors, {name: held(netlink, family, name) for name in names}


def held(netlink: Netlink, family: Family, name: str) -> dict[bytes, Value]:
    return dict(read_element(element, name == RANGES) for element in netlink.elements(family, name))


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("story", STORIES)
def test_the_fake_refuses_what_the_story_says(story: str, family: Family) -> None:
    steps, expected = zip(*STORIES[story](Names(family)), strict=True)
    assert on_fake(family, list(steps))[0] == list(expected)


@pytest.mark.lab
@pytest.mark.parametrize("family", Family)
def test_the_kernel_and_the_fake_agree(family: Family) -> None:
    stories = {story: [step for step, _ in tell(Names(family))] for story, tell in STORIES.items()}
    for story, steps in stories.items():
        assert in_fresh_namespace(partial(in_kernel, family, steps)) == on_fake(family, steps), story


def test_an_error_says_what_was_refused() -> None:
    n = Names(Family.IPV4)
    with pytest.raises(TransactionError, match="no chain lb-9"):
        FakeTable(table(Family.IPV4)).commit(lets((SERVICES, n.key("a"), Verdict("goto lb-9"))))


def test_a_refusal_is_no_commit() -> None:
    n, fake = Names(Family.IPV4), FakeTable(table(Family.IPV4))
    fake.commit(lets((IPS, n.address("a"), b"")))
    with pytest.raises(TransactionError):
        fake.commit(lets(remove=((IPS, n.address("b")),)))
    assert fake.commits == 1

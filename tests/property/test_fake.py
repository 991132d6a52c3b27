"""The fake table and the kernel have the same outcome for the same stories."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.core.structure import removal, whole_table
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Balance, Family, Protocol
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.transaction import Transaction
from kproxy.problems import TransactionError
from kproxy.reconcile.dataplane import transaction_messages
from kproxy.table.layout import (
    TABLE,
    EndpointScope,
    FrontendKey,
    FrontendSide,
    SetName,
    SlotChain,
    affinity_key,
    frontend_key,
    frontend_socket,
    pack_socket,
    range_key,
)
from kproxy.table.skeleton import NumberedChains, Options, skeleton
from tests.fake_table import EBUSY, EEXIST, EINVAL, ENOENT, FakeTable
from tests.keys import slot

SLOT_CHAINS = (
    SlotChain(EndpointScope.ALL, Balance.RANDOM, 2),
    SlotChain(EndpointScope.ALL, Balance.STICKY, 1),
    SlotChain(EndpointScope.LOCAL, Balance.STICKY, 1),
    SlotChain(EndpointScope.LOCAL, Balance.CLIENT, 2),
)
CHAINS = NumberedChains(frozenset(SLOT_CHAINS), frozenset({60}))


class Names(NamedTuple):
    """Keys and values of one family. The letters a, b, c name frontends, addresses and endpoints."""

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


def change(
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

# The steps of each story, and the errno of each step.
STORIES: dict[str, Callable[[Names], list[tuple[Step, int]]]] = {
    "elements are added and removed": lambda n: [
        (change((SERVICES, n.key("a"), TO_1), (SLOTS, n.slot("a", 0), n.endpoint("b"))), 0),
        (change(remove=((SERVICES, n.key("a")), (SLOTS, n.slot("a", 0)))), 0),
    ],
    "an equal element again": lambda n: [
        (change((IPS, n.address("a"), b""), (SLOTS, n.slot("a", 0), n.endpoint("b"))), 0),
        (change((IPS, n.address("a"), b""), (SLOTS, n.slot("a", 0), n.endpoint("b"))), 0),
    ],
    "an equal element with another comment": lambda n: [
        (change((SERVICES, n.key("a"), TO_1)), 0),
        (change((SERVICES, n.key("a"), TO_1._replace(comment="other"))), 0),
    ],
    "another verdict": lambda n: [
        (change((SERVICES, n.key("a"), TO_1)), 0),
        (change((SERVICES, n.key("a"), TO_2)), EEXIST),
    ],
    "another endpoint": lambda n: [
        (change((SLOTS, n.slot("a", 0), n.endpoint("a"))), 0),
        (change((SLOTS, n.slot("a", 0), n.endpoint("b"))), EEXIST),
    ],
    "removed and added with another value": lambda n: [
        (change((SERVICES, n.key("a"), TO_1), (SLOTS, n.slot("a", 0), n.endpoint("a"))), 0),
        (
            change(
                *((SERVICES, n.key("a"), TO_2), (SLOTS, n.slot("a", 0), n.endpoint("b"))),
                remove=((SERVICES, n.key("a")), (SLOTS, n.slot("a", 0))),
            ),
            0,
        ),
    ],
    "removed and added with the same value": lambda n: [
        (change((SERVICES, n.key("a"), TO_1)), 0),
        (change((SERVICES, n.key("a"), TO_1._replace(comment="new")), remove=((SERVICES, n.key("a")),)), 0),
    ],
    "removing a missing element": lambda n: [(change(remove=((IPS, n.address("a")),)), ENOENT)],
    "all or nothing": lambda n: [
        (change((IPS, n.address("a"), b"")), 0),
        (change((IPS, n.address("b"), b""), remove=((IPS, n.address("a")), (SERVICES, n.key("a")))), ENOENT),
        (change((IPS, n.address("b"), b""), (SERVICES, n.key("a"), Verdict("goto lb-9"))), ENOENT),
    ],
    "a verdict to a missing chain": lambda n: [
        (change((SERVICES, n.key("a"), Verdict("goto lb-9"))), ENOENT)
    ],
    "a missing set": lambda n: [
        (change(("nothing", n.key("a"), b"")), ENOENT),
        (change(remove=(("nothing", n.key("a")),)), ENOENT),
        (change(forget=(("nothing", n.key("a")),)), ENOENT),
    ],
    "a key of another length": lambda n: [
        (change((IPS, n.key("a"), b"")), EINVAL),
        (change(remove=((IPS, n.key("a")),)), EINVAL),
    ],
    "values that do not fit": lambda n: [
        (change((IPS, n.address("a"), n.endpoint("a"))), EINVAL),
        (change((SLOTS, n.slot("a", 0), b"")), EINVAL),
        (change((SLOTS, n.slot("a", 0), n.address("a"))), EINVAL),
        (change((SLOTS, n.slot("a", 0), TO_1)), EINVAL),
        (change((SERVICES, n.key("a"), b"")), EINVAL),
        (change((SERVICES, n.key("a"), n.endpoint("a"))), EINVAL),
    ],
    "a chain that elements lead to": lambda n: [
        (change((SERVICES, n.key("a"), TO_2), (SERVICES, n.key("b"), TO_2)), 0),
        ("lb-2", EBUSY),
        (change(remove=((SERVICES, n.key("a")),)), 0),
        ("lb-2", EBUSY),
        (change(remove=((SERVICES, n.key("b")),)), 0),
        ("lb-2", 0),
        ("lb-2", ENOENT),
        (change((SERVICES, n.key("a"), TO_2)), ENOENT),
    ],
    "a chain that a rule leads to": lambda n: [
        ("lb-1", EBUSY),
        ("sticky-1", 0),
        ("lb-1", 0),
        ("services", EBUSY),
    ],
    "two sides of a frontend": lambda n: [
        (change((SERVICES, n.key("a"), TO_2), (LOCAL, n.key("a"), TO_OUTSIDE)), 0),
        (change(*((SLOTS, n.slot("a", 0, scope), n.endpoint("a")) for scope in EndpointScope)), 0),
        (change((LOCAL, n.key("a"), Verdict("goto outside-lb-2"))), ENOENT),
        (change((LOCAL, n.key("a"), TO_2)), EEXIST),
        (change(remove=((SERVICES, n.key("a")), (SLOTS, n.slot("a", 0)))), 0),
        (change(remove=((SLOTS, n.slot("a", 0)),)), ENOENT),
        (change(remove=((LOCAL, n.key("a")), (SLOTS, n.slot("a", 0, EndpointScope.LOCAL)))), 0),
    ],
    "a chain that one side leads to": lambda n: [
        (change((LOCAL, n.key("a"), TO_OUTSIDE)), 0),
        ("outside-sticky-1", EBUSY),
        ("outside-lb-1", EBUSY),
        ("sticky-1", 0),
        (change(remove=((LOCAL, n.key("a")),)), 0),
        ("outside-sticky-1", 0),
        ("outside-lb-1", 0),
        ("hash-client-2", ENOENT),
        ("outside-hash-client-2", 0),
        ("check-source", EBUSY),
        ("discard", 0),
    ],
    "ranges": lambda n: [
        (change((RESTRICTED, n.key("a"), b""), (RANGES, n.range("a", 0, 127), b"")), 0),
        (change((RANGES, n.range("a", 0, 127), b"")), 0),
        (change((RANGES, n.range("a", 128, 255), b""), (RANGES, n.range("b", 0, 127), b"")), 0),
        (change(remove=((RANGES, n.range("a", 0, 127)), (RESTRICTED, n.key("a")))), 0),
        (change(remove=((RANGES, n.range("a", 0, 127)),)), ENOENT),
    ],
    "ranges that overlap are refused, except one that encloses another": lambda n: [
        (change((RANGES, n.range("a", 64, 127), b"")), 0),
        (change((RANGES, n.range("a", 100, 200), b"")), EEXIST),
        (change((RANGES, n.range("a", 0, 64), b"")), EEXIST),
        (change((RANGES, n.range("a", 65, 66), b"")), EEXIST),
        (change((RANGES, n.range("a", 64, 64), b"")), EEXIST),
        (change((RANGES, n.range("a", 64, 128), b"")), EEXIST),
        (change((RANGES, n.range("a", 0, 255), b"")), 0),
    ],
    "a range in place of another": lambda n: [
        (change((RANGES, n.range("a", 64, 127), b"")), 0),
        (change((RANGES, n.range("a", 64, 255), b""), remove=((RANGES, n.range("a", 64, 127)),)), 0),
        (change((RANGES, n.range("a", 0, 95), b""), remove=((RANGES, n.range("a", 64, 255)),)), 0),
        (change((RANGES, n.range("a", 0, 95), b""), remove=((RANGES, n.range("a", 0, 95)),)), 0),
    ],
    "removing a range: its first address identifies it": lambda n: [
        (change((RANGES, n.range("a", 64, 127), b"")), 0),
        (change(remove=((RANGES, n.range("a", 0, 64)),)), ENOENT),
        (change(remove=((RANGES, n.range("a", 0, 200)),)), ENOENT),
        (change(remove=((RANGES, n.range("a", 65, 66)),)), 0),
        (change(remove=((RANGES, n.range("a", 64, 127)),)), ENOENT),
        (change((RANGES, n.range("a", 64, 127), b"")), 0),
        (change(remove=((RANGES, n.range("a", 64, 127)), (RANGES, n.range("b", 64, 127)))), ENOENT),
    ],
    "keys that are not ranges": lambda n: [
        (change((RANGES, n.key("a"), b"")), EINVAL),
        (change(remove=((RANGES, n.key("a")),)), EINVAL),
    ],
    "forgetting elements that exist or not": lambda n: [
        (change((CLIENTS, n.client("a"), n.endpoint("a")), (CLIENTS, n.client("b"), n.endpoint("a"))), 0),
        (change(forget=((CLIENTS, n.client("a")), (CLIENTS, n.client("c")))), 0),
    ],
}

Outcome: TypeAlias = tuple[list[int], Elements]


def table(family: Family) -> Skeleton:
    return skeleton(family, Options(), CHAINS)


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
        netlink.commit(whole_table(table(family)))
        for step in steps:
            if isinstance(step, str):
                messages = removal(family, TABLE, [], [step])
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
def test_the_fake_refuses_the_expected_steps(story: str, family: Family) -> None:
    steps, expected = zip(*STORIES[story](Names(family)), strict=True)
    assert on_fake(family, list(steps))[0] == list(expected)


@pytest.mark.lab
@pytest.mark.parametrize("family", Family)
def test_the_kernel_and_the_fake_agree(family: Family) -> None:
    stories = {story: [step for step, _ in tell(Names(family))] for story, tell in STORIES.items()}
    for story, steps in stories.items():
        assert in_fresh_namespace(partial(in_kernel, family, steps)) == on_fake(family, steps), story


def test_an_error_names_what_was_refused() -> None:
    n = Names(Family.IPV4)
    with pytest.raises(TransactionError, match="no chain lb-9"):
        FakeTable(table(Family.IPV4)).commit(change((SERVICES, n.key("a"), Verdict("goto lb-9"))))


def test_a_refused_transaction_does_not_count_as_a_commit() -> None:
    n, fake = Names(Family.IPV4), FakeTable(table(Family.IPV4))
    fake.commit(change((IPS, n.address("a"), b"")))
    with pytest.raises(TransactionError):
        fake.commit(change(remove=((IPS, n.address("b")),)))
    assert fake.commits == 1

"""The plan by example: which elements each transaction of a change contains."""

from __future__ import annotations

import sys

import pytest

from kproxy.model import (
    Address,
    Balance,
    FrontendKind,
    NamespacedName,
    Protects,
    Protocol,
    protect_nothing,
)
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.transaction import Transaction
from kproxy.table.compile import Desired
from kproxy.table.layout import (
    AffinityKey,
    EndpointScope,
    PackedSocket,
    SetName,
    affinity_key,
    format_packed,
    pack_socket,
    slot_endpoints,
)
from kproxy.table.plan import FrontendChange, fill_slots, initial_elements, owner_of, plan, stale_affinity
from tests.cases import cases
from tests.keys import slot
from tests.unit.make import desired, everything, frontend, name, socket

AT = "10.96.0.9:80"
SLOTS = SetName.ENDPOINTS_TCP


def ends(text: str) -> list[str]:
    """Return endpoints: `abc` gives three."""
    return [f"10.0.0.{ord(letter)}:80" for letter in text]


def value_text(value: Value) -> str:
    return value.text if isinstance(value, Verdict) else chr(value[3])


def slot_name(key: bytes) -> str:
    """Return `2`, or `o2` for a slot of scope LOCAL."""
    number = int.from_bytes(key[8:], sys.byteorder)
    return f"o{number - EndpointScope.LOCAL.base}" if number >= EndpointScope.LOCAL.base else str(number)


def lines_of(transaction: Transaction) -> list[str]:
    """Return for example `-0 a` (slot 0 with endpoint a is removed) or `+ goto lb-4` (a verdict is added)."""
    lines = []
    for sign, part in (("-", transaction.remove), ("+", transaction.add)):
        for set_name in (*(scope.verdicts for scope in EndpointScope), SLOTS):
            for key, value in sorted(part[set_name].items(), key=lambda item: item[0][::-1]):
                lines.append(f"{sign}{slot_name(key) if set_name == SLOTS else ''} {value_text(value)}")
    return lines


def protect_all(_: NamespacedName) -> bool:
    return True


# Endpoints before and after (None: no frontend): the switch, the sweep.
CHANGES: dict[tuple[str | None, str | None], tuple[list[str], list[str]]] = {
    (None, ""): (["+ goto no-endpoints"], []),
    (None, "ab"): (["+ goto lb-4", "+0 a", "+1 b"], []),
    ("ab", None): (["- goto lb-4"], ["-0 a", "-1 b"]),
    ("ab", "ab"): ([], []),
    ("ab", "ba"): ([], []),
    ("ab", "abc"): (["+2 c"], []),
    ("abc", "ab"): (["-2 c"], []),
    ("abc", "bc"): (["-0 a", "-2 c", "+0 c"], []),
    ("abc", "adc"): (["-1 b", "+1 d"], []),
    ("abc", "d"): (["- goto lb-4", "-0 a", "+ goto lb-1", "+0 d"], ["-1 b", "-2 c"]),
    ("abcd", "abcde"): (["- goto lb-4", "+ goto lb-8", "+4 e"], []),
    ("abcde", "abc"): (["- goto lb-8", "-3 d", "+ goto lb-4", "+3 a"], ["-3 a", "-4 e"]),
    ("abcde", "ade"): (["- goto lb-8", "-1 b", "-2 c", "+ goto lb-4", "+1 d", "+2 e"], ["-3 d", "-4 e"]),
    ("ab", ""): (["- goto lb-4", "+ goto no-endpoints"], ["-0 a", "-1 b"]),
    ("", "a"): (["- goto no-endpoints", "+ goto lb-1", "+0 a"], []),
}


@pytest.mark.parametrize(
    ("before", "after"), CHANGES, ids=lambda state: "-" if state is None else f"{state!r}"
)
def test_a_change(before: str | None, after: str | None) -> None:
    held, wanted = (desired(*([] if s is None else [frontend(AT, ends(s))])) for s in (before, after))
    todo = plan(initial_elements(*held), *wanted)
    assert (lines_of(todo.switch), lines_of(todo.sweep)) == CHANGES[before, after]


# The same for a frontend with two lists, `ALL|LOCAL`; `!`: there are endpoints on other nodes.
TWO_LISTS: dict[tuple[str | None, str | None], tuple[list[str], list[str]]] = {
    (None, "ab|a"): (["+ goto lb-4", "+ goto outside-lb-1", "+0 a", "+1 b", "+o0 a"], []),
    ("ab|a", None): (["- goto lb-4", "- goto outside-lb-1"], ["-0 a", "-1 b", "-o0 a"]),
    ("ab|a", "ab|a"): ([], []),
    ("ab|a", "ab|b"): (["-o0 a", "+o0 b"], []),
    ("ab|a", "ab|ab"): (["- goto outside-lb-1", "+ goto outside-lb-4", "+o1 b"], []),
    ("ab|ab", "ab|b"): (["- goto outside-lb-4", "-o0 a", "+ goto outside-lb-1", "+o0 b"], ["-o1 b"]),
    ("ab|a", "ab|!"): (["- goto outside-lb-1", "+ goto discard"], ["-o0 a"]),
    ("a|!", "|"): (["- goto lb-1", "- goto discard", "+ goto no-endpoints", "+ goto no-endpoints"], ["-0 a"]),
    ("ab|a", "ab"): (["- goto outside-lb-1"], ["-o0 a"]),
    ("ab", "ab|a"): (["+ goto outside-lb-1", "+o0 a"], []),
    ("!", "a"): (["- goto discard", "+ goto lb-1", "+0 a"], []),
    ("", "!"): (["- goto no-endpoints", "+ goto discard"], []),
}  # fmt: skip


def lists(state: str | None) -> Desired:
    if state is None:
        return desired()
    everywhere, two, outside = state.partition("|")
    return desired(
        frontend(
            AT,
            ends(everywhere.strip("!")),
            outside=ends(outside.strip("!")) if two else None,
            kind=FrontendKind.NODE_PORT,
            elsewhere="!" in state,
        )
    )


@pytest.mark.parametrize(
    ("before", "after"), TWO_LISTS, ids=lambda state: "-" if state is None else f"{state!r}"
)
def test_a_change_of_one_of_two_lists(before: str | None, after: str | None) -> None:
    todo = plan(initial_elements(*lists(before)), *lists(after))
    assert (lines_of(todo.switch), lines_of(todo.sweep)) == TWO_LISTS[before, after]


@pytest.mark.parametrize("balance", [Balance.CLIENT, Balance.CLIENT_PORT])
def test_in_a_hash_the_order_of_endpoints_is_exact(balance: Balance) -> None:
    held, wanted = (desired(frontend(AT, ends(text), balance=balance)) for text in ("aabb", "bcab"))
    todo = plan(initial_elements(*held), *wanted)
    assert (lines_of(todo.switch), lines_of(todo.sweep)) == (
        ["-0 a", "-1 a", "-2 b", "+0 b", "+1 c", "+2 a"],
        [],
    )
    assert not plan(initial_elements(*wanted), *wanted)


@pytest.mark.parametrize(
    ("before", "wanted", "switch"),
    [
        ("ab", "cc", []),
        ("ab", "", []),
        ("", "cc", ["- goto no-endpoints", "+ goto hash-client-2", "+0 c", "+1 c"]),
    ],
)
def test_the_hash_of_a_protected_service_stays(before: str, wanted: str, switch: list[str]) -> None:
    """Additional endpoints would move all clients."""
    held, after = (desired(frontend(AT, ends(text), balance=Balance.CLIENT)) for text in (before, wanted))
    todo = plan(initial_elements(*held), *after, protect_all)
    assert (lines_of(todo.switch), lines_of(todo.sweep)) == (switch, [])


def test_source_ranges_are_added_and_removed() -> None:
    restricted = desired(frontend(AT, ends("a"), kind=FrontendKind.LOAD_BALANCER, ranges=["10.0.0.0/8"]))
    open_to_all = desired(frontend(AT, ends("a"), kind=FrontendKind.LOAD_BALANCER))
    for before, after in ((restricted, open_to_all), (open_to_all, restricted)):
        switch = plan(initial_elements(*before), *after).switch
        changed = switch.remove if before is restricted else switch.add
        assert {name: len(members) for name, members in changed.items() if members} == {
            SetName.SOURCE_RESTRICTED: 1,
            SetName.SOURCE_RANGES: 1,
        }


@pytest.mark.parametrize("protected", [protect_nothing, protect_all])
def test_source_ranges_of_a_protected_service_stay(protected: Protects) -> None:
    held = initial_elements(
        *desired(frontend(AT, ends("a"), kind=FrontendKind.LOAD_BALANCER, ranges=["10.0.0.0/8"]))
    )
    gone = plan(held, {}, desired().elements, protected).switch.remove
    assert (
        bool(gone[SetName.SOURCE_RESTRICTED])
        is bool(gone[SetName.SOURCE_RANGES])
        is (protected is protect_nothing)
    )


@cases(
    """
    before  wanted  slots
    -       abc     abc
    abc     cab     abc
    abc     c       c
    abc     ac      ac
    abc     bxc     xbc
    a.c     abc     abc
    ...     ab      ab
    aab     ab      ab
    ab      aab     aba
    """
)
def test_endpoints_stay_in_their_slots(before: str, wanted: str, slots: str) -> None:
    held = [None if letter == "." else PackedSocket(letter.encode()) for letter in before]
    assert b"".join(fill_slots(held, [PackedSocket(letter.encode()) for letter in wanted])).decode() == slots


def test_a_plan_lists_the_changes_of_frontends() -> None:
    held = initial_elements(*desired(frontend(AT, ends("ab"), "a"), frontend("10.96.0.8:80", (), "b")))
    wanted = desired(frontend(AT, ends("ac"), "a"), frontend("10.96.0.7:80", ends("d"), "c"))

    def sockets(values: tuple[PackedSocket, ...] | None) -> list[str] | None:
        return None if values is None else [format_packed(value) for value in values]

    changes = {c.comment: (sockets(c.before), sockets(c.after)) for c in plan(held, *wanted).changes}
    assert changes == {
        "default/a": (ends("ab"), ends("ac")),
        "default/b": ([], None),
        "default/c": (None, ends("d")),
    }


def test_a_change_of_affinity_is_a_change_of_the_verdict() -> None:
    todo = plan(
        initial_elements(*desired(frontend(AT, ends("a")))), *desired(frontend(AT, ends("a"), timeout=60))
    )
    (key,) = todo.switch.add[SetName.SERVICES]
    assert lines_of(todo.switch) == ["- goto lb-1", "+ goto sticky-1"]
    assert todo.switch.add[SetName.AFFINITY_RULES] == {key: Verdict("goto remember-60")}
    assert [type(change) for change in todo.changes] == [FrontendChange]


def test_unused_slots_are_swept_and_missing_ones_are_added() -> None:
    wanted = desired(frontend(AT, ends("ab")))
    held = initial_elements(*wanted)
    (side,) = wanted.specs
    held[SLOTS][slot(side, 7)] = pack_socket(bytes([10, 0, 0, ord("z")]), 80)
    del held[SLOTS][slot(side, 1)]
    todo = plan(held, *wanted)
    assert (lines_of(todo.switch), lines_of(todo.sweep)) == (["+1 b"], ["-7 z"])


@pytest.mark.parametrize("programmed", [False, True])
def test_a_stray_endpoint_is_removed_before_connections_reach_it(programmed: bool) -> None:
    wanted = desired(frontend(AT, ends("ab")))
    held = initial_elements(*(wanted if programmed else desired()))
    (side,) = wanted.specs
    held[SLOTS][slot(side, 3)] = pack_socket(bytes([10, 0, 0, ord("z")]), 80)
    todo = plan(held, *wanted)
    assert "-3 z" in lines_of(todo.switch)
    assert not todo.sweep


@pytest.mark.parametrize("programmed", [False, True])
def test_slots_that_refuse_are_emptied(programmed: bool) -> None:
    wanted = desired(frontend(AT, ends("a"), balance=Balance.SHARES))
    ((side, spec),) = wanted.specs.items()
    wanted = wanted._replace(specs={side: spec._replace(refusing=1)})
    held = initial_elements(*(wanted if programmed else desired()))
    held[SLOTS][slot(side, 1)] = pack_socket(bytes([10, 0, 0, ord("z")]), 80)
    todo = plan(held, *wanted)
    assert "-1 z" in lines_of(todo.switch)
    assert not todo.sweep


@pytest.mark.parametrize("after", [Balance.RANDOM, Balance.STICKY])
@pytest.mark.parametrize("before", [Balance.CLIENT, Balance.SHARES])
def test_no_connection_of_another_balance_reaches_a_removed_endpoint(before: Balance, after: Balance) -> None:
    """The new verdict leads to slots in which the old one must still find an endpoint."""
    held = initial_elements(*desired(frontend(AT, ends("abcd"), balance=before)))
    todo = plan(held, *desired(frontend(AT, ends("ab"), balance=after)))
    assert {"-2 c", "-3 d", "+2 a", "+3 a"} <= {*lines_of(todo.switch)}
    assert lines_of(todo.sweep) == ["-2 a", "-3 a"]


def test_slots_left_by_an_interrupted_round_are_used_again() -> None:
    """The verdict leads to them again, so they must not be swept."""
    held = initial_elements(*desired(frontend(AT, ends("abc"))))
    plan(held, *desired(frontend(AT, ends("a")))).switch.apply_to(held)
    todo = plan(held, *desired(frontend(AT, ends("abc"))))
    assert (lines_of(todo.switch), lines_of(todo.sweep)) == (["- goto lb-1", "+ goto lb-4"], [])


def test_a_protected_service_keeps_its_endpoints() -> None:
    held = initial_elements(*desired(frontend(AT, ends("ab"), "a"), frontend("10.96.0.8:80", ends("x"), "b")))
    wanted = desired(frontend(AT, ends("bc"), "a"))
    todo = plan(held, *wanted, protect_all)
    assert lines_of(todo.switch) == ["+2 c"]
    assert not todo.sweep
    for transaction in todo[:2]:
        transaction.apply_to(held)
    (side,) = wanted.specs
    assert [chr(e[3]) for e in slot_endpoints(held, side, Protocol.TCP) if e] == ["a", "b", "c"]


def test_elements_of_a_service_are_removed_although_another_is_protected() -> None:
    held = initial_elements(
        *desired(frontend(AT, ends("a"), "a", timeout=60), frontend("10.96.0.8:80", ends("x"), "b"))
    )
    todo = plan(held, *desired(frontend(AT, ends("a"), "a")), lambda service: service.name == "b")
    assert todo.switch.remove[SetName.AFFINITY_RULES]


@pytest.mark.parametrize(
    ("comment", "owner"),
    [("default/web", "default/web"), ("a/b:http", "a/b"), ("foreign", "foreign/"), ("", "/")],
)
def test_a_comment_names_the_owner(comment: str, owner: str) -> None:
    assert str(owner_of(comment)) == owner


# --- affinity ---


def client(letter: str) -> Address:
    return bytes([10, 0, 1, ord(letter)])


def clients(text: str) -> list[tuple[AffinityKey, PackedSocket]]:
    """Return the affinity entries of clients and endpoints with the same letters."""
    at = pack_socket(*socket(AT))
    return [
        (affinity_key(client(letter), at), pack_socket(*socket(end)))
        for letter, end in zip(text, ends(text), strict=True)
    ]


@pytest.mark.parametrize(
    ("everywhere", "outside", "timeout", "newly_local", "stale"),
    [
        pytest.param("ab", None, 60, False, "c", id="an endpoint was removed"),
        pytest.param("ab", None, None, False, "abc", id="affinity was disabled"),
        pytest.param("abc", "a", 60, False, "", id="an endpoint in ALL only"),
        pytest.param("bc", "a", 60, False, "", id="an endpoint in LOCAL only"),
        pytest.param("abc", "a", 60, True, "bc", id="policy Local is new"),
        pytest.param("abc", "", 60, True, "abc", id="policy Local is new, no local endpoint"),
        pytest.param("", None, 60, False, "abc", id="no endpoint"),
    ],
)
def test_stale_affinity_entries(
    everywhere: str, outside: str | None, timeout: int | None, newly_local: bool, stale: str
) -> None:
    to_outside = None if outside is None else ends(outside)
    state = desired(frontend(AT, ends(everywhere), timeout=timeout, outside=to_outside))
    keys = {side.key for side in state.specs} if newly_local else set()
    found = stale_affinity(clients("abc"), Protocol.TCP, initial_elements(*state), keys)
    assert found == [key for key, _ in clients(stale)]


@pytest.mark.parametrize(
    ("newly_local", "stale"), [(True, "b"), (False, "")], ids=["newly Local", "unchanged"]
)
def test_pods_keep_their_endpoints_when_a_policy_becomes_local(newly_local: bool, stale: str) -> None:
    """Client c is a pod. Client a has an endpoint on this node."""
    state = desired(frontend(AT, ends("abc"), timeout=60, outside=ends("a")))
    keys = {side.key for side in state.specs} if newly_local else set()
    is_pod = client("c").__eq__
    found = stale_affinity(clients("abc"), Protocol.TCP, initial_elements(*state), keys, is_pod)
    assert found == [key for key, _ in clients(stale)]


def test_affinity_entries_belong_to_one_protocol() -> None:
    state = desired(frontend(AT, ends("abc"), timeout=60))
    assert len(stale_affinity(clients("abc"), Protocol.UDP, initial_elements(*state), set())) == 3


# --- transactions ---


def test_a_transaction_counts_and_applies() -> None:
    transaction = Transaction()
    assert not transaction
    transaction.change("s", b"a", b"1", b"1")
    assert not transaction
    transaction.change("s", b"a", b"1", b"2")
    transaction.change("s", b"b", None, b"3")
    transaction.change("s", b"c", b"4", None)
    elements: Elements = {"s": {b"a": b"1", b"c": b"4"}}
    transaction.apply_to(elements)
    assert (elements, transaction.counts) == ({"s": {b"a": b"2", b"b": b"3"}}, (2, 2))


def test_a_transaction_changes_all_keys() -> None:
    transaction = Transaction()
    transaction.change_all("s", {b"a": b"1"}, {b"b": b"2", b"c": b"3"})
    transaction.change_all("t", {b"a": b"1", b"b": b"2"}, {b"a": b"1", b"b": b"3", b"c": b"4"})
    assert transaction.add == {"s": {b"b": b"2", b"c": b"3"}, "t": {b"b": b"3", b"c": b"4"}}
    assert transaction.remove == {"t": {b"b": b"2"}}


def test_a_transaction_that_only_forgets_is_not_empty() -> None:
    transaction = Transaction()
    transaction.forget[SetName.AFFINITY_TCP] = [b"x"]
    assert transaction


def test_initial_elements_can_be_added_to_an_empty_table() -> None:
    elements = initial_elements(*desired(frontend(AT, ends("ab"), name("a").name)))
    empty: Elements = {set_name: {} for set_name in elements}
    everything(elements).apply_to(empty)
    assert empty == elements

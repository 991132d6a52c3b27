"""The plan by example: what a change costs, and in which transaction it goes."""

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
from kproxy.table.keys import AffinityKey, PackedSocket, format_packed, pack_socket
from kproxy.table.layout import EndpointScope, held_slots
from kproxy.table.names import SetName
from kproxy.table.plan import FrontendChange, fill_empty, fill_slots, owner_of, plan, stale_affinity
from tests.keys import affinity_key, slot
from tests.unit.make import desired, everything, frontend, name, socket

AT = "10.96.0.9:80"
SLOTS = SetName.ENDPOINTS_TCP


def ends(text: str) -> list[str]:
    """`abc`: three endpoints."""
    return [f"10.0.0.{ord(letter)}:80" for letter in text]


def shown(value: Value) -> str:
    return value.text if isinstance(value, Verdict) else chr(value[3])


def slot_name(key: bytes) -> str:
    """`2`, or `o2` for one of those from outside."""
    number = int.from_bytes(key[8:], sys.byteorder)
    return f"o{number - EndpointScope.LOCAL.base}" if number >= EndpointScope.LOCAL.base else str(number)


def told(transaction: Transaction) -> list[str]:
    """`-0 a`: slot 0, which held a, goes; `+ goto lb-2`: a verdict comes."""
    lines = []
    for sign, part in (("-", transaction.remove), ("+", transaction.add)):
        for set_name in (*(scope.verdicts for scope in EndpointScope), SLOTS):
            for key, value in sorted(part[set_name].items(), key=lambda item: item[0][::-1]):
                lines.append(f"{sign}{slot_name(key) if set_name == SLOTS else ''} {shown(value)}")
    return lines


def kept_all(_: NamespacedName) -> bool:
    return True


# before -> after: the switch, the sweep.
CHANGES: dict[tuple[str | None, str | None], tuple[list[str], list[str]]] = {
    (None, ""): (["+ goto no-endpoints"], []),
    (None, "ab"): (["+ goto lb-2", "+0 a", "+1 b"], []),
    ("ab", None): (["- goto lb-2"], ["-0 a", "-1 b"]),
    ("ab", "ab"): ([], []),
    ("ab", "ba"): ([], []),
    ("ab", "abc"): (["- goto lb-2", "+ goto lb-3", "+2 c"], []),
    ("abc", "ab"): (["- goto lb-3", "+ goto lb-2"], ["-2 c"]),
    ("abc", "bc"): (["- goto lb-3", "-0 a", "+ goto lb-2", "+0 c"], ["-2 c"]),
    ("abc", "adc"): (["-1 b", "+1 d"], []),
    ("abc", "d"): (["- goto lb-3", "-0 a", "+ goto lb-1", "+0 d"], ["-1 b", "-2 c"]),
    ("ab", ""): (["- goto lb-2", "+ goto no-endpoints"], ["-0 a", "-1 b"]),
    ("", "a"): (["- goto no-endpoints", "+ goto lb-1", "+0 a"], []),
}


@pytest.mark.parametrize(
    ("before", "after"), CHANGES, ids=lambda state: "-" if state is None else f"{state!r}"
)
def test_a_change(before: str | None, after: str | None) -> None:
    held, wanted = (desired(*([] if s is None else [frontend(AT, ends(s))])) for s in (before, after))
    todo = plan(fill_empty(*held), *wanted)
    assert (told(todo.switch), told(todo.sweep)) == CHANGES[before, after]


# The same for one that has two lists, `all|outside`; `!`: there are some elsewhere.
TWO_LISTS: dict[tuple[str | None, str | None], tuple[list[str], list[str]]] = {
    (None, "ab|a"): (["+ goto lb-2", "+ goto outside-lb-1", "+0 a", "+1 b", "+o0 a"], []),
    ("ab|a", None): (["- goto lb-2", "- goto outside-lb-1"], ["-0 a", "-1 b", "-o0 a"]),
    ("ab|a", "ab|a"): ([], []),
    ("ab|a", "ab|b"): (["-o0 a", "+o0 b"], []),
    ("ab|a", "ab|ab"): (["- goto outside-lb-1", "+ goto outside-lb-2", "+o1 b"], []),
    ("ab|ab", "ab|b"): (["- goto outside-lb-2", "-o0 a", "+ goto outside-lb-1", "+o0 b"], ["-o1 b"]),
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
    anyone, two, outside = state.partition("|")
    return desired(
        frontend(
            AT,
            ends(anyone.strip("!")),
            outside=ends(outside.strip("!")) if two else None,
            kind=FrontendKind.NODE_PORT,
            elsewhere="!" in state,
        )
    )


@pytest.mark.parametrize(
    ("before", "after"), TWO_LISTS, ids=lambda state: "-" if state is None else f"{state!r}"
)
def test_a_change_of_one_of_two_lists(before: str | None, after: str | None) -> None:
    todo = plan(fill_empty(*lists(before)), *lists(after))
    assert (told(todo.switch), told(todo.sweep)) == TWO_LISTS[before, after]


@pytest.mark.parametrize("balance", [Balance.CLIENT, Balance.CLIENT_PORT])
def test_in_a_hash_every_endpoint_has_its_very_slot(balance: Balance) -> None:
    held, wanted = (desired(frontend(AT, ends(text), balance=balance)) for text in ("aabb", "bcab"))
    todo = plan(fill_empty(*held), *wanted)
    assert (told(todo.switch), told(todo.sweep)) == (["-0 a", "-1 a", "-2 b", "+0 b", "+1 c", "+2 a"], [])
    assert not plan(fill_empty(*wanted), *wanted)


@pytest.mark.parametrize(
    ("before", "wanted", "switch"),
    [
        ("ab", "cc", []),
        ("ab", "", []),
        ("", "cc", ["- goto no-endpoints", "+ goto hash-client-2", "+0 c", "+1 c"]),
    ],
)
def test_the_hash_of_a_kept_service_stays(before: str, wanted: str, switch: list[str]) -> None:
    """Endpoints beside it would move all clients."""
    held, after = (desired(frontend(AT, ends(text), balance=Balance.CLIENT)) for text in (before, wanted))
    todo = plan(fill_empty(*held), *after, kept_all)
    assert (told(todo.switch), told(todo.sweep)) == (switch, [])


def test_source_ranges_come_and_go_with_their_frontend() -> None:
    restricted = desired(frontend(AT, ends("a"), kind=FrontendKind.LOAD_BALANCER, ranges=["10.0.0.0/8"]))
    freed = desired(frontend(AT, ends("a"), kind=FrontendKind.LOAD_BALANCER))
    for before, after in ((restricted, freed), (freed, restricted)):
        switch = plan(fill_empty(*before), *after).switch
        changed = switch.remove if before is restricted else switch.add
        assert {name: len(members) for name, members in changed.items() if members} == {
            SetName.SOURCE_RESTRICTED: 1,
            SetName.SOURCE_RANGES: 1,
        }


@pytest.mark.parametrize("protected", [protect_nothing, kept_all])
def test_source_ranges_of_what_is_kept_stay(protected: Protects) -> None:
    held = fill_empty(
        *desired(frontend(AT, ends("a"), kind=FrontendKind.LOAD_BALANCER, ranges=["10.0.0.0/8"]))
    )
    gone = plan(held, {}, desired().elements, protected).switch.remove
    assert (
        bool(gone[SetName.SOURCE_RESTRICTED])
        is bool(gone[SetName.SOURCE_RANGES])
        is (protected is protect_nothing)
    )


@pytest.mark.parametrize(
    ("before", "wanted", "slots"),
    [
        ("", "abc", "abc"),
        ("abc", "cab", "abc"),
        ("abc", "c", "c"),
        ("abc", "ac", "ac"),
        ("abc", "bxc", "xbc"),
        ("a.c", "abc", "abc"),
        ("...", "ab", "ab"),
        ("aab", "ab", "ab"),
        ("ab", "aab", "aba"),
    ],
)
def test_endpoints_stay_in_their_slots(before: str, wanted: str, slots: str) -> None:
    held = [None if letter == "." else PackedSocket(letter.encode()) for letter in before]
    assert b"".join(fill_slots(held, [PackedSocket(letter.encode()) for letter in wanted])).decode() == slots


def test_what_changes_is_told() -> None:
    held = fill_empty(*desired(frontend(AT, ends("ab"), "a"), frontend("10.96.0.8:80", (), "b")))
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
    todo = plan(fill_empty(*desired(frontend(AT, ends("a")))), *desired(frontend(AT, ends("a"), timeout=60)))
    (key,) = todo.switch.add[SetName.SERVICES]
    assert told(todo.switch) == ["- goto lb-1", "+ goto sticky-1"]
    assert todo.switch.add[SetName.AFFINITY_RULES] == {key: Verdict("goto remember-60")}
    assert [type(change) for change in todo.changes] == [FrontendChange]


def test_strays_are_swept_and_damage_is_put_right() -> None:
    wanted = desired(frontend(AT, ends("ab")))
    held = fill_empty(*wanted)
    (side,) = wanted.specs
    held[SLOTS][slot(side, 7)] = pack_socket(bytes([10, 0, 0, ord("z")]), 80)
    del held[SLOTS][slot(side, 1)]
    todo = plan(held, *wanted)
    assert (told(todo.switch), told(todo.sweep)) == (["+1 b"], ["-7 z"])


def test_a_sync_that_died_before_its_sweep_is_completed() -> None:
    """Slots that nothing pointed to are taken into use again: they may not be swept."""
    held = fill_empty(*desired(frontend(AT, ends("abc"))))
    plan(held, *desired(frontend(AT, ends("a")))).switch.apply_to(held)
    todo = plan(held, *desired(frontend(AT, ends("abc"))))
    assert (told(todo.switch), told(todo.sweep)) == (["- goto lb-1", "+ goto lb-3"], [])


def test_kept_services_lose_nothing() -> None:
    held = fill_empty(*desired(frontend(AT, ends("ab"), "a"), frontend("10.96.0.8:80", ends("x"), "b")))
    wanted = desired(frontend(AT, ends("bc"), "a"))
    todo = plan(held, *wanted, kept_all)
    assert told(todo.switch) == ["- goto lb-2", "+ goto lb-3", "+2 c"]
    assert not todo.sweep
    for transaction in todo[:2]:
        transaction.apply_to(held)
    (side,) = wanted.specs
    assert [chr(e[3]) for e in held_slots(held, side, Protocol.TCP) if e] == ["a", "b", "c"]


def test_kept_endpoints_still_reach_themselves() -> None:
    held = fill_empty(*desired(frontend(AT, ends("a"), local=["10.0.0.97"])))
    todo = plan(held, *desired(frontend(AT)), kept_all)
    assert not todo


def test_what_is_not_kept_goes_whatever_else_is_kept() -> None:
    held = fill_empty(
        *desired(frontend(AT, ends("a"), "a", timeout=60), frontend("10.96.0.8:80", ends("x"), "b"))
    )
    todo = plan(held, *desired(frontend(AT, ends("a"), "a")), lambda service: service.name == "b")
    assert todo.switch.remove[SetName.AFFINITY_RULES]


@pytest.mark.parametrize(
    ("comment", "owner"),
    [("default/web", "default/web"), ("a/b:http", "a/b"), ("someone's", "someone's/"), ("", "/")],
)
def test_whose_an_element_is(comment: str, owner: str) -> None:
    assert str(owner_of(comment)) == owner


# --- affinity ---


def client(letter: str) -> Address:
    return bytes([10, 0, 1, ord(letter)])


def clients(text: str) -> list[tuple[AffinityKey, PackedSocket]]:
    """`abc`: a client each, remembered as that endpoint's."""
    own = pack_socket(*socket(AT))
    return [
        (affinity_key(client(letter), own), pack_socket(*socket(end)))
        for letter, end in zip(text, ends(text), strict=True)
    ]


@pytest.mark.parametrize(
    ("anyone", "outside", "timeout", "newly_local", "stale"),
    [
        pytest.param("ab", None, 60, False, "c", id="one that went"),
        pytest.param("ab", None, None, False, "abc", id="no affinity any more"),
        pytest.param("abc", "a", 60, False, "", id="one for pods stays"),
        pytest.param("bc", "a", 60, False, "", id="one for outside stays"),
        pytest.param("abc", "a", 60, True, "bc", id="policy Local from now on"),
        pytest.param("abc", "", 60, True, "abc", id="policy Local, and none is here"),
        pytest.param("", None, 60, False, "abc", id="none"),
    ],
)
def test_who_is_forgotten(
    anyone: str, outside: str | None, timeout: int | None, newly_local: bool, stale: str
) -> None:
    to_outside = None if outside is None else ends(outside)
    state = desired(frontend(AT, ends(anyone), timeout=timeout, outside=to_outside))
    keys = {side.key for side in state.specs} if newly_local else set()
    found = stale_affinity(clients("abc"), Protocol.TCP, fill_empty(*state), keys)
    assert found == [key for key, _ in clients(stale)]


@pytest.mark.parametrize(
    ("newly_local", "stale"), [(True, "b"), (False, "")], ids=["newly Local", "as before"]
)
def test_pods_keep_their_endpoints_when_a_policy_becomes_local(newly_local: bool, stale: str) -> None:
    """Client c is a pod; a is remembered for an endpoint that is here."""
    state = desired(frontend(AT, ends("abc"), timeout=60, outside=ends("a")))
    keys = {side.key for side in state.specs} if newly_local else set()
    is_pod = client("c").__eq__
    found = stale_affinity(clients("abc"), Protocol.TCP, fill_empty(*state), keys, is_pod)
    assert found == [key for key, _ in clients(stale)]


def test_a_client_of_another_protocol_is_another_one() -> None:
    state = desired(frontend(AT, ends("abc"), timeout=60))
    assert len(stale_affinity(clients("abc"), Protocol.UDP, fill_empty(*state), set())) == 3


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


def test_what_is_to_be_forgotten_is_a_transaction() -> None:
    transaction = Transaction()
    transaction.forget[SetName.AFFINITY_TCP] = [b"x"]
    assert transaction


def test_everything_fills_an_empty_table() -> None:
    elements = fill_empty(*desired(frontend(AT, ends("ab"), name("a").name)))
    empty: Elements = {set_name: {} for set_name in elements}
    everything(elements).apply_to(empty)
    assert empty == elements

"""The plan by example: what a change costs, and in which transaction it goes."""

from __future__ import annotations

import pytest

from kproxy.model import format_socket
from kproxy.nft.elements import Value, Verdict, slot_key
from kproxy.nft.plan import FrontendChange, fill_slots, owner_of, place, plan, slots_of
from kproxy.nft.transaction import Transaction, everything
from tests.unit.make import desired, frontend, name

AT = "10.96.0.9:80"
SLOTS = "endpoints-tcp"


def ends(text: str) -> list[str]:
    """`abc`: three endpoints."""
    return [f"10.0.0.{ord(letter)}:80" for letter in text]


def shown(value: Value) -> str:
    return value.text if isinstance(value, Verdict) else chr(value[3])


def told(transaction: Transaction) -> list[str]:
    """`-0 a`: slot 0, which held a, goes; `+ goto lb-2`: a verdict comes."""
    lines = []
    for sign, part in (("-", transaction.remove), ("+", transaction.add)):
        for set_name in ("services", SLOTS):
            for key, value in sorted(part[set_name].items()):
                where = str(int.from_bytes(key[8:], "little")) if set_name == SLOTS else ""
                lines.append(f"{sign}{where} {shown(value)}")
    return lines


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
    todo = plan(place(held), wanted)
    assert (told(todo.switch), told(todo.sweep)) == CHANGES[before, after]


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
    held = [None if letter == "." else letter.encode() for letter in before]
    assert b"".join(fill_slots(held, [letter.encode() for letter in wanted])).decode() == slots


def test_what_changes_is_told() -> None:
    held = place(desired(frontend(AT, ends("ab"), "a"), frontend("10.96.0.8:80", (), "b")))
    wanted = desired(frontend(AT, ends("ac"), "a"), frontend("10.96.0.7:80", ends("d"), "c"))

    def sockets(values: tuple[bytes, ...] | None) -> list[str] | None:
        return values and [format_socket(v[:4], int.from_bytes(v[4:6], "big")) for v in values]  # type: ignore[return-value]

    changes = {c.comment: (sockets(c.before), sockets(c.after)) for c in plan(held, wanted).changes}
    assert changes == {
        "default/a": (ends("ab"), ends("ac")),
        "default/b": ((), None),
        "default/c": (None, ends("d")),
    }


def test_a_change_of_affinity_is_a_change_of_the_verdict() -> None:
    todo = plan(place(desired(frontend(AT, ends("a")))), desired(frontend(AT, ends("a"), timeout=60)))
    (key,) = todo.switch.add["services"]
    assert told(todo.switch) == ["- goto lb-1", "+ goto sticky-1"]
    assert todo.switch.add["affinity-rules"] == {key: Verdict("goto remember-60")}
    assert [type(change) for change in todo.changes] == [FrontendChange]


def test_strays_are_swept_and_damage_is_put_right() -> None:
    wanted = desired(frontend(AT, ends("ab")))
    held = place(wanted)
    (prefix,) = {key[:8] for key in held[SLOTS]}
    held[SLOTS][slot_key(prefix, 7)] = b"\n\0\0z\0P\0\0"
    del held[SLOTS][slot_key(prefix, 1)]
    todo = plan(held, wanted)
    assert (told(todo.switch), told(todo.sweep)) == (["+1 b"], ["-7 z"])


def test_a_sync_that_died_before_its_sweep_is_completed() -> None:
    """Slots that nothing pointed to are taken into use again: they may not be swept."""
    held = place(desired(frontend(AT, ends("abc"))))
    plan(held, desired(frontend(AT, ends("a")))).switch.apply_to(held)
    todo = plan(held, desired(frontend(AT, ends("abc"))))
    assert (told(todo.switch), told(todo.sweep)) == (["- goto lb-1", "+ goto lb-3"], [])


def test_kept_services_lose_nothing() -> None:
    held = place(desired(frontend(AT, ends("ab"), "a"), frontend("10.96.0.8:80", ends("x"), "b")))
    wanted = desired(frontend(AT, ends("bc"), "a"))
    todo = plan(held, wanted, lambda service: True)
    assert told(todo.switch) == ["- goto lb-2", "+ goto lb-3", "+2 c"]
    assert not todo.sweep
    for transaction in todo[:2]:
        transaction.apply_to(held)
    assert [chr(e[3]) for e in slots_of(held, next(iter(wanted.targets))) if e] == ["a", "b", "c"]


@pytest.mark.xfail(
    strict=True, reason="hairpin elements go while the frontend is in the input and its endpoint is kept"
)
def test_kept_endpoints_still_reach_themselves() -> None:
    held = place(desired(frontend(AT, ends("a"), local=["10.0.0.97"])))
    todo = plan(held, desired(frontend(AT)), lambda service: True)
    assert not todo


@pytest.mark.xfail(
    strict=True, reason="while anything is kept, rules of frontends that are not kept stay behind"
)
def test_what_is_not_kept_goes_whatever_else_is_kept() -> None:
    held = place(desired(frontend(AT, ends("a"), "a", timeout=60), frontend("10.96.0.8:80", ends("x"), "b")))
    todo = plan(held, desired(frontend(AT, ends("a"), "a")), lambda service: service.name == "b")
    assert todo.switch.remove["affinity-rules"]


@pytest.mark.parametrize(
    ("comment", "owner"),
    [("default/web", "default/web"), ("a/b:http", "a/b"), ("someone's", "someone's/"), ("", "/")],
)
def test_whose_an_element_is(comment: str, owner: str) -> None:
    assert str(owner_of(comment)) == owner


# --- transactions ---


def test_a_transaction_counts_and_applies() -> None:
    transaction = Transaction()
    assert not transaction
    transaction.change("s", b"a", b"1", b"1")
    assert not transaction
    transaction.change("s", b"a", b"1", b"2")
    transaction.change("s", b"b", None, b"3")
    transaction.change("s", b"c", b"4", None)
    elements: dict[str, dict[bytes, Value]] = {"s": {b"a": b"1", b"c": b"4"}}
    transaction.apply_to(elements)
    assert (elements, transaction.counts) == ({"s": {b"a": b"2", b"b": b"3"}}, (2, 2))


def test_what_is_to_be_forgotten_is_a_transaction() -> None:
    transaction = Transaction()
    transaction.forget["affinity-tcp"] = [b"x"]
    assert transaction


def test_everything_fills_an_empty_table() -> None:
    elements = place(desired(frontend(AT, ends("ab"), name("a").name)))
    empty: dict[str, dict[bytes, Value]] = {set_name: {} for set_name in elements}
    everything(elements).apply_to(empty)
    assert empty == elements

"""Which conntrack entries of a UDP frontend are stale, for every kind of change of its endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from kproxy.model import Balance, NamespacedName, Protocol
from kproxy.nft.elements import Elements
from kproxy.table.flows import FlowRule, flow_rules, may_wait, stale_entries
from kproxy.table.layout import (
    ChainName,
    EndpointScope,
    FrontendSide,
    FrontendSpec,
    PackedSocket,
    endpoints_map,
    frontend_key,
    frontend_socket,
    pack_socket,
)
from kproxy.table.plan import initial_elements, plan, plan_frontends

VIP = bytes([10, 96, 0, 9])
KEY = frontend_key(VIP, Protocol.UDP, 53)
FRONTEND = frontend_socket(KEY)
ALL, LOCAL = FrontendSide(EndpointScope.ALL, KEY), FrontendSide(EndpointScope.LOCAL, KEY)
SOCKETS = {"-": FRONTEND, **{letter: pack_socket(bytes([10, 0, 0, ord(letter)]), 53) for letter in "abcd"}}
"""The endpoints of entries, by a letter; `-`: not translated."""


def spec(text: str, serving: str = "", protected: bool = False) -> FrontendSpec:
    """Endpoints and those that serve, as letters."""
    return FrontendSpec(
        tuple(SOCKETS[letter] for letter in text),
        Balance.RANDOM,
        ChainName.NO_ENDPOINTS,
        "default/protected:dns" if protected else "default/web:dns",
        frozenset(SOCKETS[letter] for letter in serving),
    )


class Row(NamedTuple):
    """A frontend before and after, each with its endpoints in scope ALL and LOCAL; None: no such side."""

    before: tuple[str | None, str | None]
    after: tuple[str | None, str | None]
    stale: str
    serving: str = ""
    protected: bool = False


ROWS = {
    "the first endpoint": Row(("", None), ("a", None), "-bcd"),
    "a new frontend": Row((None, None), ("a", None), "-bcd"),
    "a new frontend with no endpoint": Row((None, None), ("", None), "abcd"),
    "no change": Row(("ab", None), ("ab", None), "-cd"),
    "an endpoint is added": Row(("a", None), ("ab", None), "-cd"),
    "an endpoint is removed": Row(("ab", None), ("a", None), "-bcd"),
    "an endpoint is removed, but serves": Row(("ab", None), ("a", None), "-cd", serving="ab"),
    "an endpoint is replaced": Row(("a", None), ("b", None), "-acd"),
    "the last endpoint is removed": Row(("a", None), ("", None), "abcd"),
    "the last endpoint is removed, but serves": Row(("a", None), ("", None), "bcd", serving="a"),
    "the frontend is removed": Row(("a", None), (None, None), "abcd"),
    "a frontend without endpoints is removed": Row(("", None), (None, None), "abcd"),
    "policy Local": Row(("ab", None), ("ab", "a"), "-cd"),
    "policy Local, the last local endpoint is removed": Row(("ab", "a"), ("ab", ""), "-cd"),
    "policy Local, an endpoint elsewhere is removed": Row(("abc", "a"), ("ab", "a"), "-cd"),
    "policy Cluster again": Row(("ab", "a"), ("ab", None), "-cd"),
    "both sides are removed": Row(("ab", "a"), (None, None), "abcd"),
    "protected, an endpoint is removed": Row(("ab", None), ("a", None), "-", protected=True),
    "protected, the first endpoint": Row(("", None), ("a", None), "-", protected=True),
    "protected, no endpoint": Row(("", None), ("", None), "", protected=True),
    "protected, the frontend is removed": Row(("ab", None), (None, None), "", protected=True),
}


def specs(
    state: tuple[str | None, str | None], serving: str = "", protected: bool = False
) -> dict[FrontendSide, FrontendSpec]:
    return {
        side: spec(text, serving, protected)
        for side, text in zip((ALL, LOCAL), state, strict=True)
        if text is not None
    }


def is_protected(owner: NamespacedName) -> bool:
    return owner.name == "protected"


def stale_letters(rules: Mapping[PackedSocket, FlowRule]) -> str:
    entries = [(FRONTEND, endpoint, letter) for letter, endpoint in SOCKETS.items()]
    return "".join(sorted(stale_entries(entries, rules)))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_full_comparison(row: Row) -> None:
    applied = initial_elements(specs(row.before, protected=row.protected), {})
    wanted = specs(row.after, row.serving, row.protected)
    todo = plan(applied, wanted, {}, is_protected)
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    assert stale_letters(flow_rules(applied, wanted, todo, is_protected)) == row.stale


@pytest.mark.parametrize(
    "row", [r for r in ROWS.values() if not r.protected], ids=[n for n, r in ROWS.items() if not r.protected]
)
def test_an_event(row: Row) -> None:
    applied = initial_elements(specs(row.before), {})
    wanted: dict[FrontendSide, FrontendSpec | None] = {ALL: None, LOCAL: None}
    wanted.update(specs(row.after, row.serving))
    todo = plan_frontends(applied, wanted)
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    assert stale_letters(flow_rules(applied, wanted, todo)) == row.stale


def test_the_removal_of_one_side_makes_no_entry_stale() -> None:
    applied = initial_elements(specs(("ab", "a")), {})
    todo = plan_frontends(applied, {LOCAL: None})
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    assert flow_rules(applied, {LOCAL: None}, todo) == {}


def interrupted(before: str, wanted: dict[FrontendSide, FrontendSpec]) -> tuple[Elements, str]:
    """Return the elements, and the stale entries, of a round after one that was killed before its sweep."""
    applied = initial_elements(specs((before, None)), {})
    plan(applied, wanted, {}).switch.apply_to(applied)
    todo = plan(applied, wanted, {})
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    return applied, stale_letters(flow_rules(applied, wanted, todo))


def test_an_interrupted_removal_is_recognized_by_its_slots() -> None:
    applied, letters = interrupted("ab", {})
    assert letters == "ab"
    assert not applied[endpoints_map(Protocol.UDP)]


def test_an_endpoint_in_a_leftover_slot_may_be_in_use() -> None:
    _, letters = interrupted("abc", specs(("bc", None)))
    assert letters == "-ad"


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [
        (("ab", None), ("ac", None), True),
        (("ab", None), ("a", None), True),
        (("a", None), ("", None), True),
        ((None, None), ("a", None), True),
        (("a", None), (None, None), False),
        (("ab", "a"), (None, None), False),
    ],
)
def test_flows_of_a_removed_frontend_may_not_wait(
    before: tuple[str | None, str | None], after: tuple[str | None, str | None], waits: bool
) -> None:
    """Of the others, a comparison after a crash finds all, whether their slots were swept or not."""
    applied = initial_elements(specs(before), {})
    wanted: dict[FrontendSide, FrontendSpec | None] = {ALL: None, LOCAL: None}
    wanted.update(specs(after))
    todo = plan_frontends(applied, wanted)
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    rules = flow_rules(applied, wanted, todo)
    assert may_wait(rules, todo) is waits
    if waits:
        again = plan(applied, specs(after), {})
        assert stale_letters(flow_rules(applied, specs(after), again)) == stale_letters(rules)


def test_tcp_has_no_rules() -> None:
    side = FrontendSide(EndpointScope.ALL, frontend_key(VIP, Protocol.TCP, 53))
    applied = initial_elements({side: spec("a")}, {})
    for wanted in ({side: spec("b")}, {}):
        assert flow_rules(applied, wanted, plan(applied, wanted, {})) == {}

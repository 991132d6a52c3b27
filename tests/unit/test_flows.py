"""Which entries of a UDP frontend are stale, for every way in which its endpoints can change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from kproxy.model import Balance, NamespacedName, Protocol
from kproxy.nft.elements import Elements
from kproxy.table.flows import FlowRule, flow_rules, stale
from kproxy.table.keys import PackedSocket, frontend_key, frontend_socket, pack_socket
from kproxy.table.layout import EndpointScope, FrontendSide, FrontendSpec
from kproxy.table.names import ChainName, endpoints_map
from kproxy.table.plan import fill_empty, plan, plan_frontends

VIP = bytes([10, 96, 0, 9])
KEY = frontend_key(VIP, Protocol.UDP, 53)
OWN = frontend_socket(KEY)
HERE, LOCAL = FrontendSide(EndpointScope.ALL, KEY), FrontendSide(EndpointScope.LOCAL, KEY)
WHERE = {"-": OWN, **{letter: pack_socket(bytes([10, 0, 0, ord(letter)]), 53) for letter in "abcd"}}
"""What entries were translated to, by a letter; `-`: not at all."""


def spec(text: str, serving: str = "", protected: bool = False) -> FrontendSpec:
    """Endpoints and those that serve, as letters."""
    return FrontendSpec(
        tuple(WHERE[letter] for letter in text),
        Balance.RANDOM,
        ChainName.NO_ENDPOINTS,
        "default/kept:dns" if protected else "default/web:dns",
        frozenset(WHERE[letter] for letter in serving),
    )


class Row(NamedTuple):
    """A frontend before and after, each with its list for pods and for outside; None: there is none."""

    before: tuple[str | None, str | None]
    after: tuple[str | None, str | None]
    stale: str
    serving: str = ""
    protected: bool = False


ROWS = {
    "the first endpoint": Row(("", None), ("a", None), "-bcd"),
    "a new frontend": Row((None, None), ("a", None), "-bcd"),
    "a new frontend with no endpoint": Row((None, None), ("", None), "abcd"),
    "nothing changes": Row(("ab", None), ("ab", None), "-cd"),
    "one more": Row(("a", None), ("ab", None), "-cd"),
    "one less": Row(("ab", None), ("a", None), "-bcd"),
    "one less, which serves": Row(("ab", None), ("a", None), "-cd", serving="ab"),
    "another one": Row(("a", None), ("b", None), "-acd"),
    "the last one goes": Row(("a", None), ("", None), "abcd"),
    "the last one goes, but serves": Row(("a", None), ("", None), "bcd", serving="a"),
    "the frontend goes": Row(("a", None), (None, None), "abcd"),
    "the frontend goes, it had no endpoint": Row(("", None), (None, None), "abcd"),
    "policy Local": Row(("ab", None), ("ab", "a"), "-cd"),
    "no endpoint here": Row(("ab", "a"), ("ab", ""), "-cd"),
    "one less, elsewhere": Row(("abc", "a"), ("ab", "a"), "-cd"),
    "no policy any more": Row(("ab", "a"), ("ab", None), "-cd"),
    "all goes": Row(("ab", "a"), (None, None), "abcd"),
    "kept, one less": Row(("ab", None), ("a", None), "-", protected=True),
    "kept, the first endpoint": Row(("", None), ("a", None), "-", protected=True),
    "kept, no endpoint": Row(("", None), ("", None), "", protected=True),
    "kept, gone": Row(("ab", None), (None, None), "", protected=True),
}


def specs(
    state: tuple[str | None, str | None], serving: str = "", protected: bool = False
) -> dict[FrontendSide, FrontendSpec]:
    return {
        side: spec(text, serving, protected)
        for side, text in zip((HERE, LOCAL), state, strict=True)
        if text is not None
    }


def is_protected(owner: NamespacedName) -> bool:
    return owner.name == "kept"


def found(rules: Mapping[PackedSocket, FlowRule]) -> str:
    entries = [(OWN, endpoint, letter) for letter, endpoint in WHERE.items()]
    return "".join(sorted(stale(entries, rules)))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_full_sync(row: Row) -> None:
    applied = fill_empty(specs(row.before, protected=row.protected), {})
    wanted = specs(row.after, row.serving, row.protected)
    todo = plan(applied, wanted, {}, is_protected)
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    assert found(flow_rules(applied, wanted, todo, is_protected)) == row.stale


@pytest.mark.parametrize(
    "row", [r for r in ROWS.values() if not r.protected], ids=[n for n, r in ROWS.items() if not r.protected]
)
def test_an_event(row: Row) -> None:
    applied = fill_empty(specs(row.before), {})
    wanted: dict[FrontendSide, FrontendSpec | None] = {HERE: None, LOCAL: None}
    wanted.update(specs(row.after, row.serving))
    todo = plan_frontends(applied, wanted)
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    assert found(flow_rules(applied, wanted, todo)) == row.stale


def test_an_event_about_one_list_leaves_the_other() -> None:
    applied = fill_empty(specs(("ab", "a")), {})
    todo = plan_frontends(applied, {LOCAL: None})
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    assert flow_rules(applied, {LOCAL: None}, todo) == {}


def interrupted(before: str, wanted: dict[FrontendSide, FrontendSpec]) -> tuple[Elements, str]:
    """What a sync finds that comes after one that was killed behind its switch."""
    applied = fill_empty(specs((before, None)), {})
    plan(applied, wanted, {}).switch.apply_to(applied)
    todo = plan(applied, wanted, {})
    for part in (todo.switch, todo.sweep):
        part.apply_to(applied)
    return applied, found(flow_rules(applied, wanted, todo))


def test_a_removal_that_was_interrupted_is_known_by_its_slots() -> None:
    applied, gone = interrupted("ab", {})
    assert gone == "ab"
    assert not applied[endpoints_map(Protocol.UDP)]


def test_an_endpoint_in_a_leftover_slot_may_be_in_use() -> None:
    _, gone = interrupted("abc", specs(("bc", None)))
    assert gone == "-ad"


def test_tcp_has_no_rules() -> None:
    side = FrontendSide(EndpointScope.ALL, frontend_key(VIP, Protocol.TCP, 53))
    applied = fill_empty({side: spec("a")}, {})
    for wanted in ({side: spec("b")}, {}):
        assert flow_rules(applied, wanted, plan(applied, wanted, {})) == {}

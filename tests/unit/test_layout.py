"""Names and keys: what a verdict's chain says is what was put into it, and no two places share a slot."""

from __future__ import annotations

from itertools import product

import pytest

from kproxy.model import Balance, Protocol, parse_address
from kproxy.nft.elements import Elements, Verdict, endpoint_value, frontend_key
from kproxy.table.layout import (
    NUMBERED,
    Place,
    Side,
    Spread,
    Target,
    endpoints_map,
    held_slots,
    slot,
    spread_of,
)
from kproxy.table.plan import is_sticky

SPREADS = [Spread(*parts) for parts in product(Side, Balance, (1, 2, 1021))]
KEY = frontend_key(parse_address("10.96.0.9"), Protocol.TCP, 80)


@pytest.mark.parametrize("spread", SPREADS, ids=lambda spread: str(spread.chain))
def test_a_chain_says_where_it_leads(spread: Spread) -> None:
    assert spread_of(Verdict(f"goto {spread.chain}", "a/b:c")) == spread
    assert NUMBERED.fullmatch(spread.chain)
    assert is_sticky(Verdict(f"goto {spread.chain}")) is (spread.balance is Balance.STICKY)


def test_chains_have_names_of_their_own() -> None:
    assert len({spread.chain for spread in SPREADS}) == len(SPREADS)
    assert [Spread(side, Balance.RANDOM, 3).chain for side in Side] == ["lb-3", "outside-lb-3"]


@pytest.mark.parametrize(
    "text",
    [
        *("drop", "accept", "goto no-endpoints", "goto discard", "goto elsewhere", "goto lb-", "goto lb-x"),
        *("goto lb-1x", "goto masq-3", "goto inside-lb-1", "goto outside-", "goto outside-outside-lb-1"),
        "goto hash-1",
    ],
)
def test_other_verdicts_lead_to_no_slots(text: str) -> None:
    assert spread_of(Verdict(text)) is None
    assert not NUMBERED.fullmatch(Verdict(text).chain)


@pytest.mark.parametrize("value", [None, b"", b"\n\0\0\1\0P\0\0"])
def test_what_is_no_verdict_leads_to_no_slots(value: bytes | None) -> None:
    assert spread_of(value) is None


@pytest.mark.parametrize("chain", ["remember-60", "remember-86400"])
def test_chains_of_timeouts_come_and_go_too(chain: str) -> None:
    assert NUMBERED.fullmatch(chain)


@pytest.mark.parametrize("chain", ["remember", "remember-x", "services", "masq-always", "output"])
def test_the_others_stay(chain: str) -> None:
    assert not NUMBERED.fullmatch(chain)


@pytest.mark.parametrize(
    ("side", "balance", "count", "text"),
    [
        (Side.ANYONE, Balance.RANDOM, 0, "goto otherwise"),
        (Side.OUTSIDE, Balance.STICKY, 0, "goto otherwise"),
        (Side.ANYONE, Balance.RANDOM, 3, "goto lb-3"),
        (Side.ANYONE, Balance.STICKY, 3, "goto sticky-3"),
        (Side.OUTSIDE, Balance.STICKY, 3, "goto outside-sticky-3"),
        (Side.ANYONE, Balance.CLIENT, 1021, "goto hash-client-1021"),
        (Side.OUTSIDE, Balance.CLIENT_PORT, 1021, "goto outside-hash-client-port-1021"),
    ],
)
def test_verdicts_say_how_many_slots_they_use(side: Side, balance: Balance, count: int, text: str) -> None:
    verdict = Target((), balance, "otherwise", "a/b").verdict(side, count)
    assert verdict == Verdict(text, "a/b")
    spread = spread_of(verdict)
    assert (spread.slots if spread else 0) == count
    assert is_sticky(verdict) is (balance is Balance.STICKY and count > 0)


def test_the_sides_of_a_frontend_share_no_slot() -> None:
    numbers = (0, 1, 1020, Side.OUTSIDE.base - 1)
    assert len({slot(Place(side, KEY), number) for side in Side for number in numbers}) == 8


ENDPOINTS = [endpoint_value(bytes([10, 0, 0, n]), 8080) for n in range(3)]


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("chain", "missing", "expected"),
    [
        ("lb-3", (), (0, 1, 2)),
        ("lb-2", (), (0, 1)),
        ("sticky-3", (1,), (0, None, 2)),
        ("lb-4", (), (0, 1, 2, None)),
        ("no-endpoints", (), ()),
    ],
)
def test_what_a_place_holds(
    side: Side, chain: str, missing: tuple[int, ...], expected: tuple[int | None, ...]
) -> None:
    place, other = (Place(s, KEY) for s in (side, *(set(Side) - {side})))
    name = endpoints_map(Protocol.TCP)
    applied: Elements = {s.verdicts: {} for s in Side}
    applied[name] = {slot(place, n): value for n, value in enumerate(ENDPOINTS) if n not in missing}
    applied[side.verdicts][KEY] = Verdict(f"goto {side.prefix if chain != 'no-endpoints' else ''}{chain}")
    held = tuple(None if n is None else ENDPOINTS[n] for n in expected)
    assert held_slots(applied, place, Protocol.TCP) == held
    assert held_slots(applied, other, Protocol.TCP) == ()


def test_a_verdict_to_the_other_side_holds_nothing() -> None:
    """Nobody but a stranger writes it; what it leads to is not this place's."""
    applied: Elements = {s.verdicts: {} for s in Side}
    applied[endpoints_map(Protocol.TCP)] = {slot(Place(Side.ANYONE, KEY), 0): ENDPOINTS[0]}
    applied[Side.OUTSIDE.verdicts][KEY] = Verdict("goto lb-1")
    assert held_slots(applied, Place(Side.OUTSIDE, KEY), Protocol.TCP) == ()

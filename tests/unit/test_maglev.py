"""The table of a consistent hash: fair, the same everywhere, and little moves when endpoints do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.resolve.maglev import SLOTS, Socket, table


def socket(number: int) -> Socket:
    return bytes([10, 0, number >> 8, number & 255]), 8080


def sockets(count: int) -> list[Socket]:
    return [socket(number) for number in range(count)]


def moved(before: Sequence[Socket], after: Sequence[Socket]) -> int:
    return sum(old != new for old, new in zip(before, after, strict=True))


def test_without_endpoints_there_is_none() -> None:
    assert table([]) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 50, 100])
def test_every_endpoint_has_its_share(count: int) -> None:
    shares = Counter(table(sockets(count)))
    assert shares.keys() == set(sockets(count))
    assert max(shares.values()) - min(shares.values()) <= 1


def test_with_more_endpoints_than_slots_every_slot_has_one() -> None:
    assert set(Counter(table(sockets(SLOTS + 100))).values()) == {1}


@pytest.mark.parametrize(("count", "most"), [(2, 0.501), (10, 0.126), (50, 0.069)])
def test_little_moves_when_one_goes(count: int, most: float) -> None:
    """On average over who goes, as a share of all slots; what cannot stay is 1/N."""
    whole = table(sockets(count))
    moves = [moved(whole, table([s for s in sockets(count) if s != gone])) for gone in sockets(count)]
    assert min(moves) >= SLOTS // count
    assert sum(moves) / count <= most * SLOTS


@pytest.mark.parametrize("count", [10, 50])
def test_what_moves_comes_back(count: int) -> None:
    whole = table(sockets(count))
    assert table([*sockets(count)[1:], socket(0)]) == whole


@given(st.permutations(sockets(7)))
def test_the_order_does_not_matter(members: list[Socket]) -> None:
    assert table(members) == table(sockets(7))


@pytest.mark.parametrize("weights", [(1, 1), (2, 1), (3, 2, 1), (100, 1), (10, 10, 20)])
def test_weights_are_shares(weights: tuple[int, ...]) -> None:
    members = [socket(number) for number, weight in enumerate(weights) for _ in range(weight)]
    shares = Counter(table(members))
    for number, weight in enumerate(weights):
        assert abs(shares[socket(number)] - SLOTS * weight / sum(weights)) <= weight


@pytest.mark.parametrize(
    ("heavy", "light"),
    [((100, 100), (0, 1)), ((11, 100), (10, 1)), ((10, 100), (10, 50)), ((300, 100), (1, 1))],
)
def test_weights_beyond_the_number_of_slots(heavy: tuple[int, int], light: tuple[int, int]) -> None:
    """(how many, of which weight): nobody goes without, and shares are about what they ought to be."""
    weights = [heavy[1]] * heavy[0] + [light[1]] * light[0]
    shares = Counter(table([socket(n) for n, weight in enumerate(weights) for _ in range(weight)]))
    for number, weight in enumerate(weights):
        assert shares[socket(number)] >= 1
        assert abs(shares[socket(number)] - SLOTS * weight / sum(weights)) <= 2


def test_little_moves_when_a_weight_grows() -> None:
    whole = table(sockets(10))
    assert moved(whole, table([*sockets(10), socket(0)])) <= 0.15 * SLOTS


def test_ports_are_endpoints_of_their_own() -> None:
    address, port = socket(0)
    assert len(set(table([(address, port), (address, port + 1)]))) == 2


def test_all_nodes_come_to_the_same_table() -> None:
    """Those of another version, too: if this changes, an upgrade moves every client."""
    begin = [3, 0, 3, 4, 3, 1, 0, 2, 2, 1, 4, 0, 1, 2, 2, 1, 0, 4, 1, 2]
    assert [address[3] for address, _ in table(sockets(5))[: len(begin)]] == begin

"""The table of a consistent hash is fair, is the same on all nodes, and changes little with the endpoints."""

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


def test_without_endpoints_the_table_is_empty() -> None:
    assert table([]) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 50, 100])
def test_slots_are_distributed_evenly(count: int) -> None:
    shares = Counter(table(sockets(count)))
    assert shares.keys() == set(sockets(count))
    assert max(shares.values()) - min(shares.values()) <= 1


def test_with_more_endpoints_than_slots_each_slot_has_a_different_endpoint() -> None:
    assert set(Counter(table(sockets(SLOTS + 100))).values()) == {1}


@pytest.mark.parametrize(("count", "most"), [(2, 0.501), (10, 0.126), (50, 0.069)])
def test_removing_an_endpoint_changes_few_slots(count: int, most: float) -> None:
    """`most` is the share of all slots that change, averaged over the removed endpoint. At least 1/N must."""
    whole = table(sockets(count))
    moves = [moved(whole, table([s for s in sockets(count) if s != gone])) for gone in sockets(count)]
    assert min(moves) >= SLOTS // count
    assert sum(moves) / count <= most * SLOTS


@pytest.mark.parametrize("count", [10, 50])
def test_the_table_does_not_depend_on_the_past(count: int) -> None:
    whole = table(sockets(count))
    assert table([*sockets(count)[1:], socket(0)]) == whole


@given(st.permutations(sockets(7)))
def test_the_order_does_not_matter(members: list[Socket]) -> None:
    assert table(members) == table(sockets(7))


@pytest.mark.parametrize("weights", [(1, 1), (2, 1), (3, 2, 1), (100, 1), (10, 10, 20)])
def test_slots_are_proportional_to_weights(weights: tuple[int, ...]) -> None:
    members = [socket(number) for number, weight in enumerate(weights) for _ in range(weight)]
    shares = Counter(table(members))
    for number, weight in enumerate(weights):
        assert abs(shares[socket(number)] - SLOTS * weight / sum(weights)) <= weight


@pytest.mark.parametrize(
    ("heavy", "light"),
    [((100, 100), (0, 1)), ((11, 100), (10, 1)), ((10, 100), (10, 50)), ((300, 100), (1, 1))],
)
def test_weights_beyond_the_number_of_slots(heavy: tuple[int, int], light: tuple[int, int]) -> None:
    """(number, weight) of endpoints: each gets a slot, and the shares remain about proportional."""
    weights = [heavy[1]] * heavy[0] + [light[1]] * light[0]
    shares = Counter(table([socket(n) for n, weight in enumerate(weights) for _ in range(weight)]))
    for number, weight in enumerate(weights):
        assert shares[socket(number)] >= 1
        assert abs(shares[socket(number)] - SLOTS * weight / sum(weights)) <= 2


def test_a_higher_weight_changes_few_slots() -> None:
    whole = table(sockets(10))
    assert moved(whole, table([*sockets(10), socket(0)])) <= 0.15 * SLOTS


def test_two_ports_of_an_address_are_two_endpoints() -> None:
    address, port = socket(0)
    assert len(set(table([(address, port), (address, port + 1)]))) == 2


def test_the_table_is_the_same_on_all_nodes() -> None:
    """And in all versions: if this test has to change, an upgrade moves clients to other endpoints."""
    begin = [3, 0, 3, 4, 3, 1, 0, 2, 2, 1, 4, 0, 1, 2, 2, 1, 0, 4, 1, 2]
    assert [address[3] for address, _ in table(sockets(5))[: len(begin)]] == begin

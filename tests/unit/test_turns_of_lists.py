"""Between the objects of a list, other tasks have their turn: after some objects, or after some time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from kproxy.limits import API_DECODED_AT_ONCE, API_TURN_SECONDS
from kproxy.sources.cluster import reflector


async def sizes(items: Iterator[int]) -> list[int]:
    return [len(part) async for part in reflector._parts(items)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, [API_DECODED_AT_ONCE, API_DECODED_AT_ONCE, 50]),
        (API_TURN_SECONDS / 9.5, [10] * 25),
        (15.0, [1] * 250),
    ],
)
def test_parts_of_a_list(seconds: float, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock advances by so much between two looks: at each object."""
    monkeypatch.setattr(reflector, "monotonic", map(seconds.__mul__, count()).__next__)
    assert asyncio.run(sizes(iter(range(250)))) == expected


def test_no_object_is_lost_between_parts() -> None:
    async def found() -> list[int]:
        return [item async for part in reflector._parts(iter(range(250))) for item in part]

    assert asyncio.run(found()) == list(range(250))

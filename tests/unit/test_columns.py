"""Custom columns and the order of `--sort-by`."""

from __future__ import annotations

from typing import Any

import pytest

from kproxy.problems import KproxyError, UsageError
from kproxy.show.columns import column_rows, parse_columns, sorted_by
from kproxy.show.jsonpath import Expression

OBJECTS: list[dict[str, Any]] = [
    {
        "metadata": {"name": "a", "labels": {"y": "2", "x": "1"}},
        "spec": {"ports": [{"port": 80}, {"port": 443}], "open": True},
    },
    {"metadata": {"name": "b"}, "spec": {"ports": []}},
]


@pytest.mark.parametrize(
    ("text", "headings", "first", "second"),
    [
        ("NAME:.metadata.name", "NAME", "a", "b"),
        ("NAME:metadata.name,N:{.metadata.name}", "NAME N", "a a", "b b"),
        ("PORTS:.spec.ports[*].port,X:.none", "PORTS X", "80,443 <none>", "<none> <none>"),
        ("P:.spec.ports", "P", "[map[port:80] map[port:443]]", "[]"),
        ("LABELS:.metadata.labels,OPEN:.spec.open", "LABELS OPEN", "map[x:1 y:2] true", "<none> <none>"),
        ("P:.spec.ports[0:0,0:0].port,:.metadata.name", "P ", "<none> a", "<none> b"),
        ("F:.spec.ports[?(@.port==80)].port", "F", "80", "<none>"),
    ],
)
def test_cells(text: str, headings: str, first: str, second: str) -> None:
    rows = [" ".join(row) for row in column_rows(parse_columns(text), OBJECTS)]
    assert rows == [headings, first, second]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "-o custom-columns= needs columns, such as NAME:.metadata.name,IP:.status.podIP."),
        ("NAME", "-o custom-columns: 'NAME' is not HEADER:PATH."),
        ("NAME:.a,", "-o custom-columns: '' is not HEADER:PATH."),
        ("NAME:", "JSONPath '' is not one path, such as .metadata.name."),
        ("NAME:.a[", "JSONPath '.a[', character 4: expected an index, a slice or a quoted key."),
    ],
)
def test_invalid_columns(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_columns(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["pod-10", "pod-9", "pod-9a", "a"], "a pod-9 pod-9a pod-10"),
        ([10, 9, 100], "9 10 100"),
        (["b", None, "a"], "None a b"),
        (["2026-01-05T09:30:00Z", "2025-12-31T09:30:00Z"], "2025-12-31T09:30:00Z 2026-01-05T09:30:00Z"),
        (["10.0.0.10", "10.0.0.9"], "10.0.0.9 10.0.0.10"),
        (["web", 80, "1", 9.5], "9.5 80 1 web"),
        (["9" * 5000, "9" * 4999], f"{'9' * 4999} {'9' * 5000}"),
        ([["b"], ["a"]], "['a'] ['b']"),
        ([], ""),
    ],
)
def test_sorting(values: list[Any], order: str) -> None:
    found = sorted_by(Expression(".x"), values, lambda value: {} if value is None else {"x": value})
    assert " ".join(map(str, found)) == order


def test_objects_with_equal_values_keep_their_order() -> None:
    items = [{"name": "b", "x": 1}, {"name": "a", "x": 1}]
    assert sorted_by(Expression("x"), items, lambda item: item) == items


def test_sorting_by_a_path_without_values() -> None:
    with pytest.raises(KproxyError, match=r"^--sort-by: no object has \.x\.$"):
        sorted_by(Expression(".x"), OBJECTS, lambda item: item)

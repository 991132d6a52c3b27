"""Any template, column or selector produces text, or an error message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kproxy.problems import KproxyError
from kproxy.show.columns import column_rows, parse_columns, sorted_by
from kproxy.show.jsonpath import Expression, Template
from kproxy.show.selectors import parse_selector

VALUES: dict[str, Any] = {"a": [1, {"b": "x"}, [True]], "b": {"c": "10", "a.b": 2.5}, "c": ""}
PIECES = [
    *("{", "}", "{.a[*]}", "{range .a[*]}", "{end}", ".", "..", "*", "[", "]", "?(", ")", "@", "$", ","),
    *(".a", ".b", ".c", "'a'", '"', "'", "\\", "\\n", "==", "<", "!", "=", "0", "-1", ":", " ", "true"),
    *("in (", "notin (", "x", "é", "\n"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=12)


def outcome(use: Callable[[], Any]) -> Any:
    """Return the result, or None after an error with a message. Any other exception fails the test."""
    try:
        return use()
    except KproxyError:
        return None


@given(texts)
def test_templates(text: str) -> None:
    rendered = outcome(lambda: Template(text).render(VALUES))
    assert rendered is None or isinstance(rendered, str)
    inside = outcome(lambda: Template("{.b" + text + "}").render(VALUES))
    assert inside is None or isinstance(inside, str)


@given(texts)
def test_expressions(text: str) -> None:
    found = outcome(lambda: Expression(text).values(VALUES))
    assert found is None or isinstance(found, list)
    rows = outcome(lambda: column_rows(parse_columns(f"H:{text}"), [VALUES]))
    assert rows is None or {len(row) for row in rows} == {len(rows[0])}
    items = [VALUES, {}, {"b": VALUES}]
    ordered = outcome(lambda: sorted_by(Expression(text), items, lambda item: item))
    assert ordered is None or len(ordered) == 3


@given(texts, st.dictionaries(st.sampled_from(["a", "x", "b"]), st.sampled_from(["", "0", "x"])))
def test_selectors(text: str, labels: dict[str, str]) -> None:
    parsed = outcome(lambda: parse_selector(text))
    assert parsed is None or isinstance(parsed.matches(labels), bool)

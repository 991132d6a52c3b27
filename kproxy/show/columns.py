"""`-o custom-columns` and `--sort-by`: cells and order by the values of JSONPath expressions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from kproxy.problems import KproxyError, UsageError
from kproxy.show.jsonpath import Expression
from kproxy.show.tables import NONE

T = TypeVar("T")
Manifest = dict[str, Any]
_BETWEEN = re.compile(r",(?![^\[]*\])")
_DIGITS = re.compile(r"([0-9]{1,18})")


class Column(NamedTuple):
    """A custom column."""

    heading: str
    expression: Expression


def parse_columns(text: str) -> tuple[Column, ...]:
    """Parse for example `NAME:.metadata.name,IP:.status.podIP`. Raises UsageError."""
    if not text:
        raise UsageError("-o custom-columns= needs columns, such as NAME:.metadata.name,IP:.status.podIP.")
    return tuple(map(_column, _BETWEEN.split(text)))


def _column(text: str) -> Column:
    heading, colon, path = text.partition(":")
    if not colon:
        raise UsageError(f"-o custom-columns: {text!r} is not HEADER:PATH.")
    return Column(heading, Expression(path))


def column_rows(columns: Sequence[Column], objects: Iterable[Manifest]) -> list[list[str]]:
    """Return the headings, and a row for each object."""
    rows = [[column.heading for column in columns]]
    rows += ([_cell(column.expression, each) for column in columns] for each in objects)
    return rows


def _cell(expression: Expression, manifest: Manifest) -> str:
    return ",".join(map(go_text, expression.values(manifest))) or NONE


def go_text(value: Any) -> str:
    """Return the text of a value in a cell, as kubectl and Go's `%v` print it: `map[app:web]`, `[a b]`."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return f"map[{' '.join(f'{key}:{go_text(each)}' for key, each in sorted(value.items()))}]"
        case list():
            return f"[{' '.join(map(go_text, value))}]"
        case _:
            return str(value)


def sorted_by(expression: Expression, items: Sequence[T], manifest: Callable[[T], Manifest]) -> list[T]:
    """Sort items by the value of an expression in their manifests. Items without a value come first.

    Numbers in strings are compared as numbers: pod-2 comes before pod-10. Raises KproxyError if no item has a
    value.
    """
    keyed = [(_key(expression.values(manifest(item))), item) for item in items]
    if keyed and not any(key for key, _ in keyed):
        raise KproxyError(f"--sort-by: no object has {expression}.")
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def _key(values: list[Any]) -> tuple[Any, ...]:
    """Return the sort key of values; () if there are none. Numbers come before strings."""
    if not values:
        return ()
    first = values[0]
    if isinstance(first, int | float):
        return 0, first
    parts = _DIGITS.split(go_text(first))
    return 1, [int(part) if index % 2 else part for index, part in enumerate(parts)]

"""`-o custom-columns` and `--sort-by`: what JSONPath expressions find, as cells and as an order. Pure."""

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
    """A column of a table of one's own."""

    heading: str
    expression: Expression


def parse_columns(text: str) -> tuple[Column, ...]:
    """`NAME:.metadata.name,IP:.status.podIP`; UsageError if it cannot be parsed."""
    if not text:
        raise UsageError("-o custom-columns= needs columns, such as NAME:.metadata.name,IP:.status.podIP.")
    return tuple(map(_column, _BETWEEN.split(text)))


def _column(text: str) -> Column:
    heading, colon, path = text.partition(":")
    if not colon:
        raise UsageError(f"-o custom-columns: {text!r} is not HEADER:PATH.")
    return Column(heading, Expression(path))


def column_rows(columns: Sequence[Column], objects: Iterable[Manifest]) -> list[list[str]]:
    """The headings, and a row for each object."""
    rows = [[column.heading for column in columns]]
    rows += ([_cell(column.expression, each) for column in columns] for each in objects)
    return rows


def _cell(expression: Expression, manifest: Manifest) -> str:
    return ",".join(map(go_text, expression.values(manifest))) or NONE


def go_text(value: Any) -> str:
    """As Go's `%v` prints it, and kubectl in such a cell: `map[app:web]`, `[a b]`."""
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
    """The items in the order of what is found in their manifests; those without it first.

    Numbers in strings count as numbers: pod-2 comes before pod-10. KproxyError if no item has it.
    """
    keyed = [(_key(expression.values(manifest(item))), item) for item in items]
    if keyed and not any(key for key, _ in keyed):
        raise KproxyError(f"--sort-by: no object has {expression}.")
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def _key(values: list[Any]) -> tuple[Any, ...]:
    """() for nothing; numbers before strings."""
    if not values:
        return ()
    first = values[0]
    if isinstance(first, int | float):
        return 0, first
    parts = _DIGITS.split(go_text(first))
    return 1, [int(part) if index % 2 else part for index, part in enumerate(parts)]

r"""kubectl's JSONPath templates: text, `{path}`, and `{range path}...{end}`.

The dialect is kubectl's (https://kubernetes.io/docs/reference/kubectl/jsonpath/), which differs from RFC
9535: paths are in braces and text is outside them, `$` and `@` both mean the current value and are optional,
a backslash escapes a dot in a key (`labels.kubernetes\.io/hostname`), and a quoted key is itself a path
(`['metadata.name']`). A missing value prints nothing, several values are separated by blanks, and lists and
objects are printed as JSON. As in kubectl, an index outside a list and a comparison of a number with a string
are errors, and there are no regular expressions. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from kproxy.problems import KproxyError, UsageError
from kproxy.show.jsonpath_parser import (
    OPERATORS,
    Descend,
    Field,
    Filter,
    Items,
    Literal,
    Parser,
    Parts,
    Path,
    Range,
    Step,
    Union,
    Wildcard,
)

LIMIT = 10_000_000
"""The maximum number of values that a template may visit. A template that visits more is a mistake."""


class Template:
    """A template of `-o jsonpath=`."""

    def __init__(self, text: str) -> None:
        """Parse a template. Raises UsageError, which names the position."""
        self._text = text
        self._parts = Parser(text).template()

    def render(self, value: Any) -> str:
        """Return the text for a value. Raises KproxyError if an index or a comparison is not possible."""
        return "".join(_Evaluation(self._text).render(self._parts, value))


class Expression:
    """A path of custom columns or `--sort-by`, in which braces and the first dot are optional."""

    def __init__(self, text: str) -> None:
        """Parse a path. Raises UsageError, which names the position."""
        found = re.fullmatch(r"\{\.?([^{}]+)\}|\.?([^{}]+)", text)
        if not found:
            raise UsageError(f"JSONPath {text!r} is not one path, such as .metadata.name.")
        group = 1 if found[1] else 2
        self._text = text
        self._path = Parser(text, f".{found[group]}}}", found.start(group) - 1).path("}")

    def __str__(self) -> str:
        return self._text

    def values(self, value: Any) -> list[Any]:
        """Return what the path finds. Raises KproxyError if an index or a comparison is not possible."""
        return _Evaluation(self._text).values(self._path, [value])


class _Evaluation:
    """One evaluation of a template. It counts the visited values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = LIMIT

    def render(self, parts: Parts, value: Any) -> Iterator[str]:
        """Return the parts of the text."""
        for part in parts:
            if isinstance(part, str):
                yield part
            elif isinstance(part, Range):
                for each in self.values(part.path, [value]):
                    yield from self.render(part.body, each)
            else:
                yield " ".join(map(text_of, self.values(part, [value])))

    def values(self, path: Path, values: list[Any]) -> list[Any]:
        """Return what a path finds in `values`."""
        for step in path:
            found = list(islice(self._step(step, values), self._left + 1))
            self._left -= len(found)
            if self._left < 0:
                raise KproxyError(f"JSONPath {self._text!r} visits more than {LIMIT} values.")
            values = found
        return values

    def _step(self, step: Step, values: list[Any]) -> Iterator[Any]:
        match step:
            case Field(key):
                return (value[key] for value in values if isinstance(value, dict) and key in value)
            case Wildcard():
                return (child for value in values for child in _children(value))
            case Descend():
                return _descendants(values)
            case Items():
                return (item for value in values for item in self._items(step, value))
            case Filter():
                return (item for value in values for item in self._filtered(step, value))
            case Union(paths):
                return (item for path in paths for item in self.values(path, values))
            case Literal(value):
                return iter([value])

    def _error(self, at: int, message: str) -> KproxyError:
        return KproxyError(f"JSONPath {self._text!r}, character {at}: {message}.")

    def _items(self, step: Items, value: Any) -> Sequence[Any]:
        if not isinstance(value, list):
            raise self._error(step.at, f"{_kind(value)} is not a list")
        length = len(value)
        if step.only is not None:
            start = step.only + (length if step.only < 0 else 0)
            self._check(step.at, start, length)
            return value[start : start + 1]
        start, stop = _end(step.start, 0, length), _end(step.stop, length, length)
        if start == stop:
            return []
        self._check(step.at, start, length)
        self._check(step.at, stop - 1, length)
        if start > stop:
            raise self._error(step.at, f"the slice begins at {start} and ends at {stop}")
        return value[start : stop : step.step or 1]

    def _check(self, at: int, index: int, length: int) -> None:
        if not 0 <= index < length:
            raise self._error(at, f"index {index} is out of bounds: the list has {length} items")

    def _filtered(self, step: Filter, value: Any) -> Iterator[Any]:
        if not isinstance(value, list):
            raise self._error(step.at, f"{_kind(value)} is not a list and cannot be filtered")
        for item in value:
            left = self.values(step.left, [item])
            right = self.values(step.right, [item]) if step.operator else left
            if left and right and (not step.operator or self._holds(step, left, right)):
                yield item

    def _holds(self, step: Filter, lefts: list[Any], rights: list[Any]) -> bool:
        if len(lefts) > 1 or len(rights) > 1:
            raise self._error(step.at, "a comparison needs one value on each side")
        left, right = lefts[0], rights[0]
        kind = _kind(left)
        if kind != _kind(right):
            raise self._error(step.at, f"cannot compare {kind} with {_kind(right)}")
        ordered = step.operator not in ("==", "!=")
        if kind in ("an object", "a list", "null") or (ordered and kind == "a boolean"):
            raise self._error(step.at, f"cannot compare {kind} by {step.operator}")
        return OPERATORS[step.operator](left, right)


def _end(index: int | None, default: int, length: int) -> int:
    """Return an end of a slice. A negative index counts from the end of the list."""
    if index is None:
        return default
    return index + length if index < 0 else index


def _kind(value: Any) -> str:
    for of, name in ((bool, "a boolean"), (int | float, "a number"), (str, "a string"), (list, "a list")):
        if isinstance(value, of):
            return name
    return "null" if value is None else "an object"


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _descendants(values: list[Any]) -> Iterator[Any]:
    """Return the values and everything below them that is an object or a list, parents before children."""
    waiting = values[::-1]
    while waiting:
        value = waiting.pop()
        if children := _children(value):
            yield value
            waiting.extend(reversed(children))


def text_of(value: Any) -> str:
    """Return a value as kubectl prints it: strings unchanged, lists and objects as JSON in one line."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)

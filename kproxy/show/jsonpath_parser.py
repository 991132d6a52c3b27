"""Parses kubectl's JSONPath templates into paths and texts.

A `Template` or an `Expression` (jsonpath.py) evaluates them. Errors name the position, counted from 1.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from kproxy.problems import UsageError

DEPTH = 20
"""The maximum nesting of ranges and filters."""


class Field(NamedTuple):
    """The value of a key."""

    key: str


class Wildcard(NamedTuple):
    """All values of an object or a list."""


class Descend(NamedTuple):
    """The value itself, and everything below it that is an object or a list."""


class Items(NamedTuple):
    """Items of a list: one (`[0]`), or a slice (`[0:2]`, `[*]`)."""

    at: int
    """The position in the template, counted from 1."""
    only: int | None
    start: int | None = None
    stop: int | None = None
    step: int | None = None


class Union(NamedTuple):
    """The values of several paths."""

    paths: tuple[Path, ...]


class Filter(NamedTuple):
    """The items of a list for which a comparison is true, or without an operator, `left` exists."""

    at: int
    left: Path
    operator: str = ""
    right: Path = ()


class Literal(NamedTuple):
    """A string, a number, true or false."""

    value: str | int | float | bool


Step: TypeAlias = Field | Wildcard | Descend | Items | Union | Filter | Literal
Path: TypeAlias = tuple[Step, ...]


class Range(NamedTuple):
    """Parts that are repeated for each value of a path."""

    path: Path
    body: Parts


Part: TypeAlias = str | Path | Range
Parts: TypeAlias = "tuple[Part, ...]"

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_WORD = re.compile(r"[A-Za-z_]\w*")
_NUMBER = re.compile(r"[+-]?[\d.]+")
_INDEX = re.compile(r"(-?\d{1,9})?(?:(:)(-?\d{1,9})?)?(?::(-?\d{1,9})?)?")
_OPERATOR = re.compile(r"[!<>=~]*")
_QUOTED = {quote: re.compile(rf"{quote}((?:\\.|[^\\{quote}])*){quote}", re.DOTALL) for quote in "'\""}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = dict(zip("ntrabfv\\'\"", "\n\t\r\a\b\f\v\\'\"", strict=True))
_BOOLEANS = {"true": True, "false": False}


class Parser:
    """Reads a template from left to right."""

    def __init__(self, whole: str, text: str | None = None, offset: int = 0) -> None:
        """`text` is the part of `whole` to parse. It begins at `offset`."""
        self._whole = whole
        self._text = whole if text is None else text
        self._offset = offset
        self._at = 0
        self._depth = 0

    def template(self) -> Parts:
        """Parse the whole text."""
        return self._parts()

    def _error(self, message: str) -> UsageError:
        return UsageError(f"JSONPath {self._whole!r}, character {self._place()}: {message}.")

    def _place(self) -> int:
        return max(1, self._at + self._offset + 1)

    def _next(self) -> str:
        """Return the next character; "" at the end."""
        return self._text[self._at : self._at + 1]

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Consume text that matches a pattern; None if the text here does not match."""
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return found

    def _blanks(self) -> None:
        while self._next().isspace():
            self._at += 1

    def _expect(self, text: str) -> None:
        self._blanks()
        if not self._text.startswith(text, self._at):
            raise self._error(f"expected {text!r}")
        self._at += len(text)

    def _nested(self, parse: Callable[[], Any]) -> Any:
        self._depth += 1
        if self._depth > DEPTH:
            raise self._error("nested too deeply")
        parsed = parse()
        self._depth -= 1
        return parsed

    def _parts(self) -> Parts:
        """Parse up to and including `{end}`, or up to the end of the text."""
        parts: list[Part] = []
        while self._at < len(self._text):
            start = self._text.find("{", self._at)
            text = self._text[self._at : start if start >= 0 else None]
            self._at += len(text)
            parts += [text] if text else []
            if start >= 0 and not self._action(parts):
                break
        return tuple(parts)

    def _action(self, parts: list[Part]) -> bool:
        """Parse `{...}`. Returns False if it is `{end}`."""
        self._expect("{")
        self._blanks()
        start = self._at
        word = found[0] if (found := self._take(_WORD)) else ""
        if word == "end":
            if not self._depth:
                self._at = start
                raise self._error("{end} without {range}")
            self._expect("}")
            return False
        if word != "range":
            self._at = start
        path = self.path("}")
        self._expect("}")
        parts.append(Range(path, self._nested(self._parts)) if word == "range" else path)
        return True

    def path(self, stops: str) -> Path:
        """Parse up to one of the characters `stops`, which is not consumed."""
        steps: list[Step] = []
        while not (here := self._next()) or here not in stops:
            if not here:
                raise self._error(f"expected {stops[0]!r}")
            if here.isspace() or here in "@$":
                self._at += 1
            else:
                steps += self._steps(here, stops)
        return tuple(steps)

    def _steps(self, here: str, stops: str) -> Sequence[Step]:
        if self._text.startswith("..", self._at):
            return self._descend(stops)
        if here == ".":
            self._at += 1
            return self._field(stops)
        if here == "[":
            return [self._bracket()]
        if here in "'\"":
            return [Literal(self._quoted())]
        if here in "+-" or here.isdigit():
            return [Literal(self._number())]
        return [Literal(self._boolean(here))]

    def _descend(self, stops: str) -> Sequence[Step]:
        self._at += 2
        if self._next() == ".":
            raise self._error("too many dots")
        return Descend(), *self._field(stops)

    def _field(self, stops: str) -> Sequence[Step]:
        """Parse a key or `*`. If there is neither, the path is the value itself."""
        pattern = re.compile(rf"(?:\\.|[^\\\s.,\[\]$@{{}}{re.escape(stops)}])*", re.DOTALL)
        found = self._take(pattern)
        assert found is not None  # it may be empty
        if found[0] == "*":
            return [Wildcard()]
        return [Field(found[0].replace("\\", ""))] if found[0] else []

    def _number(self) -> int | float:
        found = self._take(_NUMBER)
        text = found[0] if found else ""
        try:
            return float(text) if "." in text else int(text)
        except ValueError:
            raise self._error(f"{text!r} is not a number") from None

    def _boolean(self, here: str) -> bool:
        start, found = self._at, self._take(_WORD)
        if found and found[0] in _BOOLEANS:
            return _BOOLEANS[found[0]]
        self._at = start
        raise self._error(
            f"unexpected {found[0] if found else here!r}{'; a field begins with a dot' if found else ''}"
        )

    def _quoted(self) -> str:
        """Parse a string in quotes, with Go's escapes."""
        start, found = self._at, self._take(_QUOTED[self._next()])
        if not found:
            raise self._error("the closing quote is missing")
        try:
            return _ESCAPE.sub(_unescaped, found[1])
        except ValueError as error:
            self._at = start
            raise self._error(str(error)) from None

    def _bracket(self) -> Step:
        """Parse `[0]`, `[1:3]`, `[*]`, `['key']`, several of these with commas, or `[?(...)]`."""
        if self._text.startswith("[?(", self._at):
            filtered: Filter = self._nested(self._filter)
            return filtered
        self._at += 1
        paths = [self._item()]
        while self._next() == ",":
            self._at += 1
            paths.append(self._item())
        self._expect("]")
        return paths[0][0] if len(paths) == 1 and len(paths[0]) == 1 else Union(tuple(paths))

    def _item(self) -> Path:
        """Parse the text between two commas in brackets."""
        self._blanks()
        place, here = self._place(), self._next()
        if here and here in "'\"":
            path = self._key(here)
        elif here == "*":
            self._at += 1
            path = (Items(place, None),)
        else:
            path = (self._index(place),)
        self._blanks()
        return path

    def _key(self, quote: str) -> Path:
        self._at += 1
        steps = list(self._field(quote))
        while self._next() == ".":
            self._at += 1
            steps += self._field(quote)
        self._expect(quote)
        return tuple(steps)

    def _index(self, place: int) -> Items:
        found = self._take(_INDEX)
        if not found or not found[0]:
            raise self._error("expected an index, a slice or a quoted key")
        start, colon, stop, step = found.groups()
        if not colon:
            return Items(place, int(start))
        numbers = [None if text is None else int(text) for text in (start, stop, step)]
        if numbers[2] is not None and numbers[2] < 1:
            raise self._error("the step of a slice must be at least 1")
        return Items(place, None, *numbers)

    def _filter(self) -> Filter:
        """Parse for example `[?(@.type=="x")]`."""
        place = self._place()
        self._at += len("[?(")
        left = self.path(")!<>=~")
        found = self._take(_OPERATOR)
        name = found[0] if found else ""
        if name and name not in OPERATORS:
            self._at -= len(name)
            raise self._error(f"unknown operator {name!r}, expected one of {', '.join(OPERATORS)}")
        right = self.path(")") if name else ()
        self._expect(")")
        self._expect("]")
        return Filter(place, left, name, right)


def _unescaped(found: re.Match[str]) -> str:
    """Return the character of an escape sequence. Raises ValueError if there is no such character."""
    if digits := found[1] or found[2] or found[3]:
        number = int(digits, 16)
        if 0xD800 <= number < 0xE000 or number > 0x10FFFF:
            raise ValueError(f"{found[0]} is not a character")
        return chr(number)
    if found[4] not in _ESCAPED:
        raise ValueError(f"unknown escape {found[0]}")
    return _ESCAPED[found[4]]

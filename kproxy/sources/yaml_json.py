"""A YAML document -> JSON text, with the values that kubectl reads in it.

kubectl converts YAML to JSON, too (sigs.k8s.io/yaml). libyaml parses, and each event becomes text at
once: the objects of Python that PyYAML makes for a large List take 50 times as much memory as its text. A
collection is joined when it ends, so a key that occurs twice is found there, and the last value counts.

The content of an alias is copied. So a few lines could stand for more values than fit into memory, and what a
document copies is counted. Its values are counted by the commas of JSON, and long texts as several.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable
from math import isinf
from typing import Any

import msgspec
import yaml
from msgspec import Raw
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from kproxy.decode.text import from_json
from kproxy.limits import YAML_LEVELS, YAML_LONG_TEXT, YAML_SPARE_VALUES

CHUNK = 1 << 14
"""The number of characters that the parser takes at once."""
SCALARS, FORMS = 10_000, 1000
"""The maximum numbers of scalars and of forms of mappings whose JSON is kept."""

_TAG = "tag:yaml.org,2002:"
_COLLECTIONS = {"!", *(f"{_TAG}{name}" for name in ("map", "seq", "set", "omap", "pairs"))}
_MERGE = r'"\u003c<"'
"""JSON for the key `<<` without quotes. With quotes it is an ordinary key, written as it is."""
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), "null"),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), "true"),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), "false"),
    "<<": _MERGE,
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TAGGED = {
    "null": "null",
    "bool": "true|false",
    "int": "-?[0-9]+",
    "float": "-?[0-9].*",
    "timestamp": r'"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?"',
}
"""What the JSON of a scalar with this tag looks like."""
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


_encode = msgspec.json.Encoder().encode


class NotJSONError(ValueError):
    """A value that JSON does not have."""


class TooDeepError(ValueError):
    """A document has too many levels."""


class _Plain(dict[str, str]):
    """The JSON of scalars without quotes, by their text. The first ones are kept: most occur often."""

    def __missing__(self, text: str) -> str:
        found = _number(text) if text[0] in "+-.0123456789" else quoted(text)
        if len(self) < SCALARS:
            self[text] = found
        return found


def _number(text: str) -> str:
    """Return the JSON of a scalar that begins as a number. Raises NotJSONError, ValueError."""
    digits = text.replace("_", "") if text[0] != "." else text
    if found := _INTEGER.fullmatch(digits):
        sign, *by_base = found.groups()
        number = next(int(part, base) for part, base in zip(by_base, _BASES, strict=True) if part)
        return str(-number if sign == "-" else number)
    if _NOT_FINITE.fullmatch(text):
        raise NotJSONError(f"{text} is not a number of JSON")
    if not _FLOAT.fullmatch(digits):
        return quoted(text)
    value = float(digits)
    if isinf(value):
        raise NotJSONError(f"{text} is too large a number")
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def quoted(text: str) -> str:
    """Return a text as JSON."""
    return _encode(text).decode()


class Converter:
    """Converts one document after another. The JSON of scalars and keys that they have in common is kept."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        """`check` is called often, and may raise to end a conversion."""
        self._check = check
        self._plain = _Plain(_WORDS)
        self._forms: dict[tuple[str, ...], str] = {}

    def to_json(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Return the JSON of a text with at most one document, and the keys that a mapping of it has twice.

        The JSON of a text without a document is "". Raises what `check` raises, yaml.YAMLError, ValueError,
        TooDeepError, RecursionError.
        """
        document = _Document(text, self._check, self._plain, self._forms)
        try:
            return document.read(), tuple(document.repeated)
        finally:
            document.loader.dispose()


class _Stream:
    """A text from which a parser takes parts, so that reading can be given up between two parts."""

    def __init__(self, text: str, check: Callable[[], None]) -> None:
        self._text = text
        self._position = 0
        self._check = check

    def read(self, size: int = CHUNK, /) -> str:
        """Return the next part. Raises what `check` raises."""
        self._check()
        start, self._position = self._position, self._position + size
        return self._text[start : self._position]


class _Document:
    """The conversion of one document, with the collections that are open."""

    def __init__(
        self, text: str, check: Callable[[], None], plain: _Plain, forms: dict[tuple[str, ...], str]
    ) -> None:
        """`forms`: by the keys of a mapping, its JSON with `%s` for each value. Those of `text` are added."""
        self.loader = yaml.CSafeLoader(_Stream(text, check))
        self.repeated: list[str] = []
        self._plain = plain
        self._forms = forms
        self._anchors: dict[str, str] = {}
        self._most_values = self._values_left = len(text) + YAML_SPARE_VALUES
        self._open: list[tuple[CollectionStartEvent, list[str]]] = []
        """The events that began the open collections, and the items of the collection around each."""

    def read(self) -> str:
        """Return the JSON of the document. This loop takes half of the time, so it calls little."""
        get_event: Callable[[], Any] = self.loader.get_event
        plain, items = self._plain, list[str]()
        while (kind := (event := get_event()).__class__) is not StreamEndEvent:
            if kind is ScalarEvent:
                text = plain[event.value] if event.implicit[0] else _not_plain(event, plain)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                self._begin(event, items)
                items = []
                continue
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                content, (event, items) = items, self._open.pop()
                text = self._mapping(event, content) if kind is MappingEndEvent else f"[{','.join(content)}]"
                # The text is copied at each level, and kept for an anchor.
                self._values_left -= len(text) // (YAML_LONG_TEXT if event.anchor else 10 * YAML_LONG_TEXT)
                if self._values_left < 0:
                    raise TooDeepError("too much text below many levels")
            elif kind is AliasEvent:
                items.append(self._copy(event))
                continue
            else:
                _check_single(event, items)
                continue
            if event.anchor is not None:
                self._anchors[event.anchor] = text
            items.append(text)
        return items[0] if items else ""

    def _begin(self, event: CollectionStartEvent, items: list[str]) -> None:
        if event.tag is not None and event.tag not in _COLLECTIONS:
            raise _unknown_tag(event)
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
        self._open.append((event, items))
        if len(self._open) > YAML_LEVELS:
            raise TooDeepError(f"more than {YAML_LEVELS} levels")

    def _copy(self, event: AliasEvent) -> str:
        name = event.anchor or ""
        if name not in self._anchors:
            is_open = any(begin.anchor == name for begin, _ in self._open)
            what = "its aliases contain themselves" if is_open else "found undefined alias"
            raise ComposerError(None, None, what, _mark(event))
        text = self._anchors[name]
        self._values_left -= 1 + text.count(",") + len(text) // YAML_LONG_TEXT
        if self._values_left < 0:
            what = f"its aliases stand for more than {self._most_values} values"
            raise ComposerError(None, None, what, _mark(event))
        return text

    def _mapping(self, event: CollectionStartEvent, items: list[str]) -> str:
        """Return an object of JSON; `items` are keys and values in turn."""
        keys, values = tuple(items[::2]), tuple(items[1::2])
        if keys in self._forms:
            return self._forms[keys] % values
        if len(set(keys)) == len(keys) and all(key[0] == '"' and key != _MERGE for key in keys):
            form = f"{{{','.join(key.replace('%', '%%') + ':%s' for key in keys)}}}"
            if len(self._forms) < FORMS:
                self._forms[keys] = form
            return form % values
        return f"{{{','.join(map(':'.join, self._resolved(event, keys, values)))}}}"

    def _resolved(
        self, event: CollectionStartEvent, keys: Iterable[str], values: Iterable[str]
    ) -> Iterable[tuple[str, str]]:
        """Return the pairs of a mapping with keys as text, each once, and without merge keys."""
        keys = [key if key[0] == '"' else _key(event, key) for key in keys]
        pairs = dict(zip(keys, values, strict=True))
        if len(pairs) < len(keys):
            self.repeated += (
                from_json(key.encode(), str) for key, times in Counter(keys).items() if times > 1
            )
        if _MERGE in pairs:
            pairs = _merged(event, pairs)
        return pairs.items()


def _check_single(event: Event, items: list[str]) -> None:
    if isinstance(event, DocumentStartEvent) and items:
        what = "expected a single document in the stream"
        raise ComposerError(what, None, "but found another document", _mark(event))


def _mark(event: Event) -> Any:
    return event.start_mark


def _not_plain(event: ScalarEvent, plain: _Plain) -> str:
    """Return the JSON of a scalar in quotes, as a block, or with a tag. Raises yaml.YAMLError, ValueError."""
    tag = (event.tag or "").removeprefix(_TAG)
    if event.implicit[1] or tag == "str":
        return quoted(event.value)
    if tag == "binary":
        return quoted(b64decode(event.value).decode())
    if tag not in _TAGGED:
        raise _unknown_tag(event)
    text = plain[event.value] if tag != "timestamp" else quoted(event.value)
    if not re.fullmatch(_TAGGED[tag], text):
        raise ConstructorError(None, None, f"found a value that is not of the tag !!{tag}", _mark(event))
    return text


def _unknown_tag(event: ScalarEvent | CollectionStartEvent) -> ConstructorError:
    return ConstructorError(None, None, f"found the unknown tag {event.tag!r}", _mark(event))


def _key(event: CollectionStartEvent, text: str) -> str:
    """Return the JSON of a key that is not text: true, false and numbers become text, as in kubectl."""
    if text[0] in "{[" or text == "null":
        raise ConstructorError(None, None, "found a key that is not text", _mark(event))
    return quoted(text)


def _merged(event: CollectionStartEvent, pairs: dict[str, str]) -> dict[str, str]:
    """Return the pairs of a mapping and those of its merge key, of which its own and the first ones count."""
    text = pairs.pop(_MERGE).encode()
    try:
        found = from_json(text, list[dict[str, Raw]] if text[:1] == b"[" else dict[str, Raw])
    except msgspec.ValidationError:
        what = "expected a mapping or list of mappings for merging"
        raise ConstructorError(None, None, what, _mark(event)) from None
    merged: dict[str, str] = {}
    for mapping in reversed(found if isinstance(found, list) else [found]):
        merged |= {quoted(key): bytes(value).decode() for key, value in mapping.items()}
    return merged | pairs

"""Errors of msgspec in the terms of a manifest: the field with its key, the value, and what is expected."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET

from kproxy.decode.fields import FieldError
from kproxy.decode.schema import all_fields
from kproxy.decode.text import TooManyError, reason, too_many
from kproxy.problems import LONGEST_WORD, most_similar

TYPES = {
    "int": "a number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
IS_MISSING = "is missing"
MANY_KEYS = 100
"""The maximum number of keys that are compared with a missing one."""
RENDER_FIRST = "a template: render it first"
LONGEST = 60
"""The maximum length of a value in a message."""
_WRONG_TYPE = r"Expected `([^`]*)`(?:, got `([^`]*)`)?"
_TOO_MANY = r"Expected `(?:array|object)` of length <= (\d+)"
_MISSING = r"Object missing required field `(\w+)`"
_STEP = r"([^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])"
_TEMPLATE = r"\{\{|\{%|<%|\$\{|\$\(|\$[A-Z_]"
"""What templates contain where a value is to be filled in."""


def describe(error: Exception, content: Any) -> tuple[str, str]:
    """Return field and message of an error; `content` is the object as a value of Python, UNSET if unknown.

    msgspec's form is: Expected `int`, got `str` - at `$.spec.port`.
    """
    if isinstance(error, FieldError):
        message = _missing(content, error.path) if str(error) == IS_MISSING else str(error)
        return error.path, f"{message}: {RENDER_FIRST}" if re.search(_TEMPLATE, message) else message
    if isinstance(error, TooManyError):
        return error.path, str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "", reason(error)
    message, _, place = str(error).partition(" - at ")
    in_key = place.startswith("`key`")
    path = place.removeprefix("`key` in ").strip("`").removeprefix("$").lstrip(".")
    if missing := re.fullmatch(_MISSING, message):
        path = f"{path}.{missing[1]}".lstrip(".")
        return path, _missing(content, path)
    if items := re.fullmatch(_TOO_MANY, message):
        return path, too_many(int(items[1]))
    found = re.fullmatch(_WRONG_TYPE, message)
    if found and not in_key and content is not UNSET:
        expected = [name for name in found[1].split(" | ") if name != "null"]
        try:
            path, value = _look_up(content, path)
            return path, expectation(expected, value)
        except LookupError:
            pass
    return path, message.replace("`", "").replace(" | null", "").replace("Expected", "expected", 1)


def _missing(content: Any, path: str) -> str:
    """Return `is missing`, and a similar key in its place that is no field of the API."""
    parent, _, field = path.rpartition(".")
    try:
        _, value = _look_up(content, parent)
    except LookupError:
        return IS_MISSING
    keys = value if isinstance(value, dict) else {}
    words = (key for key in keys if isinstance(key, str) and len(key) <= LONGEST_WORD)
    similar = most_similar(field, islice((w for w in words if w not in all_fields()), MANY_KEYS), 0.8)
    return f"{IS_MISSING}, but there is {shown(similar)}" if similar else IS_MISSING


def _look_up(content: Any, path: str) -> tuple[str, Any]:
    """Return the value at a path, and the path with the key of a map of strings in place of `[...]`.

    Raises LookupError if there is none: of a key that occurs twice, msgspec checks all values, and `content`
    has the last one.
    """
    for name, index, any_key in re.findall(_STEP, path):
        try:
            if any_key:
                key = next((key for key, value in content.items() if not isinstance(value, str | None)), "")
                path, content = path.replace(any_key, f"[{key}]"), content.get(key)
            else:
                content = content[int(index)] if index else content[name]
        except (AttributeError, TypeError) as error:
            raise LookupError(path) from error
    return path, content


def expectation(expected: list[str], value: Any) -> str:
    """Return what was expected (in msgspec's names of types), the value, and a correction if one is known."""
    wanted = " or ".join(dict.fromkeys(TYPES.get(name, name) for name in expected))
    message = f"expected {wanted}, got {shown(value)}"
    hint = _hint(expected, value)
    return f"{message}: {hint}" if hint else message


def _hint(expected: list[str], value: Any) -> str:
    if isinstance(value, str):
        if re.search(_TEMPLATE, value):
            return RENDER_FIRST
        is_number = "int" in expected and re.fullmatch(r"[0-9]+", value)
        is_truth = "bool" in expected and value in ("true", "false")
        return "without quotes" if is_number or is_truth else ""
    if "int" in expected and isinstance(value, float):
        return "a whole number"
    return "in quotes" if expected == ["str"] and isinstance(value, bool | int | float) else ""


def shown(value: Any) -> str:
    """Return a value as JSON writes it; of a list or an object only what it is."""
    if isinstance(value, list | dict):
        return TYPES["array" if isinstance(value, list) else "object"]
    if not isinstance(value, str | bool | int | float | None):
        return type(value).__name__
    import json  # not at the top: most input is right

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

"""Decodes JSON, and describes errors in it. No other module calls the decoder of JSON.

`protobuf.py` decodes the other encoding of an API server. It is imported only if a server sends that.

The decoder raises exceptions of many types, depending on the input: its own, and Python's for bytes that are
not UTF-8, for nesting deeper than the stack, or for memory. Callers have to expect one type.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from kproxy.limits import OBJECT_ITEMS, OBJECT_VALUES

T = TypeVar("T")

_NOT_BEFORE_VALUES = bytes(set(range(256)) - set(b",[{"))


class Encoded:
    """An object in another encoding than JSON: the base class of `protobuf.Protobuf`."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def convert(self, kind: type[T]) -> T:
        """Decode it to a type of `wire`. Raises MalformedError."""
        raise NotImplementedError

    def to_python(self) -> Any:
        """Return what names it, as a loaded value; UNSET if that is impossible."""
        raise NotImplementedError


class MalformedError(msgspec.DecodeError):
    """Bytes are not JSON or protobuf, or a value cannot be represented. The message has no full stop."""


class TooManyError(msgspec.DecodeError):
    """A list or a map of an object in protobuf has too many items. `path` names it, without indices."""

    def __init__(self, path: str) -> None:
        super().__init__(too_many(OBJECT_ITEMS))
        self.path = path


def too_many(items: int) -> str:
    """Return the message about a list or a map."""
    return f"has more than {items:,} items"


def from_json(text: bytes | bytearray | Raw, kind: type[T]) -> T:
    """Decode JSON. Raises msgspec.ValidationError if it is not of this type, otherwise MalformedError."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except Exception as error:
        raise MalformedError(reason(error)) from None


def most_values(text: bytes) -> int:
    """Return a number that the values in a JSON text do not exceed much, without decoding it.

    Before each value is one of these characters, except before the values of objects. These have keys.
    """
    return len(text.translate(None, _NOT_BEFORE_VALUES))


def has_too_many_values(content: Any) -> bool:
    """Whether an object is a JSON text with more values than allowed. Most are too short for that."""
    if not isinstance(content, Raw) or len(memoryview(content)) <= OBJECT_VALUES:
        return False
    return most_values(bytes(content)) > OBJECT_VALUES


def to_python(content: Any) -> Any:
    """Return an object as a value of Python, to describe errors in it; UNSET if that is impossible.

    Numbers that msgspec refuses, and bytes that are not UTF-8, do not matter for this.
    """
    if isinstance(content, Encoded):
        return content.to_python()
    if not isinstance(content, Raw):
        return content
    try:
        return from_json(content, Any)
    except msgspec.DecodeError:
        pass
    import json  # not at the top: most input is right

    try:
        return json.loads(bytes(content).decode(errors="replace"), parse_int=_integer)
    except Exception:
        return UNSET


def reason(error: Exception) -> str:
    """Describe an exception of a decoder, as a part of a sentence."""
    match error:
        case UnicodeDecodeError():
            return f"is not {error.encoding.upper()} (byte {error.start})"
        case RecursionError():
            return "is nested too deeply"
        case MemoryError():
            return "is too large for the memory"
        case msgspec.DecodeError() | ValueError():
            return str(error)
    return f"cannot be decoded ({type(error).__name__}: {error})"


def _integer(digits: str) -> float | int:
    return int(digits) if len(digits) < 100 else float("inf")

"""Types that accept every field of the API and no others: the short way for objects without a mistake.

A type of `wire` has the fields that kproxy reads, a type of `schema` those that exist. Of both a third type is
made, which msgspec decodes in one pass: what it accepts is valid for `wire`, and has no unknown field. It does
not say what is wrong with other objects. Their errors and unknown fields are found by the types of which it was made.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Raw, Struct

from kproxy.decode.schema import fields
from kproxy.decode.wire import Wire

T = TypeVar("T")

Nothing = Annotated[str, Meta(min_length=1, max_length=0)]
"""No value is of this type: a field that another version of the kind has."""


def strictly(text: Raw, wire: type[T], schema: str) -> T | None:
    """Decode JSON text as a type of `wire`; None if it is invalid, or if it has a field that `schema` lacks."""
    try:
        found: T = _decoder(wire, schema).decode(text)
    except Exception:  # of any type, as in text.py
        return None
    return found


@cache
def _decoder(wire: type[Any], schema: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_type(wire, schema))


@cache
def _type(wire: type[Any], schema: str) -> Any:
    """Return a subclass of a type of `wire` with all fields of a type of `schema`."""
    read = {field.encode_name: field for field in msgspec.structs.fields(wire)}
    known = fields(schema)
    members: list[Any] = []
    for name, field in read.items():
        type_ = _narrowed(field.type, known[name]) if name in known else Nothing
        members.append((field.name, type_, msgspec.field(default=field.default, name=name)))
    members += [(name, _unread(type_), None) for name, type_ in known.items() if name not in read]
    return msgspec.defstruct(
        schema, members, bases=(wire,), forbid_unknown_fields=True, kw_only=True, gc=False
    )


def _narrowed(type_: Any, schema: str) -> Any:
    """Return a type of a field with the strict type of each struct in it."""
    if isinstance(type_, type) and issubclass(type_, Struct):
        return _type(type_, schema) if schema else type_
    if get_origin(type_) in (list, Union, UnionType):
        args = [_narrowed(arg, schema) for arg in get_args(type_)]
        return list[args[0]] if get_origin(type_) is list else reduce(or_, args)  # type: ignore[valid-type]
    return type_


def _unread(schema: str) -> Any:
    """Return the type of a field that kproxy does not read."""
    if not schema:
        return Raw
    struct = _type(Wire, schema)
    return struct | list[struct] | None

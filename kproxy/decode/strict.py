"""Types that accept all fields of the Kubernetes API and no others: the short way for usual objects.

A type of `wire` has the fields that kproxy reads, a type of `schema` the fields that exist. From both, this
module makes a third type, which msgspec decodes in one pass. What it accepts is valid for `wire` and has no
unknown field. For other objects, the first two types tell what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Raw, Struct

from kproxy.decode.schema import fields
from kproxy.decode.text import from_json
from kproxy.decode.wire import EndpointSlice, Service, TypeMeta, Wire

T = TypeVar("T")

IDENTITY = ("kind", "apiVersion")
"""The fields of each object that tell what it is."""
USUAL = (
    (TypeMeta("EndpointSlice", "discovery.k8s.io/v1"), EndpointSlice),
    (TypeMeta("Service", "v1"), Service),
)
"""The kinds of most items of Lists, in the order in which they are tried."""

Nothing = Annotated[str, Meta(min_length=1, max_length=0)]
"""The type of a field that kproxy reads in another version of the kind: no value has it."""


def usual_item(content: Any) -> tuple[TypeMeta, Any] | None:
    """Return what an item of a List is, and what `strictly` returns for it; None for unusual items.

    Most items of most Lists are of the kinds of `USUAL`. This saves a pass that only finds out their kind.
    An EndpointSlice is tried first, because its kind comes after its endpoints. An object of another kind
    soon has a field that is unknown here.
    """
    for meta, wire in USUAL:
        found: Any = strictly(content, wire, meta.kind or "")
        if found is not None and (found.kind, found.apiVersion) == (meta.kind, meta.api_version):
            return meta, found
    return None


def strictly(content: Any, wire: Callable[..., T], schema: str) -> T | None:
    """Decode JSON text as a type of `wire`; None if it is invalid or has a field that is not in `schema`.

    Of a loaded value, None is returned, too.
    """
    if not isinstance(content, Raw):
        return None
    try:
        found: T = from_json(content, _type(wire, schema))
    except msgspec.DecodeError:
        return None
    return found


@cache
def _type(wire: Any, schema: str) -> Any:
    """Return a subclass of a type of `wire`, with all fields of a type of `schema`."""
    read = {field.encode_name: field for field in msgspec.structs.fields(wire)}
    known = fields(schema)
    members: list[Any] = []
    for name, field in read.items():
        type_ = _narrowed(field.type, known[name]) if name in known else Nothing
        members.append((field.name, type_, msgspec.field(default=field.default, name=name)))
    members += [(name, _unread(name, type_), None) for name, type_ in known.items() if name not in read]
    return msgspec.defstruct(
        schema, members, bases=(wire,), forbid_unknown_fields=True, kw_only=True, gc=False
    )


def _narrowed(type_: Any, schema: str) -> Any:
    """Return the type of a field with each struct in it replaced by its strict type."""
    if isinstance(type_, type) and issubclass(type_, Struct):
        return _type(type_, schema) if schema else type_
    if get_origin(type_) is Annotated:
        return Annotated[_narrowed(type_.__origin__, schema), *type_.__metadata__]
    if get_origin(type_) in (list, Union, UnionType):
        args = [_narrowed(each, schema) for each in get_args(type_)]
        return list[args[0]] if get_origin(type_) is list else reduce(or_, args)  # type: ignore[valid-type]
    return type_


def _unread(name: str, schema: str) -> Any:
    """Return the type of a field that `wire` does not have. Only the fields of its objects are checked."""
    if not schema:
        return str | None if name in IDENTITY else Raw
    each = _type(Wire, schema)
    return each | list[each] | None  # type: ignore[valid-type]

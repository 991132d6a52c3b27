"""One document -> its objects, each decoded alone. A List contains objects and Lists.

What this returns does not depend on other documents. So it is kept as long as the document stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct, UnsetType
from msgspec.structs import replace

from kproxy.decode import wire
from kproxy.decode.explain import describe
from kproxy.decode.fields import annotations_text, object_name
from kproxy.decode.kinds import LIST, LISTS
from kproxy.decode.objects import Object, UndecodableError, Unreadable, convert, decode_object
from kproxy.decode.strict import usual_item
from kproxy.decode.text import to_python
from kproxy.decode.workload import workload
from kproxy.limits import DOCUMENTS
from kproxy.model import NamespacedName, Workload
from kproxy.problems import Problem


class Document(Struct, frozen=True):
    """One top-level object of the input: JSON text (`Raw`), or a value loaded from YAML."""

    source: str
    content: Any
    number: int = 1
    """The first document of a file is 1."""
    line: int = 1
    """The line of the file on which it begins."""
    repeated: tuple[str, ...] = ()
    """Keys that a mapping of it has twice."""
    head: wire.Head | None = None
    """What it is, if that was read together with its text."""

    @property
    def place(self) -> str:
        """Where it is in its file."""
        return f"document {self.number} (line {self.line})"


class Invalid(Struct, frozen=True):
    """An object, or several, that cannot be decoded."""

    problem: Problem
    unreadable: Unreadable


class Other(Struct, frozen=True):
    """An object that no Service depends on."""

    kind: str
    version: str | None
    found: Workload | Problem | None


class Valid(Struct, frozen=True):
    """A valid object, or one of which parts are invalid."""

    key: tuple[str, NamespacedName]
    """Its kind and name."""
    models: list[Object]
    warnings: Sequence[Problem]
    left_out: Sequence[Problem]
    unreadable: Unreadable | None


Leaf: TypeAlias = Invalid | Other | Valid
Leaves: TypeAlias = Sequence[Sequence[Leaf]]
"""The objects of each item of a List, which may be a List itself; else the only object of a document."""

NO_TYPE = wire.TypeMeta()


def leaves_of(document: Document, before: Document | None = None, known: Leaves = ()) -> Leaves:
    """Decode an object or the items of a List. A List in itself (a YAML alias) is a problem.

    `before` was in the place of this document, and `known` are its leaves. Items of a List that are equal in
    both are not decoded again.
    """
    found: list[list[Leaf]] = []
    equal = _known_items(document, before, known) if before else ()
    left = DOCUMENTS
    try:
        for part in _parts(document.source, document.content, NO_TYPE, document.place, document.head, equal):
            found.append(list(islice(part, left + 1)))
            left -= len(found[-1])
            if left < 0:
                return [[too_many(document.source, document.place)]]
    except RecursionError:
        found.append([broken(document.source, document.place, "", "is nested too deeply or contains itself")])
    return found


def _known_items(document: Document, before: Document, known: Leaves) -> Sequence[tuple[Raw, Iterable[Leaf]]]:
    """Return the items of the List that was in the place of a document, each with its leaves."""
    one, other = before.head, document.head
    if not (one and other and one.items and other.items) or len(one.items) != len(known):
        return ()
    if replace(before, content=None, head=None) != replace(document, content=None, head=None):
        return ()
    is_alike = (one.kind, one.api_version) == (other.kind, other.api_version)
    return list(zip(one.items, known, strict=True)) if is_alike else ()


def broken(source: str, place: str, path: str, message: str) -> Invalid:
    """Return the problem of a document whose objects are unknown."""
    found = Invalid(Problem(source, place, path, message), Unreadable())
    found.unreadable.everything.append(found.problem)
    return found


def too_many(source: str, place: str) -> Invalid:
    """Return the problem of a document with too many objects."""
    return broken(source, place, "items", f"more than {DOCUMENTS} objects in a file")


def _parts(
    source: str,
    content: Any,
    inherited: wire.TypeMeta,
    place: str,
    head: wire.Head | None = None,
    known: Sequence[tuple[Raw, Iterable[Leaf]]] = (),
) -> Iterator[Iterable[Leaf]]:
    """Yield the leaves of each item of a List; of another object, its only one.

    Items of a typed list (ServiceList) inherit kind and apiVersion.
    """
    try:
        meta, items = _meta_and_items(content, inherited, head)
    except msgspec.DecodeError as error:
        yield [broken(source, place, *_described(error, content))]
        return
    if items is not None and len(items) > DOCUMENTS:
        yield [too_many(source, place)]
    elif items is not None:
        for index, item in enumerate(items):
            if index < len(known) and known[index][0] == item:
                yield known[index][1]
            else:
                yield _item(source, item, _item_type(meta), f"{place}, items[{index}]")
    elif _is_list(meta.kind or ""):
        yield [broken(source, place, "items", "is missing")]
    else:
        yield [_leaf(source, content, meta, place)]


def _item(source: str, content: Any, inherited: wire.TypeMeta, place: str) -> Iterable[Leaf]:
    """Return the leaves of an item of a List."""
    if usual := usual_item(content):
        meta, obj = usual
        return [_leaf(source, content, meta, place, obj)]
    return chain.from_iterable(_parts(source, content, inherited, place))


def _leaf(
    source: str,
    content: Any,
    meta: wire.TypeMeta,
    place: str,
    usual: wire.EndpointSlice | wire.Service | None = None,
) -> Leaf:
    kind = meta.kind or ""
    try:
        decoded = decode_object(source, meta, content, place, manifest=True, usual=usual)
    except UndecodableError as undecodable:
        return Invalid(undecodable.problem, undecodable.unreadable)
    if decoded is None:
        return Other(kind, meta.api_version, workload(source, meta, content))
    models = _annotated(decoded.metadata, decoded.models)
    key = (kind, object_name(decoded.metadata))
    return Valid(key, models, decoded.warnings, decoded.left_out, decoded.unreadable)


def _meta_and_items(
    content: Any, inherited: wire.TypeMeta, head: wire.Head | None
) -> tuple[wire.TypeMeta, list[Any] | None]:
    """Return what an object is, and the items of a List; None if it has no such field.

    Of another object, a field `items` may be of any type.
    """
    wrong: msgspec.ValidationError | None = None
    own: wire.Head | wire.LoadedHead
    try:
        own = head or _head(content)
    except msgspec.ValidationError as error:
        known, wrong = convert(content, wire.TypeMeta), error
        own = wire.Head(known.kind, known.api_version)
    meta = wire.TypeMeta(own.kind or inherited.kind, own.api_version or inherited.api_version)
    if not (meta.kind and meta.kind.endswith(LIST)):
        return meta, None
    if wrong:
        raise wrong
    return meta, None if isinstance(own.items, UnsetType) else own.items or []


def _head(content: Any) -> wire.Head | wire.LoadedHead:
    return convert(content, wire.Head) if isinstance(content, Raw) else convert(content, wire.LoadedHead)


def _is_list(kind: str) -> bool:
    """Whether it is a List of any objects, or one of a known kind. Other kinds may have similar names."""
    return kind == LIST or kind in LISTS


def _item_type(meta: wire.TypeMeta) -> wire.TypeMeta:
    kind = (meta.kind or "").removesuffix(LIST)
    return wire.TypeMeta(kind, meta.api_version) if kind else NO_TYPE


def _described(error: Exception, content: Any) -> tuple[str, str]:
    """Describe an error in the part of a document that is decoded before its kind is known."""
    if isinstance(error, msgspec.ValidationError):
        return describe(error, to_python(content))
    return "", f"not JSON: {error}"


def _annotated(metadata: wire.Metadata, found: list[Object]) -> list[Object]:
    """Add the annotations, for views. Objects of a cluster do not pass here, which saves memory."""
    text = annotations_text(metadata)
    return [replace(each, annotations=text) for each in found] if text else found

"""The output formats of `-o`: tables, names, JSON, YAML, JSONPath templates and custom columns.

A form shows all objects together, or with `--watch` one after the other, as they change. In that case a table
has its headings once, and its columns do not become narrower. Pure: the caller writes the text, and passes
the function that dumps YAML.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from kproxy.printable import printable
from kproxy.show.columns import Column, column_rows, parse_columns
from kproxy.show.jsonpath import Template
from kproxy.show.kinds import Kind
from kproxy.show.query import Found
from kproxy.show.tables import Age, labels, table, widths

Dump = Callable[[Any], str]
"""Returns a value as text."""


class Style(NamedTuple):
    """The options of a table."""

    headings: bool = True
    labels: bool = False
    """Add a column for the labels."""
    namespaces: bool = False
    """Add a column for the namespace."""


class Form(Protocol):
    """An output format."""

    def all(self, found: Sequence[Found], age: Age) -> str:
        """Return the text of all objects."""

    def changed(self, kind: Kind, items: Sequence[Any], age: Age) -> str:
        """Return the text of further objects of one kind, which follows earlier text."""


def form_of(output: str, style: Style, dump_yaml: Dump) -> Form:
    """Return the form for a value of `-o` that `settings.text.output_format` accepts. Raises UsageError."""
    name, _, argument = output.partition("=")
    match name:
        case "yaml":
            return Documents(dump_yaml, "---\n")
        case "json":
            return Documents(lambda value: json.dumps(value, indent=4) + "\n")
        case "jsonpath":
            return Documents(Template(argument).render)
        case "custom-columns":
            return CustomColumns(parse_columns(argument), style)
        case "name":
            return Names()
        case _:
            return Table(name == "wide", style)


class _Lines:
    """The lines of a table whose columns do not become narrower."""

    def __init__(self, headings: bool, least: int = 0) -> None:
        self._headings = headings
        self._least = least
        self._widths: list[int] = []

    def add(self, rows: Sequence[Sequence[str]]) -> str:
        """Return further lines. The first of `rows` contains the headings, which are shown only once."""
        shown = [list(map(printable, row)) for row in rows[0 if self._headings else 1 :]]
        self._headings = False
        self._widths = widths(shown, self._widths or [self._least] * len(rows[0]))
        return table(shown, least=self._widths)


class Table:
    """kubectl's tables."""

    def __init__(self, wide: bool, style: Style) -> None:
        self._wide = wide
        self._style = style
        self._lines = _Lines(style.headings)

    def all(self, found: Sequence[Found], age: Age) -> str:
        """Return a table for each kind that has objects. With several kinds, names contain the kind."""
        made = (
            _Lines(self._style.headings).add(self._rows(each.requested.kind, each.items, age, len(found) > 1))
            for each in found
            if each.items
        )
        return "\n".join(made)

    def changed(self, kind: Kind, items: Sequence[Any], age: Age) -> str:
        """Return further rows."""
        return self._lines.add(self._rows(kind, items, age, False)) if items else ""

    def _rows(self, kind: Kind, items: Sequence[Any], age: Age, several: bool) -> list[list[str]]:
        heading, *rows = kind.rows(items, age, self._wide)
        if several:
            rows = [[f"{kind.singular}/{row[0]}", *row[1:]] for row in rows]
        if self._style.namespaces and kind.namespaced:
            heading = ["NAMESPACE", *heading]
            rows = [[kind.name(item).namespace, *row] for item, row in zip(items, rows, strict=True)]
        if self._style.labels:
            heading = [*heading, "LABELS"]
            rows = [[*row, labels(kind.labels(item))] for item, row in zip(items, rows, strict=True)]
        return [heading, *rows]


class CustomColumns:
    """One table for all kinds."""

    def __init__(self, columns: Sequence[Column], style: Style) -> None:
        self._columns = columns
        self._lines = _Lines(style.headings, least=3)

    def all(self, found: Sequence[Found], age: Age) -> str:
        """Return the table. As in kubectl, it has headings even without objects."""
        return self._lines.add(column_rows(self._columns, _manifests(found)))

    def changed(self, kind: Kind, items: Sequence[Any], age: Age) -> str:
        """Return further rows."""
        return self._lines.add(column_rows(self._columns, map(kind.manifest, items)))


class Names:
    """A line such as `service/web` for each object."""

    def all(self, found: Sequence[Found], age: Age) -> str:
        """Return the lines of all kinds."""
        return "".join(self.changed(each.requested.kind, each.items, age) for each in found)

    def changed(self, kind: Kind, items: Sequence[Any], age: Age) -> str:
        """Return further lines."""
        return "".join(f"{kind.singular}/{kind.name(item).name}\n" for item in items)


class Documents:
    """Manifests, or the results of a template: of one object if one was named, otherwise of a List."""

    def __init__(self, dump: Dump, separator: str = "") -> None:
        self._dump = dump
        self._separator = separator
        self._begun = False

    def all(self, found: Sequence[Found], age: Age) -> str:
        """Return the text; "" if objects were named and none of them exists."""
        made = list(_manifests(found))
        named = sum(len(each.requested.names) for each in found)
        if named and not made:
            return ""
        return self._dump(made[0] if named == 1 else {"apiVersion": "v1", "kind": "List", "items": made})

    def changed(self, kind: Kind, items: Sequence[Any], age: Age) -> str:
        """Return a document for each object."""
        return "".join(map(self._next, map(kind.manifest, items)))

    def _next(self, manifest: Any) -> str:
        separator = self._separator if self._begun else ""
        self._begun = True
        return separator + self._dump(manifest)


def _manifests(found: Iterable[Found]) -> Iterable[dict[str, Any]]:
    return (each.requested.kind.manifest(item) for each in found for item in each.items)

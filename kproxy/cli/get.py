"""`kproxy get`: objects in kubectl's tables. Changes nothing, and needs root only to ask a running kproxy."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kproxy.cli.output import print_problems, warn, write
from kproxy.control.lookup import look_up
from kproxy.settings.settings import Settings
from kproxy.show import tables as views
from kproxy.show.complaints import complaints
from kproxy.show.kinds import KINDS, Found, Wanted, find, followed, nothing, parse_targets


def run(chosen: Settings, operands: Sequence[str]) -> int:
    """Returns the exit status."""
    namespace = None if chosen.all_namespaces else chosen.namespace
    asked = parse_targets(operands, KINDS, namespace)
    given = look_up(chosen)
    print_problems(complaints(given))
    asked, unfollowed = followed(asked, given)
    objects = views.objects(given)
    found = [(each, find(objects, each, namespace)) for each in asked]
    if found:
        _print(chosen, found, namespace)
    for sentence in unfollowed:
        print(sentence, file=sys.stderr)
    missing = [sentence for _, of_kind in found for sentence in of_kind.missing]
    for sentence in missing:
        warn(sentence)
    return 1 if given.problems or unfollowed or missing else 0


def _print(chosen: Settings, found: Sequence[tuple[Wanted, Found]], namespace: str | None) -> None:
    write(show(chosen, found))
    if chosen.output in ("", "wide") and not any(asked.names or of_kind.items for asked, of_kind in found):
        print(nothing(" or ".join(asked.plural for asked, _ in found), namespace), file=sys.stderr)


def show(chosen: Settings, found: Sequence[tuple[Wanted, Found]]) -> str:
    """The objects in the form that was asked for."""
    match chosen.output:
        case "yaml" | "json":
            return _documents(chosen.output, found)
        case "name":
            return "".join(
                f"{asked.kind.singular}/{asked.kind.name(item).name}\n"
                for asked, of_kind in found
                for item in of_kind.items
            )
        case _:
            tables = (table(chosen, asked, of_kind.items, len(found) > 1) for asked, of_kind in found)
            return "\n".join(filter(None, tables))


def _documents(form: str, found: Sequence[tuple[Wanted, Found]]) -> str:
    """One object if one was named, else a List; "" if all that were named are missing."""
    made = [asked.kind.manifest(item) for asked, of_kind in found for item in of_kind.items]
    named = sum(len(asked.names) for asked, _ in found)
    if named and not made:
        return ""
    whole = made[0] if named == 1 else {"apiVersion": "v1", "kind": "List", "items": made}
    if form == "json":
        return json.dumps(whole, indent=4) + "\n"
    import yaml

    return yaml.safe_dump(whole, sort_keys=False)


def table(chosen: Settings, asked: Wanted, items: Sequence[Any], several: bool) -> str:
    """A table of one kind, "" for none; if it is one of several, names have the kind before them."""
    if not items:
        return ""
    kind = asked.kind
    heading, *rows = kind.rows(items, ages(datetime.now(UTC)), chosen.output == "wide")
    if several:
        rows = [[f"{kind.singular}/{row[0]}", *row[1:]] for row in rows]
    if chosen.all_namespaces:
        heading = ["NAMESPACE", *heading]
        rows = [[kind.name(item).namespace, *row] for item, row in zip(items, rows, strict=True)]
    if chosen.show_labels:
        heading = [*heading, "LABELS"]
        rows = [[*row, views.labels(kind.labels(item))] for item, row in zip(items, rows, strict=True)]
    return views.table([heading, *rows])


def ages(now: datetime) -> views.Age:
    """How old something is at `now`."""

    def age(created: str) -> str:
        try:
            then = datetime.fromisoformat(created)
        except ValueError:
            return views.UNKNOWN
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        return views.duration(int((now - then).total_seconds()))

    return age

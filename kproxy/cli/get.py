"""`kproxy get`: print objects in kubectl's formats. Needs root only to query a running kproxy."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kproxy.cli.output import flush, note, print_problems, warn, write
from kproxy.cli.progress import progress
from kproxy.control.client import watch
from kproxy.control.lookup import look_up
from kproxy.problems import CommandLineError
from kproxy.settings.settings import Settings
from kproxy.show.changes import Changes
from kproxy.show.complaints import complaints, is_incomplete
from kproxy.show.forms import Form, Style, form_of
from kproxy.show.kinds import KINDS
from kproxy.show.query import Query, parse_query
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import UNKNOWN, Age, duration, objects


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    namespace = None if settings.all_namespaces else settings.namespace
    query = parse_query(operands, KINDS, namespace, settings.selector, settings.sort_by)
    style = Style(not settings.no_headers, settings.show_labels, settings.all_namespaces)
    form = form_of(settings.output, style, _yaml)
    if settings.watch:
        return _watch(settings, query, form)
    with progress() as activity:
        snapshot = look_up(settings, activity)
    return _get(snapshot, query, form, settings.output in ("", "wide"), settings.strict)


def _get(snapshot: Snapshot, query: Query, form: Form, is_table: bool, strict: bool) -> int:
    print_problems(complaints(snapshot))
    query, unfollowed = query.followed(snapshot)
    found = query.find(objects(snapshot))
    if found:
        write(form.all(found, ages(datetime.now(UTC))))
    if found and is_table and not any(each.requested.names or each.items for each in found):
        note(query.nothing)
    missing = [sentence for each in found for sentence in each.missing]
    _print_notes(snapshot, query, unfollowed, missing)
    return 1 if is_incomplete(snapshot, strict) or unfollowed or missing else 0


def _print_notes(snapshot: Snapshot, query: Query, unfollowed: Sequence[str], missing: Sequence[str]) -> None:
    for sentence in (*unfollowed, *query.notes(snapshot)):
        note(sentence)
    for sentence in missing:
        warn(sentence)


def _watch(settings: Settings, query: Query, form: Form) -> int:
    """Print changes until Ctrl-C, which is the usual end."""
    if settings.manifests:
        raise CommandLineError("--watch shows the running kproxy, and cannot be combined with -f.")
    if len(query.requested) > 1:
        raise CommandLineError("--watch allows only one kind.")
    gc.enable()  # other commands end soon, but this one does not
    try:
        return _show_changes(watch(Path(settings.state_dir)), query, form)
    except KeyboardInterrupt:
        return 0


def _show_changes(snapshots: Iterator[Snapshot], query: Query, form: Form) -> int:
    kind = query.requested[0].kind
    first, changes = True, Changes(kind)
    for snapshot in snapshots:
        (found,) = query.find(objects(snapshot))
        if first and (status := _begin(snapshot, query, found.missing)):
            return status
        first = False
        write(form.changed(kind, changes.of(found.items), ages(datetime.now(UTC))))
        flush()
    return 0


def _begin(snapshot: Snapshot, query: Query, missing: Sequence[str]) -> int:
    """Print problems and missing objects. Returns 0, or the exit status if nothing can be watched."""
    print_problems(complaints(snapshot))
    _, unfollowed = query.followed(snapshot)
    _print_notes(snapshot, query, unfollowed, missing)
    return 1 if unfollowed or missing else 0


def _yaml(value: Any) -> str:
    import yaml  # not at the top, because it takes long to import

    return str(yaml.safe_dump(value, sort_keys=False))


def ages(now: datetime) -> Age:
    """Return a function that returns the age of an object at `now`."""

    def age(created: str) -> str:
        try:
            then = datetime.fromisoformat(created)
        except ValueError:
            return UNKNOWN
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        return duration(int((now - then).total_seconds()))

    return age

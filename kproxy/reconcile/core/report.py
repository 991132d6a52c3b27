"""What was done to a table, and how it is said: a line per frontend, a line for all.

Lines begin with `+` for a new frontend, `-` for one that went, `~` for one whose endpoints are others,
and `!` for a chain, set or element that was not as it ought to be: options changed, or someone changed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kproxy.model import AddressChange, Family
from kproxy.table.keys import PackedSocket, format_frontend, format_packed
from kproxy.table.layout import EndpointScope
from kproxy.table.names import TABLE
from kproxy.table.plan import FrontendChange

LINES = 40
"""Changes that are said one by one where not all are asked for."""


class Report(NamedTuple):
    """What a reconciliation did."""

    family: Family
    changes: tuple[FrontendChange, ...]
    removed: int
    added: int
    rewritten: tuple[str, ...]
    """Sets and chains that were not as they ought to be; () for a table that was not there."""
    ended: int = 0
    """Entries of UDP flows that were deleted, since they led to where nothing serves them any more."""
    warnings: tuple[str, ...] = ()
    """What else should have been done and could not: sentences."""

    repaired: tuple[str, ...] = ()
    """Elements that somebody else had changed, as nft writes them; they are among those removed and added."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.removed or self.added or self.rewritten or self.ended)


def lines(reports: Sequence[Report], limit: int | None = LINES) -> Iterator[str]:
    """A line for each change, of `limit` changes at most (None: all), and how many there are beyond."""
    for report in reports:
        what = (*report.rewritten, *report.repaired[:limit])
        yield from (f"! rewritten: {report.family} {TABLE} {name}" for name in what)
    changes = sorted(
        (change for report in reports for change in report.changes),
        key=lambda change: (change.comment, change.side.scope.base, change.side.key),
    )
    yield from map(describe, changes[:limit])
    if limit is not None and len(changes) > limit:
        yield f"... and {len(changes) - limit} more (-v shows them)"


def plural(count: int, noun: str) -> str:
    """`1 service`, `2 services`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(reports: Iterable[Report], moved: Sequence[AddressChange] = ()) -> str:
    """How much was changed, in the kernel's terms."""
    parts = [_part(report) for report in reports if report]
    if moved:
        came = sum(change.added for change in moved)
        parts.append(f"uplink: {came} address{'' if came == 1 else 'es'} in, {len(moved) - came} out")
    return "; ".join(parts) if parts else "nothing to change"


def _part(report: Report) -> str:
    ended = f", {plural(report.ended, 'UDP flow')} ended" if report.ended else ""
    return f"{report.family}: {plural(report.added, 'element')} in, {report.removed} out{ended}"


def describe(change: FrontendChange) -> str:
    """One line for one frontend."""
    scope = " (from outside)" if change.side.scope is EndpointScope.LOCAL else ""
    name = f"{change.comment or 'unknown'} {format_frontend(change.side.key)}{scope}"
    if change.after is None:
        return f"- {name}"
    if change.before is None:
        return f"+ {name} -> {_endpoints(change.after)}"
    gone = sorted(set(change.before) - set(change.after))
    new = sorted(set(change.after) - set(change.before))
    moves = [f"-{format_packed(socket)}" for socket in gone]
    moves += [f"+{format_packed(socket)}" for socket in new]
    if not moves and Counter(change.before) != Counter(change.after):
        moves = ["other weights"]
    detail = f" ({' '.join(moves)})" if moves else ""
    return f"~ {name} -> {_endpoints(change.after)}{detail}"


def _endpoints(sockets: tuple[PackedSocket, ...]) -> str:
    if not sockets:
        return "no endpoints"
    return plural(len(set(sockets)), "endpoint")

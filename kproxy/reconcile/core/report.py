"""What a round did, and how `sync` prints and `run` logs it: a line per frontend, a line for all.

Lines begin with `+` for a new frontend, `-` for one that went, `~` for one whose endpoints are others,
and `!` for a chain, set or element that was not as it ought to be: options changed, or someone changed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from kproxy.model import AddressChange, Family, NamespacedName
from kproxy.table.keys import PackedSocket, format_frontend, format_packed
from kproxy.table.layout import EndpointScope
from kproxy.table.names import TABLE
from kproxy.table.plan import FrontendChange

LINES = 40
"""Changes that are said one by one where not all are asked for."""


class Report(NamedTuple):
    """What was done to the table of one family."""

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
    """Elements that another program had changed, in nft's syntax; `removed` and `added` count them, too."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.removed or self.added or self.rewritten or self.ended)


class Totals(NamedTuple):
    """How many services a round leaves in which state."""

    services: int = 0
    """Those that have frontends."""
    frontends: int = 0
    held: int = 0
    """Services that stay in a table, since they are protected, though nothing is known of them."""
    quarantined: int = 0
    """Services of which the kernel refused elements."""

    def __str__(self) -> str:
        held = f", {self.held} held" if self.held else ""
        rejected = f", {self.quarantined} rejected" if self.quarantined else ""
        return f"{plural(self.services, 'service')}, {plural(self.frontends, 'frontend')}{held}{rejected}"


class RoundReport(NamedTuple):
    """What one round did, and what it could not do."""

    reports: tuple[Report, ...]
    """Of the tables, in the order in which it was done."""
    failures: Mapping[Family, str] = MappingProxyType({})
    """Families whose table is not as desired, and why: sentences."""
    compared: bool = False
    """Whether a table was read and compared as a whole."""
    names: Collection[NamespacedName] = ()
    """The services that were looked at."""
    totals: Totals = Totals()
    moved: tuple[AddressChange, ...] = ()
    """Load-balancer addresses that were put on the uplink or taken from it."""
    unreachable: tuple[str, ...] = ()
    """What is wrong with load-balancer addresses: sentences."""
    seconds: float = 0.0
    """How long it took, once it was known what had changed."""
    triggers: Collection[str] = ()
    """When what changed endpoints happened (RFC 3339), as far as it is known."""
    begun: float = 0.0
    """What had changed before is in (time.monotonic); what came later may wait for the next round."""

    @property
    def changed(self) -> bool:
        """Whether it did anything."""
        return any(self.reports) or bool(self.moved)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What else should have been done to the tables and could not: sentences."""
        return tuple(warning for report in self.reports for warning in report.warnings)


def lines(done: RoundReport, limit: int | None = LINES) -> Iterator[str]:
    """A line for each change, of `limit` changes at most (None: all), and how many there are beyond."""
    for report in done.reports:
        what = (*report.rewritten, *report.repaired[:limit])
        yield from (f"! rewritten: {report.family} {TABLE} {name}" for name in what)
    changes = sorted(
        (change for report in done.reports for change in report.changes),
        key=lambda change: (change.comment, change.side.scope.base, change.side.key),
    )
    yield from map(describe, changes[:limit])
    if limit is not None and len(changes) > limit:
        yield f"... and {len(changes) - limit} more (-v shows them)"
    yield from map(str, done.moved)


def plural(count: int, noun: str) -> str:
    """`1 service`, `2 services`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(done: RoundReport) -> str:
    """What there is now, and how much was changed, in the kernel's terms."""
    parts = [_part(report) for report in done.reports if report]
    if done.moved:
        came = sum(change.added for change in done.moved)
        parts.append(f"uplink: {came} address{'' if came == 1 else 'es'} in, {len(done.moved) - came} out")
    return f"{done.totals}: {'; '.join(parts) or 'nothing to change'}"


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

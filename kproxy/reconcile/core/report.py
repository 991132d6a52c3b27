"""The report of a round, and its text, which `sync` prints and `run` logs: lines for changes, and a summary.

A line begins with `+` for a new frontend, `-` for a removed one, `~` for one with changed endpoints, and `!`
for a chain, set or element that was rewritten, because an option changed or another program had changed it,
and for a table that begins or stops to count connections by endpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct

from kproxy.model import AddressChange, Family, NamespacedName
from kproxy.table.layout import TABLE, EndpointScope, PackedSocket, format_frontend, format_packed
from kproxy.table.plan import FrontendChange

QUARANTINED = "quarantined: the kernel refused it, and what was programmed for it before stays"
"""The message of the problem of a quarantined service."""
LINES = 40
"""The number of changes to print without -v."""


class Report(Struct, frozen=True):
    """The changes of one family's table."""

    family: Family
    changes: tuple[FrontendChange, ...]
    removed: int
    added: int
    rewritten: tuple[str, ...]
    """Sets and chains that differed from what is expected; () for a new table."""
    ended: int = 0
    """The number of deleted conntrack entries of stale UDP flows."""
    warnings: tuple[str, ...] = ()
    """Sentences that describe what else failed."""

    repaired: tuple[str, ...] = ()
    """Elements that another program had changed, in nft's syntax. `removed` and `added` include them."""

    handshakes: int = 0
    """The number of deleted conntrack entries of TCP handshakes that were not translated."""

    elements: tuple[str, ...] = ()
    """A line for each element, `- SET ELEMENT` or `+ SET ELEMENT`. Only a preview has them."""

    counting: str = ""
    """How the table counts connections by endpoint, if that changed."""

    def __bool__(self) -> bool:
        changed = self.changes or self.removed or self.added or self.rewritten or self.counting
        return bool(changed or self.ended or self.handshakes)


class Totals(Struct, frozen=True):
    """The numbers of services and frontends after a round."""

    services: int = 0
    """Services with frontends."""
    frontends: int = 0
    held: int = 0
    """Protected services that stay in a table, although the input does not contain them."""
    quarantined: int = 0
    """Services whose elements the kernel refused."""
    endpoints: int = 0
    """The endpoints of all frontends in the tables. An endpoint counts once for each of its slots."""

    def __str__(self) -> str:
        held = f", {self.held} held" if self.held else ""
        quarantined = f", {self.quarantined} quarantined" if self.quarantined else ""
        return f"{plural(self.services, 'service')}, {plural(self.frontends, 'frontend')}{held}{quarantined}"


class RoundReport(Struct, frozen=True):
    """The changes and failures of one round."""

    reports: tuple[Report, ...]
    """The reports of the tables, in the order of the changes."""
    failures: Mapping[Family, str] = MappingProxyType({})
    """The families whose table is not as desired, and a sentence that explains why."""
    compared: bool = False
    """Whether a whole table was read and compared."""
    names: Collection[NamespacedName] = ()
    """The services that the round considered."""
    totals: Totals = Totals()
    address_changes: tuple[AddressChange, ...] = ()
    """Load-balancer addresses that were added to the uplink or removed from it."""
    address_failures: tuple[str, ...] = ()
    """Sentences that describe failed changes of load-balancer addresses."""
    seconds: float = 0.0
    """The duration of the round, after the changes were taken from the source."""
    triggers: Collection[str] = ()
    """The known times (RFC 3339) of events that changed endpoints."""
    begun: float = 0.0
    """The round includes all changes before this time (time.monotonic). Later ones may wait for the next."""

    @property
    def changed(self) -> bool:
        """Whether the round changed anything."""
        return any(self.reports) or bool(self.address_changes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that describe what else failed."""
        return tuple(warning for report in self.reports for warning in report.warnings)


def lines(done: RoundReport, limit: int | None = LINES) -> Iterator[str]:
    """Return a line for each of the first `limit` changes (None: all), and the number of the others."""
    for report in done.reports:
        rewritten = (*report.rewritten, *report.repaired[:limit])
        yield from (f"! rewritten: {report.family} {TABLE} {name}" for name in rewritten)
        if report.counting:
            yield f"! {report.family} {TABLE}: {report.counting}"
    changes = sorted(
        (change for report in done.reports for change in report.changes),
        key=lambda change: (change.comment, change.side.scope.base, change.side.key),
    )
    yield from map(describe, changes[:limit])
    if limit is not None and len(changes) > limit:
        yield f"... and {len(changes) - limit} more (-v shows them)"
    yield from map(str, done.address_changes)


def describe_counting(counted: bool, endpoints: int, limit: int | None) -> str:
    """Return what a report says about a table that begins or stops to count connections by endpoint."""
    verb = "are counted by endpoint again" if counted else "are not counted by endpoint"
    return f"connections {verb}: {plural(endpoints, 'endpoint')}, --max-endpoint-counters {limit}"


def plural(count: int, noun: str) -> str:
    """Return `1 service`, `2 services`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(done: RoundReport) -> str:
    """Return the totals, and the numbers of changed elements and addresses."""
    parts = [_part(report) for report in done.reports if report]
    changes = Counter((change.interface, change.added) for change in done.address_changes)
    for interface in sorted({interface for interface, _ in changes}):
        added, removed = changes[interface, True], changes[interface, False]
        noun = "address" if added == 1 else "addresses"
        parts.append(f"{interface}: {added} {noun} added, {removed} removed")
    return f"{done.totals}: {'; '.join(parts) or 'nothing to change'}"


def _part(report: Report) -> str:
    ended = f", {plural(report.ended, 'UDP flow')} ended" if report.ended else ""
    if report.handshakes:
        ended += f", {plural(report.handshakes, 'unanswered TCP connection')} ended"
    return f"{report.family}: {plural(report.added, 'element')} added, {report.removed} removed{ended}"


def describe(change: FrontendChange) -> str:
    """Return the line for a changed frontend."""
    scope = " (from outside)" if change.side.scope is EndpointScope.LOCAL else ""
    name = f"{change.comment or 'unknown'} {format_frontend(change.side.key)}{scope}"
    if change.after is None:
        return f"- {name}"
    if change.before is None:
        return f"+ {name} -> {_endpoints(change.after)}"
    removed = sorted(set(change.before) - set(change.after))
    added = sorted(set(change.after) - set(change.before))
    changes = [f"-{format_packed(socket)}" for socket in removed]
    changes += [f"+{format_packed(socket)}" for socket in added]
    if not changes and Counter(change.before) != Counter(change.after):
        changes = ["other weights"]
    detail = f" ({' '.join(changes)})" if changes else ""
    return f"~ {name} -> {_endpoints(change.after)}{detail}"


def _endpoints(sockets: tuple[PackedSocket, ...]) -> str:
    if not sockets:
        return "no endpoints"
    return plural(len(set(sockets)), "endpoint")

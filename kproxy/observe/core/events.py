"""The last events of Services: a record of limited size, and what a round makes of it.

As in Kubernetes, an event is forgotten after an hour, and one that happens again is counted. The number of
events of one Service, of all events, and the bytes of their messages have limits, too. The oldest go first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import NamedTuple

from kproxy.limits import EVENT_BYTES, EVENT_CHANGES, EVENT_MESSAGE, EVENT_SECONDS, EVENTS, EVENTS_OF_SERVICE
from kproxy.model import Event, NamespacedName
from kproxy.nft.elements import COMMENT_BYTES
from kproxy.reconcile.core.report import QUARANTINED, RoundReport, plural
from kproxy.table.layout import PackedSocket, format_packed
from kproxy.table.plan import FrontendChange, owner_of

SHOWN = 3
"""The number of endpoints that a message names."""


class EventLog:
    """The last events, by Service."""

    def __init__(self) -> None:
        self._events: dict[tuple[NamespacedName, Hashable], Event] = {}
        """In order of their last occurrence."""
        self._keys: dict[NamespacedName, dict[Hashable, None]] = {}
        """The keys of the events of each Service, in the same order."""
        self._bytes = 0

    def record(
        self, service: NamespacedName, reason: str, message: str, now: float, warning: bool = True
    ) -> None:
        """Record an event that happens now, in seconds of the Unix epoch."""
        message = message[:EVENT_MESSAGE]
        known = self._events.get((service, (reason, message)))
        event = known.again(now) if known else Event(reason, message, 1, now, now, warning)
        self.put(service, (reason, message), event)

    def put(self, service: NamespacedName, key: Hashable, event: Event) -> None:
        """Add an event that is the latest of all. It replaces the one of the Service with this key."""
        self._remove(service, key)
        self._events[service, key] = event
        keys = self._keys.setdefault(service, {})
        keys[key] = None
        self._bytes += len(event.message.encode(errors="replace"))
        if len(keys) > EVENTS_OF_SERVICE:
            self._remove(service, next(iter(keys)))
        while len(self._events) > EVENTS or self._bytes > EVENT_BYTES:
            self._remove(*next(iter(self._events)))

    def events(self, now: float) -> dict[NamespacedName, tuple[Event, ...]]:
        """Forget the old events, and return the others by Service, in order of their last occurrence."""
        for key, event in list(self._events.items()):
            if event.last > now - EVENT_SECONDS:
                break
            self._remove(*key)
        return {
            service: tuple(self._events[service, key] for key in keys) for service, keys in self._keys.items()
        }

    def _remove(self, service: NamespacedName, key: Hashable) -> None:
        event = self._events.pop((service, key), None)
        if event is None:
            return
        self._bytes -= len(event.message.encode(errors="replace"))
        del self._keys[service][key]
        if not self._keys[service]:
            del self._keys[service]


class Happening(NamedTuple):
    """What happened to a Service in a round."""

    service: NamespacedName
    reason: str
    message: str
    is_warning: bool = False


class _Sides(NamedTuple):
    """How the frontend sides of one Service changed."""

    added: set[bytes]
    """The keys of new frontends."""
    removed: set[bytes]
    came: set[PackedSocket]
    """The new endpoints of frontends that existed before."""
    went: set[PackedSocket]
    left: set[PackedSocket]
    """All endpoints of the sides that changed."""


def changed_endpoints(done: RoundReport) -> Iterator[Happening]:
    """Return what happened to the frontends and endpoints of each Service, of a limited number of changes."""
    changes = (change for report in done.reports for change in report.changes)
    services: dict[NamespacedName, _Sides] = defaultdict(lambda: _Sides(set(), set(), set(), set(), set()))
    for change in islice(changes, EVENT_CHANGES):
        for service in _services_of(change.comment, done.names):
            _add(services[service], change)
    for service, sides in services.items():
        repaired = service not in done.names
        yield from (Happening(service, *what) for what in _what_happened(sides, repaired))


def _services_of(comment: str, names: Iterable[NamespacedName]) -> Iterable[NamespacedName]:
    """Return the Service that a comment names. A long one may be cut off, and fit to several of `names`."""
    if len(comment.encode()) < COMMENT_BYTES - 3:
        return (owner_of(comment),)
    return [name for name in names if f"{name}:".startswith(comment) or comment.startswith(f"{name}:")]


def _add(sides: _Sides, change: FrontendChange) -> None:
    before, after = set(change.before or ()), set(change.after or ())
    if change.after is None:
        sides.removed.add(change.side.key)
        return
    sides.left.update(after)
    if change.before is None:
        sides.added.add(change.side.key)
    else:
        sides.came.update(after - before)
        sides.went.update(before - after)


def _what_happened(sides: _Sides, repaired: bool) -> Iterator[tuple[str, str, bool]]:
    """Return reason, message, and whether it is a warning."""
    if repaired and (sides.added or sides.removed):
        yield "Repaired", "another program had changed the table, which was repaired", True
        return
    if sides.added or sides.removed:
        parts = [
            f"{plural(len(keys), 'frontend')} {verb}"
            for keys, verb in ((sides.added, "added"), (sides.removed, "removed"))
            if keys
        ]
        ending = f", with {plural(len(sides.left), 'endpoint')}" if sides.added else ""
        yield "Programmed", ", ".join(parts) + ending, False
    came, went = sides.came - sides.went, sides.went - sides.came
    if came or went:
        parts = [f"{verb} {_named(of)}" for verb, of in (("added", came), ("removed", went)) if of]
        total = plural(len(sides.left), "endpoint") if sides.left else "no endpoint"
        yield (
            "NoEndpoints" if not sides.left else "EndpointsChanged",
            (f"{'; '.join(parts)}: {total} left"),
            not sides.left,
        )


def _named(sockets: Set[PackedSocket]) -> str:
    shown = ", ".join(map(format_packed, sorted(sockets)[:SHOWN]))
    return shown if len(sockets) <= SHOWN else f"{shown} and {len(sockets) - SHOWN} more"


class Marks:
    """The Services that are quarantined, and those that are held back, as of the last round."""

    def __init__(self) -> None:
        self._quarantined: frozenset[NamespacedName] = frozenset()
        self._held: Mapping[NamespacedName, str] = {}

    def change(
        self, quarantined: frozenset[NamespacedName], held: Mapping[NamespacedName, str]
    ) -> Iterator[Happening]:
        """Return what happened since the last call. `held` has the reason for each Service."""
        for name in sorted(quarantined - self._quarantined):
            yield Happening(name, "Quarantined", QUARANTINED, True)
        for name in sorted(self._quarantined - quarantined):
            yield Happening(name, "Accepted", "the kernel no longer refuses it")
        for name in sorted(held.keys() - self._held.keys()):
            yield Happening(name, "Held", f"what is programmed stays: {held[name]}", True)
        for name in sorted(self._held.keys() - held.keys()):
            yield Happening(name, "Released", "its input can be read again")
        self._quarantined, self._held = quarantined, held

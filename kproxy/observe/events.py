"""Records the events of Services of a running kproxy, which `kproxy describe` shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from kproxy.model import Event, NamespacedName
from kproxy.observe.core.events import EventLog, Happening, Marks, changed_endpoints
from kproxy.reconcile.core.report import RoundReport
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Reconciler
from kproxy.sources.source import Source


class EventRecorder(RoundObserver):
    """Keeps the last events. The first successful round makes none: everything is new in it."""

    def __init__(
        self, source: Source, reconciler: Reconciler, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` returns the seconds of the Unix epoch."""
        self.log = EventLog()
        self._source = source
        self._reconciler = reconciler
        self._clock = clock
        self._marks = Marks()
        self._begun = False

    def events(self) -> dict[NamespacedName, tuple[Event, ...]]:
        """Return the events by Service."""
        return self.log.events(self._clock())

    def round_done(self, done: RoundReport) -> None:
        """Record what the round changed."""
        if self._begun:
            self._record(changed_endpoints(done))
        self._begun |= not done.failures

    def look(self) -> None:
        """Record which services are quarantined or held now, and no longer."""
        quarantined = frozenset(self._reconciler.quarantined())
        self._record(self._marks.change(quarantined, self._source.held()))

    def _record(self, happened: Iterable[Happening]) -> None:
        for service, reason, message, is_warning in happened:
            self.log.record(service, reason, message, self._clock(), is_warning)

"""The table of one family, brought to what is desired, whatever fails on the way.

A change of some services costs what it touches. If the kernel refuses it, or another program changed the
table, the whole table is compared. If the kernel refuses that as well, the services whose elements it refused
are quarantined: what was programmed for them stays, and all others are served. What failed is tried again
later, with exponential backoff.

A protected service, part of whose input cannot be read, concerns whole comparisons only: they leave in the
table what is not desired, and the one after the service can be read again removes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from kproxy.model import Family, NamespacedName, Protects, protect_nothing
from kproxy.nft.elements import Keys
from kproxy.problems import KproxyError, TransactionError
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.core.intent import Intent, ServiceChange
from kproxy.reconcile.core.refusals import may_be_race
from kproxy.reconcile.core.report import Report
from kproxy.table.compile import SETS, Delta, Desired, merged
from kproxy.table.skeleton import Options

logger = logging.getLogger(__name__)

NAMED_ATTEMPTS = 8
"""Whole comparisons in one update in which the kernel may name further services that it refuses."""


class Table(Protocol):
    """The part of Dataplane that is used here; its docstrings are the contract."""

    def set_options(self, options: Options) -> bool: ...

    def reconcile(self, desired: Desired, protected: Protects = protect_nothing, /) -> Report: ...

    def change(self, delta: Delta, /) -> Report: ...

    def is_gone(self) -> bool: ...

    def is_ours_alone(self) -> bool: ...

    def restore(self) -> Report | None: ...

    def repair_elements(self, keys: Keys, /) -> Report | None: ...


class FamilyTable:
    """One family's table, and what the kernel refused of it. For one thread at a time."""

    def __init__(self, family: Family, dataplane: Table, intent: Intent) -> None:
        self.family = family
        self.failure = ""
        """Why the table is not as desired: a sentence; "" if it is."""
        self.quarantined: dict[NamespacedName, Backoff] = {}
        """Services whose elements the kernel refused, and when each is tried again."""
        self.protected: set[NamespacedName] = set()
        """Services that were protected in the last whole comparison: the table may hold more of them."""
        self.compared = False
        """Whether the last `update` read and compared the whole table."""
        self._dataplane = dataplane
        self._intent = intent
        self._backoff = Backoff()
        self._uncertain = True
        """The table may differ from its copy: the next update compares all of it."""
        self._suspected = False

    # --- before an update ---

    def set_options(self, options: Options) -> None:
        """Take the options of the rules, for the next update and those after it."""
        self._uncertain |= self._dataplane.set_options(options)

    def suspect(self) -> list[Report]:
        """Have the next update compare the whole table. If the table is gone, restore it immediately."""
        reports = [] if self._uncertain else self._restore()
        self._uncertain = self._suspected = True
        return reports

    def repair(self, keys: Keys) -> list[Report]:
        """Repair elements that another program changed; if they alone cannot be, suspect the table."""
        if self._uncertain:
            return []
        try:
            report = self._dataplane.repair_elements(keys)
        except (KproxyError, OSError) as error:
            self._warn(error)
            report = None
        self._uncertain = report is None
        return [] if report is None else [report]

    # --- the update ---

    def update(
        self,
        changes: Mapping[NamespacedName, ServiceChange],
        protected: Protects,
        now: float,
        compare: bool,
    ) -> list[Report]:
        """Bring the table to the intent, of which `changes` are new. `compare`: compare the whole table.

        Never raises for what the kernel says: `failure` tells it, and `due` when to try again.
        """
        self._uncertain |= compare or not all(map(protected, self.protected))
        gone = self._suspected and self.is_gone()
        self.compared = self._suspected = False
        if self._backoff.due > now and not gone:  # without a table, packets find no service meanwhile
            self._uncertain = True
            return []
        try:
            reports = self._update(changes, protected, now)
        except (KproxyError, OSError) as error:
            self._uncertain = True
            self._backoff.failed(now)
            self.failure = error.full if isinstance(error, KproxyError) else str(error)
            return []
        self._backoff.succeeded()
        self.failure = ""
        return reports

    # --- questions ---

    def due(self) -> Iterable[float]:
        """The times at which to retry what failed; empty if nothing failed."""
        return [self._backoff.due] if self.failure else [each.due for each in self.quarantined.values()]

    def is_gone(self) -> bool:
        """Whether another program deleted the table. Not during an update."""
        return _says(self._dataplane.is_gone)

    def is_doubtful(self) -> bool:
        """Whether other programs may have changed the table since it was last compared."""
        return not _says(self._dataplane.is_ours_alone)

    # --- steps of an update ---

    def _update(
        self,
        changes: Mapping[NamespacedName, ServiceChange],
        protected: Protects,
        now: float,
    ) -> list[Report]:
        if self.quarantined.keys() & changes.keys():  # a service that loses an address to it must lose it
            self._uncertain = True
        reports = [] if self._uncertain else self._change(changes)
        for name in [n for n, backoff in self.quarantined.items() if backoff.due <= now or n in changes]:
            reports += self._try_again(name, now)
        if self._uncertain:
            reports += self._compare(protected, now)
            self._uncertain = False
        return reports

    def _change(self, changes: Mapping[NamespacedName, ServiceChange]) -> list[Report]:
        batch = merged(self._intent.deltas(changes, self.family).values())
        try:
            return [self._dataplane.change(batch)] if batch else []
        except TransactionError as error:
            self._warn(error)
            self._uncertain = True
            return self._restore()

    def _compare(self, protected: Protects, now: float) -> list[Report]:
        self.compared, self.protected = True, set()
        found, quarantined = self.protected, self.quarantined

        def is_protected(service: NamespacedName) -> bool:
            if service not in found and not protected(service):
                return service in quarantined
            found.add(service)
            return True

        def reconcile() -> Report:
            desired = self._intent.desired(self.family, self.quarantined)
            return self._dataplane.reconcile(desired, is_protected)

        for _ in range(NAMED_ATTEMPTS):
            try:
                return [reconcile()]
            except TransactionError as error:
                if not self._quarantine_named(error, now):
                    break
        return [*self._find_refused(now), reconcile()]

    def _restore(self) -> list[Report]:
        """Write back a table that is gone: without it, packets find no service."""
        try:
            report = self._dataplane.restore()
        except (KproxyError, OSError) as error:
            self._warn(error)
            report = None
        return [] if report is None else [report]

    # --- services that the kernel refuses ---

    def _quarantine_named(self, error: TransactionError, now: float) -> bool:
        """Quarantine the services whose elements the kernel named; whether there are any."""
        if may_be_race(error):
            return False
        named = self._intent.owners(error.refused, self.family) - self.quarantined.keys()
        for name in sorted(named):
            self._quarantine(name, error, now)
        return bool(named)

    def _find_refused(self, now: float) -> list[Report]:
        """Repair what belongs to no service, then find the refused services by bisection."""
        logger.warning("table %s: the refused services are searched for by bisection.", self.family)
        nothing = Desired({}, {name: {} for name in SETS})
        repaired = self._dataplane.reconcile(nothing, lambda _: True)
        return [repaired, *self._try(sorted(self._intent.names() - self.quarantined.keys()), now)]

    def _try(self, names: Sequence[NamespacedName], now: float) -> list[Report]:
        try:
            return [self._dataplane.change(merged(self._intent.whole(name, self.family) for name in names))]
        except TransactionError as error:
            if self._dataplane.is_gone():  # it was deleted meanwhile, and no service is to blame
                raise
            if len(names) > 1:
                middle = len(names) // 2
                return [*self._try(names[:middle], now), *self._try(names[middle:], now)]
            for name in names:
                self._quarantine(name, error, now)
            return []

    def _try_again(self, name: NamespacedName, now: float) -> list[Report]:
        try:
            report = self._dataplane.change(self._intent.whole(name, self.family))
        except TransactionError:
            self.quarantined[name].failed(now)
            return []
        del self.quarantined[name]
        self._uncertain = True  # the table may hold more of the service than it has now
        return [report]

    def _quarantine(self, name: NamespacedName, error: TransactionError, now: float) -> None:
        logger.error("Service %s is quarantined: %s", name, error)
        self.quarantined.setdefault(name, Backoff()).failed(now)

    def _warn(self, error: Exception) -> None:
        logger.warning("table %s: %s The whole table is compared.", self.family, error)


def _says(question: Callable[[], bool]) -> bool:
    """Whether the kernel says so; not if it cannot say, as while another program commits all the time."""
    try:
        return question()
    except (KproxyError, OSError):
        return False

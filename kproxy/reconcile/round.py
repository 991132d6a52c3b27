"""Both families' tables, made to hold what is wanted, whatever fails on the way.

An event costs a `change` of what it touched. Where that fails (somebody edited the table, the kernel
refused an element) the family is checked as a whole, and if that fails too, the services that the
kernel does not take are found and set aside: all others are served, and what was programmed for
those set aside stays. What failed is tried again later, ever more seldom.

A service that is kept, since part of it could not be read, is a matter of whole checks as well: only
they leave in the table what nobody wants, and only they find it once the service is whole.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from kproxy.model import Family, NamespacedName, Protects, protect_nothing
from kproxy.nft.elements import Keys
from kproxy.problems import KproxyError, Problem, TransactionError
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.core.intent import Intent, ServiceChange
from kproxy.reconcile.core.report import Report
from kproxy.resolve.claims import FrontendClaim
from kproxy.table.compile import SETS, Delta, Desired, merged
from kproxy.table.skeleton import Options

logger = logging.getLogger(__name__)


class Round(NamedTuple):
    """What came of one round of transactions."""

    reports: tuple[Report, ...]
    failures: dict[Family, str]
    """Families that could not be brought up to date, and why: sentences."""
    checked: bool
    """Whether the tables were read and compared as a whole."""


class Table(Protocol):
    """What is needed of a Dataplane; its docstrings say what it does."""

    def set_options(self, options: Options) -> bool: ...

    def reconcile(self, desired: Desired, protected: Protects = protect_nothing, /) -> Report: ...

    def change(self, delta: Delta, /) -> Report: ...

    def is_gone(self) -> bool: ...

    def is_ours_alone(self) -> bool: ...

    def restore(self) -> Report | None: ...

    def repair_elements(self, keys: Keys, /) -> Report | None: ...


class Edit(NamedTuple):
    """Somebody else changed elements of a table, and nothing but elements."""

    family: Family
    keys: Keys


class Tables:
    """What is wanted, and the tables that are to hold it. For one thread at a time."""

    def __init__(self, dataplanes: Mapping[Family, Table], clock: Callable[[], float]) -> None:
        self.intent = Intent()
        self._dataplanes = dataplanes
        self._clock = clock
        self._unchecked = set(dataplanes)
        """Families whose table may differ from its copy: a change does not do."""
        self._backoff = {family: Backoff() for family in dataplanes}
        self._failures: dict[Family, str] = {}
        """Why those did not work that are to be tried again."""
        self._quarantined: dict[Family, dict[NamespacedName, Backoff]] = defaultdict(dict)
        self._protected: dict[Family, set[NamespacedName]] = defaultdict(set)
        """Services that were kept in the last check: the table may hold more of them than is wanted."""

    def set_options(self, options: Options) -> None:
        """What the rules depend on, for the next round and all after it."""
        for family, dataplane in self._dataplanes.items():
            if dataplane.set_options(options):
                self._unchecked.add(family)

    def apply(
        self,
        claims: Mapping[NamespacedName, FrontendClaim | None],
        protected: Protects = protect_nothing,
        suspect: frozenset[Family] = frozenset(),
        edits: Iterable[Edit] = (),
    ) -> Round:
        """Take these claims (None: the service goes) and do what is due.

        The tables of `suspect` families are compared as a whole, and what `edits` name is put right by
        itself where that can be done. Nothing is removed of a service that is `protected`. Never raises for
        what the kernel says: that is in the round's failures.
        """
        now = self._clock()
        reports = self._restore(f for f in self._dataplanes if f in suspect - self._unchecked)
        self._unchecked |= suspect
        reports += self._repair_elements(edits)
        changes = self.intent.change(claims)
        if any(protected(name) for name in claims):  # what there is of it may be in the table alone
            self._unchecked |= self._dataplanes.keys()
        self._unchecked |= {f for f in self._dataplanes if not all(map(protected, self._protected[f]))}
        checked = bool(self._unchecked)
        for family in self._dataplanes:
            gone = family in suspect and _says(self._dataplanes[family].is_gone)
            if self._backoff[family].due > now and not gone:  # then no packet finds its way meanwhile
                self._unchecked.add(family)
                continue
            try:
                reports += self._apply(family, changes, protected, now)
                self._backoff[family].succeeded()
                self._failures.pop(family, None)
            except (KproxyError, OSError) as error:
                self._unchecked.add(family)
                self._backoff[family].failed(now)
                self._failures[family] = error.full if isinstance(error, KproxyError) else str(error)
        return Round(tuple(reports), dict(self._failures), checked)

    def doubtful(self) -> frozenset[Family]:
        """Families whose table may have been changed by others since it was last compared. Not in a round."""
        tables = self._dataplanes.items()
        return frozenset(family for family, table in tables if not _says(table.is_ours_alone))

    def any_gone(self) -> bool:
        """Whether somebody took a table away. Not in a round."""
        return any(_says(table.is_gone) for table in self._dataplanes.values())

    def due(self) -> float | None:
        """When something that failed is to be tried again, on the clock; None: nothing failed."""
        waiting = [self._backoff[family].due for family in self._failures]
        for family in self._dataplanes.keys() - self._failures.keys():
            waiting += [backoff.due for backoff in self._quarantined[family].values()]
        return min(waiting, default=None)

    def problems(self) -> list[Problem]:
        """Where several services want to be shown, and services that the kernel does not take."""
        refused = {name for services in self._quarantined.values() for name in services}
        message = "the kernel does not take it: what was programmed before stays"
        found = [Problem("", f"Service {name}", "", message) for name in sorted(refused)]
        return self.intent.problems() + found

    def is_refused(self, service: NamespacedName) -> bool:
        """Whether the kernel does not take it: it is as it was, or not there. From any thread."""
        return any(service in quarantined for quarantined in tuple(self._quarantined.values()))

    def _restore(self, families: Iterable[Family]) -> list[Report]:
        """First of all, tables that are gone: until there is one, no packet finds its way."""
        found = []
        for family in families:
            try:
                found.append(self._dataplanes[family].restore())
            except (KproxyError, OSError) as error:
                logger.warning("%s: %s The table is checked as a whole.", family, error)
        return [report for report in found if report is not None]

    def _repair_elements(self, edits: Iterable[Edit]) -> list[Report]:
        found = []
        for family, keys in edits:
            if family in self._unchecked:
                continue
            try:
                report = self._dataplanes[family].repair_elements(keys)
            except (KproxyError, OSError) as error:
                logger.warning("%s: %s The table is checked as a whole.", family, error)
                report = None
            if report is None:
                self._unchecked.add(family)
            else:
                found.append(report)
        return found

    def _apply(
        self,
        family: Family,
        changes: Mapping[NamespacedName, ServiceChange],
        protected: Protects,
        now: float,
    ) -> list[Report]:
        dataplane, quarantined = self._dataplanes[family], self._quarantined[family]
        reports: list[Report] = []
        if quarantined.keys() & changes.keys():  # whoever it took an address from is to have it no longer
            self._unchecked.add(family)
        if family not in self._unchecked:
            batch = merged(self.intent.deltas(changes, family).values())
            try:
                if batch:
                    reports.append(dataplane.change(batch))
            except TransactionError as error:
                logger.warning("%s The table is checked as a whole.", error)
                self._unchecked.add(family)
                reports += self._restore([family])
        for name in [name for name, backoff in quarantined.items() if backoff.due <= now or name in changes]:
            self._try_again(family, name, now)
        if family in self._unchecked:
            reports.append(self._check(family, protected, now))
            self._unchecked.discard(family)
        return reports

    def _check(self, family: Family, protected: Protects, now: float) -> Report:
        dataplane, quarantined, found = (
            self._dataplanes[family],
            self._quarantined[family],
            set[NamespacedName](),
        )
        self._protected[family] = found

        def is_protected(service: NamespacedName) -> bool:
            if protected(service):
                found.add(service)
            return service in found or service in quarantined

        try:
            return dataplane.reconcile(self.intent.desired(family, quarantined), is_protected)
        except TransactionError as error:
            logger.warning("%s Which services that is about is found out.", error)
            self._find_bad_ones(family, now)
        return dataplane.reconcile(self.intent.desired(family, quarantined), is_protected)

    def _find_bad_ones(self, family: Family, now: float) -> None:
        """Put right what is no service's, and then services by halves: those that fail alone go aside."""
        nothing = Desired({}, {name: {} for name in SETS})
        self._dataplanes[family].reconcile(nothing, lambda _: True)
        self._try(family, sorted(self.intent.names() - self._quarantined[family].keys()), now)

    def _try(self, family: Family, names: Sequence[NamespacedName], now: float) -> None:
        try:
            self._dataplanes[family].change(merged(self.intent.whole(name, family) for name in names))
        except TransactionError as error:
            if self._dataplanes[family].is_gone():  # it was taken away meanwhile, and no service is to blame
                raise
            if len(names) > 1:
                for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                    self._try(family, half, now)
                return
            for name in names:
                logger.error("Service %s is set aside: %s", name, error)
                self._quarantined[family].setdefault(name, Backoff()).failed(now)

    def _try_again(self, family: Family, name: NamespacedName, now: float) -> None:
        backoff = self._quarantined[family][name]
        try:
            self._dataplanes[family].change(self.intent.whole(name, family))
        except TransactionError:
            backoff.failed(now)
        else:
            del self._quarantined[family][name]
            self._unchecked.add(family)  # it may have left more in the table than it has now


def _says(question: Callable[[], bool]) -> bool:
    """Whether the kernel says so; not if it cannot say, as while somebody commits all the time."""
    try:
        return question()
    except (KproxyError, OSError):
        return False

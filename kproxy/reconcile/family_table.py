"""The table of one family, and the services that the kernel refuses.

A change of some services takes time in proportion to what changes. If the kernel refuses it, or if another
program changed the table, the whole table is compared. If the kernel refuses that, too, the services whose
elements it refused are quarantined: what was programmed for them stays, and all other services are served.
Failed attempts are repeated later, with exponential backoff.

A service is protected if part of its input cannot be read. That matters only in whole comparisons: they do
not remove what the table contains of the service. The first comparison after the service can be read again
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from kproxy.model import Family, NamespacedName, Protects, protect_nothing
from kproxy.nft.elements import Keys
from kproxy.problems import KproxyError, TransactionError
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.core.refusals import may_be_race, owners
from kproxy.reconcile.core.report import Report
from kproxy.resolve.claims import Claims, FrontendDiff
from kproxy.table.compile import SETS, Delta, Desired, compile_frontends, deltas, merged, whole
from kproxy.table.skeleton import Options

NAMED_ATTEMPTS = 8
"""The maximum number of whole comparisons in one update in which the kernel names refused services."""


class Table(Protocol):
    """The methods of Dataplane that this module calls. Its docstrings are the contract."""

    def set_options(self, options: Options) -> bool: ...

    def reconcile(self, desired: Desired, protected: Protects = protect_nothing, /) -> Report: ...

    def change(self, delta: Delta, /) -> Report: ...

    @property
    def endpoints(self) -> int: ...

    def is_gone(self) -> bool: ...

    def is_unchanged(self) -> bool: ...

    def restore(self) -> Report | None: ...

    def repair_elements(self, keys: Keys, /) -> Report | None: ...

    def end_found_flows(self) -> Report | None: ...

    def end_waiting_flows(self) -> None: ...


class FamilyTable:
    """One family's table, and the services that the kernel refused. For one thread at a time."""

    def __init__(self, family: Family, dataplane: Table, claims: Claims, warn: Callable[[str], None]) -> None:
        """`warn` is called with sentences about what the kernel refused, before the round ends."""
        self.family = family
        self.failure = ""
        """A sentence that explains why the table is not as desired; "" if it is."""
        self.quarantined: dict[NamespacedName, Backoff] = {}
        """The services whose elements the kernel refused, and the time of their next attempt."""
        self.protected: set[NamespacedName] = set()
        """The services protected in the last whole comparison, which did not remove their elements."""
        self.compared = False
        """Whether the last `update` read and compared the whole table."""
        self._dataplane = dataplane
        self._claims = claims
        self._warn = warn
        self._backoff = Backoff()
        self._must_compare = True
        """The table may differ from its copy, so the next update compares all of it."""
        self._suspected = False

    @property
    def endpoints(self) -> int:
        """The number of slots with an endpoint."""
        return self._dataplane.endpoints

    # --- before an update ---

    def set_options(self, options: Options) -> None:
        """Set the options of the rules for the following updates."""
        self._must_compare |= self._dataplane.set_options(options)

    def suspect(self) -> list[Report]:
        """Compare the whole table in the next update. If the table was deleted, restore it immediately."""
        reports = [] if self._must_compare else self._attempt(self._dataplane.restore)
        self._must_compare = self._suspected = True
        return reports

    def repair(self, keys: Keys) -> list[Report]:
        """Repair elements that another program changed. If that fails, the next update compares the table."""
        if self._must_compare:
            return []
        reports = self._attempt(partial(self._dataplane.repair_elements, keys))
        self._must_compare = not reports
        return reports

    # --- the update ---

    def update(
        self,
        changes: Mapping[NamespacedName, FrontendDiff],
        protected: Protects,
        now: float,
        compare: bool,
    ) -> list[Report]:
        """Bring the table to what is claimed, of which `changes` are new. `compare`: compare the whole table.

        Errors of the kernel are not raised. They are in `failure`, and `due` returns the time of the next
        attempt.
        """
        self._must_compare |= compare or not all(map(protected, self.protected))
        gone = self._suspected and self.is_gone()
        self.compared = self._suspected = False
        if self._backoff.due > now and not gone:  # a deleted table is restored immediately
            self._must_compare = True
            return []
        try:
            reports = self._update(changes, protected, now)
        except (KproxyError, OSError) as error:
            self._must_compare = True
            self._backoff.failed(now)
            self.failure = error.full if isinstance(error, KproxyError) else str(error)
            return []
        self._backoff.succeeded()
        self.failure = ""
        return reports

    def finish(self) -> None:
        """Do what waits on purpose, because there will be no other update."""
        self._dataplane.end_waiting_flows()

    # --- queries ---

    def due(self) -> Iterable[float]:
        """Return the times of the next attempts of what failed."""
        if self.failure:
            return [self._backoff.due]
        return [each.due for each in self.quarantined.values()]

    def is_gone(self) -> bool:
        """Whether another program deleted the table. Not to be called during an update."""
        return _query(self._dataplane.is_gone)

    def may_have_changed(self) -> bool:
        """Whether another program may have changed the table since it was last compared."""
        return not _query(self._dataplane.is_unchanged)

    # --- steps of an update ---

    def _update(
        self,
        changes: Mapping[NamespacedName, FrontendDiff],
        protected: Protects,
        now: float,
    ) -> list[Report]:
        if self.quarantined.keys() & changes.keys():
            self._must_compare = True  # also removes addresses that they take from other services
        reports = [] if self._must_compare else self._change(changes)
        for name in [n for n, backoff in self.quarantined.items() if backoff.due <= now or n in changes]:
            reports += self._try_again(name, now)
        if self._must_compare:
            reports += self._compare(protected, now)
            self._must_compare = False
        found = self._dataplane.end_found_flows()
        return reports if found is None else [*reports, found]

    def _change(self, changes: Mapping[NamespacedName, FrontendDiff]) -> list[Report]:
        batch = merged(deltas(changes, self.family).values())
        try:
            return [self._dataplane.change(batch)] if batch else []
        except TransactionError as error:
            self._warn_of_comparison(error)
            self._must_compare = True
            return self._attempt(self._dataplane.restore)  # without the table, no service is served

    def _compare(self, protected: Protects, now: float) -> list[Report]:
        self.compared, self.protected = True, set()
        found, quarantined = self.protected, self.quarantined

        def is_protected(service: NamespacedName) -> bool:
            if service not in found and not protected(service):
                return service in quarantined
            found.add(service)
            return True

        def reconcile() -> Report:
            every = self._claims.all_frontends()
            served = (each for each in every if each.owner.service not in quarantined)
            return self._dataplane.reconcile(compile_frontends(served, self.family), is_protected)

        for _ in range(NAMED_ATTEMPTS):
            try:
                return [reconcile()]
            except TransactionError as error:
                if not self._quarantine_named(error, now):
                    break
        return [*self._find_refused(now), reconcile()]

    def _attempt(self, attempt: Callable[[], Report | None]) -> list[Report]:
        """Return the report of an attempt; [] if there is none, or if the attempt failed."""
        try:
            report = attempt()
        except (KproxyError, OSError) as error:
            self._warn_of_comparison(error)
            report = None
        return [] if report is None else [report]

    # --- services that the kernel refuses ---

    def _quarantine_named(self, error: TransactionError, now: float) -> bool:
        """Quarantine the services whose elements the kernel named. Returns whether there are any."""
        if may_be_race(error):
            return False
        named = owners(error.refused, self._claims, self.family) - self.quarantined.keys()
        for name in sorted(named):
            self._quarantine(name, error, now)
        return bool(named)

    def _find_refused(self, now: float) -> list[Report]:
        """Repair what belongs to no service, then find the refused services by bisection."""
        self._warn(f"table {self.family}: searching for the refused services by bisection")
        nothing = Desired({}, {name: {} for name in SETS})
        repaired = self._dataplane.reconcile(nothing, lambda _: True)
        return [repaired, *self._try(sorted(self._claims.names() - self.quarantined.keys()), now)]

    def _try(self, names: Sequence[NamespacedName], now: float) -> list[Report]:
        try:
            return [self._dataplane.change(merged(map(self._whole, names)))]
        except TransactionError as error:
            if self._dataplane.is_gone():  # another program deleted it, so no service caused the error
                raise
            if len(names) > 1:
                middle = len(names) // 2
                return [*self._try(names[:middle], now), *self._try(names[middle:], now)]
            for name in names:
                self._quarantine(name, error, now)
            return []

    def _whole(self, name: NamespacedName) -> Delta:
        return whole(self._claims.frontends(name), self.family)

    def _try_again(self, name: NamespacedName, now: float) -> list[Report]:
        try:
            report = self._dataplane.change(self._whole(name))
        except TransactionError:
            self.quarantined[name].failed(now)
            return []
        del self.quarantined[name]
        self._must_compare = True  # the table may contain more of the service than is desired
        return [report]

    def _quarantine(self, name: NamespacedName, error: TransactionError, now: float) -> None:
        self._warn(f"Service {name} is quarantined: {error}")
        self.quarantined.setdefault(name, Backoff()).failed(now)

    def _warn_of_comparison(self, error: Exception) -> None:
        self._warn(f"table {self.family}: {error} Comparing the whole table.")


def _query(kernel_state: Callable[[], bool]) -> bool:
    """Query the kernel. Returns False if the query fails, for example because programs keep committing."""
    try:
        return kernel_state()
    except (KproxyError, OSError):
        return False

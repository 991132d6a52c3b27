"""The reconciler brings the kernel to the state of a source, one round at a time. `sync` and `run` share it.

    names of services -> claims -> each family's table -> RoundReport
                           uplink addresses before and after the tables

A load-balancer address is removed from the uplink before its service is removed from the tables, and added
after its service is added. Without the service, this node itself would receive packets to the address.

A change of some services takes time in proportion to what changes. If the kernel refuses it, or if another
program changed a table, the whole table is compared. If the kernel refuses that, too, the services whose
elements it refused are quarantined: what was programmed for them stays, and all other services are served.
Failed attempts are repeated later, with exponential backoff.

A service is protected if part of its input cannot be read. That matters only in whole comparisons: they do
not remove what the table contains of the service. The first comparison after the service can be read again
does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from kproxy.model import Address, Family, NamespacedName, Network, Node, Protects, owner_text, protect_nothing
from kproxy.nft.elements import Keys
from kproxy.problems import KproxyError, Problem, TransactionError
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.backoff import Backoff
from kproxy.reconcile.core.refusals import may_be_race, owners
from kproxy.reconcile.core.report import REJECTED, Report, RoundReport, Totals
from kproxy.resolve.claims import Claims, FrontendClaim, FrontendDiff, claim
from kproxy.sources.source import Source
from kproxy.table.compile import SETS, Delta, Desired, compile_frontends, deltas, merged, whole
from kproxy.table.skeleton import Options

logger = logging.getLogger(__name__)

NAMED_ATTEMPTS = 8
"""The maximum number of whole comparisons in one update in which the kernel names refused services."""


class Edit(NamedTuple):
    """Elements of a table that another program changed. It changed nothing else."""

    family: Family
    keys: Keys


class Reconciler:
    """Updates the kernel's tables, and the uplink's addresses, from a source. Not thread-safe."""

    def __init__(
        self,
        source: Source,
        dataplanes: Mapping[Family, Table],
        options: Callable[[Node, tuple[Network, ...]], Options],
        addresses: UplinkAddresses | None = None,
        clock: Callable[[], float] = time.monotonic,
        name_servers: Callable[[], tuple[Address, ...]] = tuple,
    ) -> None:
        """`options` returns the options of the rules for a node and the ranges of ClusterIPs of the source.

        `name_servers` returns the addresses whose DNS queries are not tracked. Without `addresses`, none are
        announced.
        """
        self.claims = Claims()
        """What the services require, as of the last round."""
        self._source = source
        self._tables = {f: FamilyTable(f, dataplane, self.claims) for f, dataplane in dataplanes.items()}
        self.options = Options()
        """The options of the rules, as of the last round."""
        self._options_of = options
        self._name_servers = name_servers
        self._inputs: tuple[object, ...] = ()
        """What the options were made from."""
        self._addresses = addresses
        self._clock = clock
        self._node: Node | None = None

    def round(
        self,
        names: Collection[NamespacedName],
        suspect: Collection[Family] = (),
        edits: Iterable[Edit] = (),
    ) -> RoundReport:
        """Program these services as the source has them now; all services if the node changed.

        The whole tables of `suspect` families are compared. The elements that `edits` name are repaired. What
        the kernel refuses is in the report, and is tried again in a round after `due`. If the options are not
        known yet, KproxyError is raised, and nothing changes.
        """
        begun = self._clock()
        node = self._source.node()
        self._update_options(node, self._source.service_cidrs(), self._name_servers())
        if node != self._node:
            names = {*names, *self._source.names(), *self.claims.names()}
        claims = {name: self._claim(name, node) for name in sorted(names)}  # as they are in memory, usually
        address_changes = self._addresses.withdraw() if self._addresses else ()
        reports = self._program(claims, suspect, edits)
        failures = {table.family: table.failure for table in self._tables.values() if table.failure}
        address_changes += self._addresses.announce(failures.keys()) if self._addresses else ()
        self._node = node
        return RoundReport(
            tuple(reports),
            failures,
            any(table.compared for table in self._tables.values()),
            claims.keys(),
            self._totals(),
            address_changes,
            self.address_failures,
            self._clock() - begun,
        )

    @property
    def address_failures(self) -> tuple[str, ...]:
        """Which load-balancer addresses could not be added or announced, and why. Thread-safe."""
        return self._addresses.failures if self._addresses else ()

    def changes_lost(self) -> None:
        """Program all services in the next round, since a failed round has taken changes from the source."""
        self._node = None

    def finish(self) -> None:
        """Do what waits on purpose, because there will be no other round."""
        for table in self._tables.values():
            table.finish()

    def due(self) -> float | None:
        """Return the time of the next attempt of something that failed; None if nothing did."""
        waiting = [when for table in self._tables.values() for when in table.due()]
        addresses = self._addresses.due() if self._addresses else None
        return min(waiting if addresses is None else [*waiting, addresses], default=None)

    def possibly_changed(self) -> frozenset[Family]:
        """Return the families whose table another program may have changed. Not to be called in a round."""
        return frozenset(table.family for table in self._tables.values() if table.may_have_changed())

    def any_gone(self) -> bool:
        """Whether another program deleted a table. Not to be called in a round."""
        return any(table.is_gone() for table in self._tables.values())

    def problems(self) -> list[Problem]:
        """Return conflicts between services, and services that the kernel rejected."""
        refused = [Problem("", owner_text(name), "", REJECTED) for name in sorted(self.quarantined())]
        return self.claims.problems() + refused

    def is_quarantined(self, service: NamespacedName) -> bool:
        """Whether the kernel rejected a service. Thread-safe."""
        return any(service in table.quarantined for table in self._tables.values())

    def protected(self) -> set[NamespacedName]:
        """Return the protected services, of which the tables may contain more than is desired."""
        return {name for table in self._tables.values() for name in table.protected}

    def quarantined(self) -> set[NamespacedName]:
        """Return the services that the kernel rejected."""
        return {name for table in self._tables.values() for name in table.quarantined}

    def _update_options(
        self, node: Node, service_cidrs: tuple[Network, ...], name_servers: tuple[Address, ...]
    ) -> None:
        """Set the options of the rules, if something that they are made from changed."""
        inputs = node, service_cidrs, name_servers
        if inputs == self._inputs:
            return
        options = self._options_of(node, service_cidrs)._replace(name_servers=name_servers)
        if options != self.options:
            self.options = options
            for table in self._tables.values():
                table.set_options(options)
        self._inputs = inputs

    def _claim(self, name: NamespacedName, node: Node) -> FrontendClaim | None:
        service = self._source.service(name)
        return None if service is None else claim(service, self._source.slices(name), node)

    def _program(
        self,
        claims: Mapping[NamespacedName, FrontendClaim | None],
        suspect: Collection[Family],
        edits: Iterable[Edit],
    ) -> list[Report]:
        reports: list[Report] = []
        for table in (self._tables[family] for family in self._tables if family in suspect):
            reports += table.suspect()
        for family, keys in edits:
            reports += self._tables[family].repair(keys)
        changes, protected, now = self.claims.change(claims), self._source.protected, self._clock()
        compare = any(map(protected, claims))  # what there is of such a service may be in the table only
        for table in self._tables.values():
            reports += table.update(changes, protected, now, compare)
        return reports

    def _totals(self) -> Totals:
        held = sum(not self.claims.frontends(name) for name in self.protected())
        endpoints = sum(table.endpoints for table in self._tables.values())
        return Totals(*self.claims.totals, held, len(self.quarantined()), endpoints)


# --- the table of one family ---


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

    def __init__(self, family: Family, dataplane: Table, claims: Claims) -> None:
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
            self._warn(error)
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
            wanted = (each for each in every if each.owner.service not in quarantined)
            return self._dataplane.reconcile(compile_frontends(wanted, self.family), is_protected)

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
            self._warn(error)
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
        logger.warning("table %s: searching for the refused services by bisection", self.family)
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
        logger.error("Service %s is quarantined: %s", name, error)
        self.quarantined.setdefault(name, Backoff()).failed(now)

    def _warn(self, error: Exception) -> None:
        logger.warning("table %s: %s Comparing the whole table.", self.family, error)


def _query(kernel_state: Callable[[], bool]) -> bool:
    """Query the kernel. Returns False if the query fails, for example because programs keep committing."""
    try:
        return kernel_state()
    except (KproxyError, OSError):
        return False

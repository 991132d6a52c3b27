"""The reconciler brings the kernel to the state of a source, one round at a time. `sync` and `run` share it.

    names of services -> claims -> each family's table -> RoundReport
                           uplink addresses before and after the tables

A load-balancer address is removed from the uplink before its service is removed from the tables, and added
after its service is added. Without the service, this node itself would receive packets to the address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kproxy.model import Address, Family, NamespacedName, Network, Node, owner_text
from kproxy.nft.elements import Keys
from kproxy.problems import Problem
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.report import QUARANTINED, Report, RoundReport, Totals
from kproxy.reconcile.family_table import FamilyTable, Table
from kproxy.resolve.claims import Claims, FrontendClaim, claim
from kproxy.sources.source import Source
from kproxy.table.skeleton import Options


class Edit(Struct, frozen=True):
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
        warn: Callable[[str], None],
        addresses: UplinkAddresses | None = None,
        clock: Callable[[], float] = time.monotonic,
        name_servers: Callable[[], tuple[Address, ...]] = tuple,
    ) -> None:
        """`options` returns the options of the rules for a node and the ranges of ClusterIPs of the source.

        `warn` is called with sentences about what the kernel refused, before the round ends. `name_servers`
        returns the addresses whose DNS queries are not tracked. Without `addresses`, none are announced.
        """
        self.claims = Claims()
        """What the services require, as of the last round."""
        self._source = source
        self._tables = {f: FamilyTable(f, table, self.claims, warn) for f, table in dataplanes.items()}
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
        """Return conflicts between services, and services that the kernel refused."""
        refused = [Problem("", owner_text(name), "", QUARANTINED) for name in sorted(self.quarantined())]
        return self.claims.problems() + refused

    def is_quarantined(self, service: NamespacedName) -> bool:
        """Whether the kernel refused a service. Thread-safe."""
        return any(service in table.quarantined for table in self._tables.values())

    def protected(self) -> set[NamespacedName]:
        """Return the protected services, of which the tables may contain more than is desired."""
        return {name for table in self._tables.values() for name in table.protected}

    def quarantined(self) -> set[NamespacedName]:
        """Return the services that the kernel refused."""
        return {name for table in self._tables.values() for name in table.quarantined}

    def _update_options(
        self, node: Node, service_cidrs: tuple[Network, ...], name_servers: tuple[Address, ...]
    ) -> None:
        """Set the options of the rules, if something that they are made from changed."""
        inputs = node, service_cidrs, name_servers
        if inputs == self._inputs:
            return
        options = replace(self._options_of(node, service_cidrs), name_servers=name_servers)
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
        for edit in edits:
            reports += self._tables[edit.family].repair(edit.keys)
        changes, now = self.claims.change(claims), self._clock()
        compare = any(map(self._protects, claims))  # what there is of such a service may be in the table only
        for table in self._tables.values():
            reports += table.update(changes, self._protects, now, compare)
        return reports

    def _protects(self, name: NamespacedName) -> bool:
        return self._source.protected(name) or self.claims.too_large(name)

    def _totals(self) -> Totals:
        held = sum(not self.claims.frontends(name) for name in self.protected())
        endpoints = sum(table.endpoints for table in self._tables.values())
        return Totals(*self.claims.totals, held, len(self.quarantined()), endpoints)

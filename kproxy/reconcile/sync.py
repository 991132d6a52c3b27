"""One round, and no loop: what `kproxy sync` does with manifests.

The state directory is locked before the manifests are read: of two syncs, the one that read last is to win.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kproxy.kernel.host import require_root
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.uplink import Uplink
from kproxy.model import Family
from kproxy.problems import Problem
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.report import RoundReport, lines, summary
from kproxy.reconcile.dataplane import Dataplane
from kproxy.reconcile.reconciler import Reconciler
from kproxy.settings.derived import dataplane_options, pool_nodes, ranges
from kproxy.settings.settings import Settings
from kproxy.sources.manifests import Manifests
from kproxy.sources.node import find_node
from kproxy.sources.progress import UNSHOWN, Progress
from kproxy.state.store import Store
from kproxy.table.skeleton import Options


class SyncResult(NamedTuple):
    """What a sync did, what it could not do, and what may be a mistake."""

    report: RoundReport
    problems: list[Problem]
    """What the round found: conflicts between services, and services that the kernel rejected."""
    warnings: list[Problem]
    """Services that drop packets because of a traffic policy Local."""
    ignored: Mapping[str, int]
    """Objects of kinds that kproxy does not use, by kind."""
    complete: bool
    """Whether nothing was left out and everything could be done."""

    def lines(self, limit: int | None) -> Iterator[str]:
        """What was done: a line for each change, of `limit` at most (None: all), and the summary."""
        yield from lines(self.report, limit)
        yield summary(self.report)
        if self.ignored:
            yield f"ignored: {', '.join(f'{count} {kind}' for kind, count in sorted(self.ignored.items()))}"

    @property
    def complaints(self) -> list[str]:
        """What could not be done, and warnings: sentences."""
        failures = [f"table {family}: {why}" for family, why in self.report.failures.items()]
        found = map(str, (*self.problems, *self.warnings))
        return [*found, *self.report.warnings, *self.report.address_failures, *failures]


class Sync:
    """Manifests that were read, and that `program` programs."""

    def __init__(self, chosen: Settings, source: Manifests, progress: Progress) -> None:
        self._settings = chosen
        self._source = source
        self._progress = progress

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the manifests, or may be."""
        return [*self._source.problems(), *self._source.warnings()]

    def program(self) -> SyncResult:
        """Make one round. KproxyError: nothing was programmed."""
        names = tuple(self._source.names())
        self._progress.tell(f"programming {len(names)} services")
        with Netlink() as netlink:
            reconciler = Reconciler(
                self._source,
                {family: Dataplane(netlink, family, Options()) for family in Family},
                partial(dataplane_options, self._settings),
                self._addresses(),
            )
            report = reconciler.round(names)
        found = reconciler.problems()
        complete = not (self._source.problems() or found or report.failures or report.address_failures)
        return SyncResult(report, found, reconciler.warnings(), self._source.ignored(), complete)

    def _addresses(self) -> UplinkAddresses:
        uplink = Uplink(self._settings.load_balancer_interface or None)
        return UplinkAddresses(uplink, partial(self._source.announced, pool_nodes(self._settings)))


@contextmanager
def sync(chosen: Settings, progress: Progress = UNSHOWN) -> Iterator[Sync]:
    """Read the manifests of these settings, allocate and select. The state directory is locked meanwhile."""
    require_root()
    pool_nodes(chosen)  # UsageError before anything is saved
    store = Store(Path(chosen.state_dir))
    with store.lock("sync"):
        source = Manifests(chosen.manifests, store, ranges(chosen), partial(find_node, chosen))
        source.load(progress)
        yield Sync(chosen, source, progress)

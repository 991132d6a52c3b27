"""Reads manifests and runs one round, for `kproxy sync`.

The state directory is locked before the manifests are read. So of two syncs at the same time, the one that
reads last also programs last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct

from kproxy.kernel.bridges import turn_hairpin_on
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.ownership import check_owner
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.kernel.uplink import Uplink
from kproxy.model import Family
from kproxy.problems import Problem, ignored_sentence
from kproxy.reconcile.addresses import UplinkAddresses
from kproxy.reconcile.core.report import RoundReport, lines, summary
from kproxy.reconcile.dataplane import Dataplane, Preview
from kproxy.reconcile.reconciler import Reconciler
from kproxy.settings.derived import dataplane_options, pool_nodes, warnings
from kproxy.settings.settings import Settings
from kproxy.sources.configured import manifests_of
from kproxy.sources.manifests import Manifests
from kproxy.sources.progress import UNSHOWN, Progress
from kproxy.state.store import ReadOnlyStore, Store
from kproxy.table.skeleton import Options


class SyncResult(Struct, frozen=True):
    """The result of a sync."""

    report: RoundReport
    problems: list[Problem]
    """Conflicts between services, and services that the kernel refused."""
    warnings: list[Problem]
    """Services that drop packets because of traffic policy Local."""
    ignored: Mapping[str, int]
    """The numbers of objects of kinds that kproxy does not use."""
    complete: bool
    """Whether everything in the input was programmed."""
    warned: bool
    """Whether there are warnings, of these or about the settings and the manifests."""
    host_failures: list[str]
    """Sentences about addresses and bridges of this host that could not be set up."""

    def succeeded(self, strict: bool) -> bool:
        """Whether everything was programmed; with `strict`, only if there are no warnings."""
        return self.complete and not (strict and self.warned)

    def lines(self, limit: int | None) -> Iterator[str]:
        """Return a line for each of the first `limit` changes (None: all), and the summary."""
        yield from lines(self.report, limit)
        yield summary(self.report)
        if self.ignored:
            yield ignored_sentence(self.ignored)

    @property
    def complaints(self) -> list[str]:
        """Sentences about everything that failed."""
        failures = [f"table {family}: {why}" for family, why in self.report.failures.items()]
        return [*map(str, self.problems), *self.report.warnings, *self.host_failures, *failures]


class Sync:
    """The manifests of a sync, after they were read."""

    def __init__(
        self, settings: Settings, source: Manifests, warn: Callable[[str], None], progress: Progress
    ) -> None:
        self._settings = settings
        self._source = source
        self._warn = warn
        self._progress = progress

    @property
    def problems(self) -> list[Problem]:
        """The problems of the manifests."""
        return self._source.problems()

    @property
    def warnings(self) -> list[Problem | str]:
        """The warnings about the settings and the manifests."""
        return [*warnings(self._settings), *self._source.input_warnings(), *self._source.warnings()]

    @property
    def notes(self) -> list[str]:
        """What is missing in the manifests, although nothing in them is wrong."""
        return self._source.notes()

    def program(self) -> SyncResult:
        """Run one round, or preview it (--dry-run). If KproxyError is raised, nothing was programmed."""
        table = Preview if self._settings.dry_run else Dataplane
        names = tuple(self._source.names())
        self._progress.begin(f"programming {len(names)} services")
        with Rehearsal() as rehearsal, Netlink() as netlink:
            expect = rehearsal.expected_structure
            reconciler = Reconciler(
                self._source,
                {family: table(netlink, family, Options(), expect) for family in Family},
                partial(dataplane_options, self._settings),
                self._warn,
                self._addresses(),
            )
            report = reconciler.round(names)
        failures = [] if self._settings.dry_run else turn_hairpin_on(self._settings.bridge_hairpin)
        found = reconciler.problems()
        failures += report.address_failures
        complete = not (self._source.problems() or found or report.failures or failures)
        dropping = reconciler.claims.warnings()
        warned = bool(self.warnings or dropping)
        return SyncResult(report, found, dropping, self._source.ignored(), complete, warned, failures)

    def _addresses(self) -> UplinkAddresses:
        uplink = Uplink(self._settings.load_balancer_interface or None, self._settings.dry_run)
        return UplinkAddresses(uplink, partial(self._source.announced, pool_nodes(self._settings)))


@contextmanager
def sync(settings: Settings, warn: Callable[[str], None], progress: Progress = UNSHOWN) -> Iterator[Sync]:
    """Read and settle the manifests. The state directory is locked until the block ends.

    `warn` is called with sentences that should not wait for the result: which process holds the lock, and
    what the kernel refused. A dry run does not change the state directory, and does not wait for its lock.
    """
    require_root()
    pool_nodes(settings)  # raises UsageError before anything is saved
    store = (ReadOnlyStore if settings.dry_run else Store)(Path(settings.state_dir))
    with store.lock("sync", warn):
        if not settings.dry_run:
            with Netlink() as netlink:
                check_owner(netlink)
        source = manifests_of(settings, store)
        source.load(progress, settings.allow_empty)
        yield Sync(settings, source, warn, progress)

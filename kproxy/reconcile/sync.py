"""One round, and no loop: what `kproxy sync` does with manifests.

The state directory is locked before the manifests are read: of two syncs, the one that read last is to win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from kproxy.state.store import Store
from kproxy.table.skeleton import Options


class SyncResult(NamedTuple):
    """What a sync did, and what it could not do."""

    report: RoundReport
    complete: bool
    """Whether nothing was left out and everything could be done."""
    ignored: Mapping[str, int]
    """Objects of kinds that kproxy does not use, by kind."""

    def lines(self, limit: int | None) -> Iterator[str]:
        """What was done: a line for each change, of `limit` at most (None: all), and the summary."""
        yield from lines(self.report, limit)
        yield summary(self.report)
        if self.ignored:
            yield f"ignored: {', '.join(f'{count} {kind}' for kind, count in sorted(self.ignored.items()))}"

    @property
    def complaints(self) -> list[str]:
        """What could not be done: sentences."""
        failures = [f"table {family}: {why}" for family, why in self.report.failures.items()]
        return [*self.report.warnings, *self.report.unreachable, *failures]


def sync(chosen: Settings, tell: Callable[[Iterable[Problem]], None]) -> SyncResult:
    """Program the manifests of these settings. KproxyError: nothing was programmed.

    `tell` is called with what is wrong with the manifests, or may be, as soon as that is known, and again
    after the round with what was wrong there.
    """
    require_root()
    nodes, store = pool_nodes(chosen), Store(Path(chosen.state_dir))
    uplink = Uplink(chosen.load_balancer_interface or None)
    with store.lock("sync"):
        source = Manifests(chosen.manifests, store, ranges(chosen), partial(find_node, chosen))
        source.load()
        tell([*source.problems(), *source.warnings()])
        with Netlink() as netlink:
            reconciler = Reconciler(
                source,
                {family: Dataplane(netlink, family, Options()) for family in Family},
                partial(dataplane_options, chosen),
                UplinkAddresses(uplink, partial(source.announced, nodes)),
            )
            report = reconciler.round(tuple(source.names()))
        tell(reconciler.problems())
    problems = source.problems() + reconciler.problems()
    complete = not (problems or report.failures or report.unreachable)
    return SyncResult(report, complete, source.ignored())

"""Finds the snapshot for commands: that of the running kproxy, or one of manifests."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kproxy.control.snapshot import take_snapshot
from kproxy.controlplane.ledger import Allocations
from kproxy.resolve.frontends import all_frontends
from kproxy.settings.derived import ranges
from kproxy.settings.settings import Settings
from kproxy.show.snapshot import Snapshot
from kproxy.sources.manifests import Manifests
from kproxy.sources.node import find_node
from kproxy.sources.progress import UNSHOWN, Progress
from kproxy.state.store import Store


class _ReadOnlyStore(Store):
    """A state directory that is only read."""

    def save(self, before: Allocations, after: Allocations) -> None:
        """Do nothing."""


def look_up(settings: Settings, progress: Progress = UNSHOWN) -> Snapshot:
    """Return the snapshot of the running kproxy. With manifests, return that of what this node would serve.

    The state directory is read, but not changed.
    """
    if not settings.manifests:
        from kproxy.control.channel import fetch  # not at the top, because importing asyncio takes long

        progress.begin("asking the running kproxy")
        return fetch(Path(settings.state_dir))
    store = _ReadOnlyStore(Path(settings.state_dir))
    source = Manifests(settings.manifests, store, ranges(settings), partial(find_node, settings))
    source.load(progress)
    inventory = source.inventory()
    progress.begin(f"resolving {len(inventory.services)} services")
    resolved = all_frontends(inventory.services.values(), inventory.slices, source.node())
    return take_snapshot(source, resolved.frontends, resolved.problems, warnings=resolved.warnings)

"""What the commands that show something show: the running kproxy's snapshot, or that of manifests."""

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
from kproxy.state.store import Store


class _Unchanged(Store):
    """A state directory that is read and not written."""

    def save(self, before: Allocations, after: Allocations) -> None:
        """Do nothing."""


def look_up(chosen: Settings) -> Snapshot:
    """The manifests as this node would serve them; without manifests, what the running kproxy holds.

    The state directory is read, not changed.
    """
    if not chosen.manifests:
        from kproxy.control.channel import fetch  # with asyncio, which takes long to import

        return fetch(Path(chosen.state_dir))
    store = _Unchanged(Path(chosen.state_dir))
    source = Manifests(chosen.manifests, store, ranges(chosen), partial(find_node, chosen))
    source.load()
    inventory = source.inventory()
    resolved = all_frontends(inventory.services.values(), inventory.slices, source.node())
    return take_snapshot(source, resolved.frontends, resolved.problems)

"""Makes the snapshot of manifests: what this node would serve. No kproxy has to run."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from kproxy.control.snapshot import take_snapshot
from kproxy.problems import Problem
from kproxy.resolve.claims import all_frontends
from kproxy.settings.derived import dataplane_options
from kproxy.settings.settings import Settings
from kproxy.show.snapshot import Snapshot
from kproxy.sources.configured import manifests_of
from kproxy.sources.progress import Progress
from kproxy.state.store import ReadOnlyStore


def planned(settings: Settings, progress: Progress, allow_empty: bool) -> Snapshot:
    """Return the snapshot of the manifests of --manifests. The state directory is read, but not changed.

    Raises UsageError if a path contains no objects and that is not allowed.
    """
    store = ReadOnlyStore(Path(settings.state_dir))
    source = manifests_of(settings, store)
    source.load(progress, allow_empty)
    inventory = source.inventory()
    progress.begin(f"resolving {len(inventory.services)} services")
    resolved = all_frontends(inventory.owners.values(), inventory.owned_slices, source.node())
    snapshot = take_snapshot(
        source,
        resolved.frontends,
        resolved.problems,
        warnings=resolved.warnings,
        options=dataplane_options(settings, source.node(), source.service_cidrs()),
        cluster_domain=settings.cluster_domain,
    )
    empty = [Problem("", "", "", sentence) for sentence in source.empty if not settings.allow_empty]
    return replace(snapshot, input_warnings=(*empty, *snapshot.input_warnings))

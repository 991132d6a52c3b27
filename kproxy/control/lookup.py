"""Finds the snapshot for commands: that of the running kproxy, or one of manifests."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from kproxy.control.client import fetch
from kproxy.settings.settings import Settings
from kproxy.show.snapshot import Snapshot
from kproxy.sources.progress import UNSHOWN, Progress


def look_up(
    settings: Settings,
    progress: Progress = UNSHOWN,
    allow_empty: bool = True,
    about: Collection[str] | None = None,
) -> Snapshot:
    """Return the snapshot of the running kproxy, or with manifests, of what this node would serve.

    With `about`, a running kproxy sends only what concerns these names and addresses. The state directory is
    read, but not changed. Raises UsageError if a path contains no objects and that is not allowed.
    """
    if settings.manifests:
        from kproxy.control.planned import planned  # not at the top: a running kproxy has read the manifests

        return planned(settings, progress, allow_empty)
    progress.begin("asking the running kproxy")
    return fetch(Path(settings.state_dir), about=about)

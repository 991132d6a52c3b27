"""Selects the API server that a node follows in stories: the double, or a real one (docs/cluster.md)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests.controlplane import NEEDS_PROCESS, Cluster
from tests.stories.doubled import Double, doubled
from tests.stories.following import Follow
from tests.stories.remote import remote


@pytest.fixture
def following(cluster: Cluster | None, lab: Lab, tmp_path: Path) -> Follow:
    """A node that follows the double, or the real API server if there is one."""
    return partial(remote, lab, tmp_path, cluster) if cluster else partial(doubled, lab, tmp_path)


@pytest.fixture
def owning(cluster: Cluster | None, following: Follow) -> Follow:
    """The same, only if the test controls the server's process: `story.server` is available."""
    if cluster and not cluster.control_plane:
        pytest.skip(NEEDS_PROCESS)
    return following


@pytest.fixture
def double(cluster: Cluster | None, lab: Lab, tmp_path: Path) -> Double:
    """A node that follows the double, even if there is a real API server."""

    def begin(why: str, *manifests: object, **options: object) -> object:
        if cluster:
            pytest.skip(f"needs the double: {why}")
        return doubled(lab, tmp_path, *manifests, **options)  # type: ignore[arg-type]

    return begin  # type: ignore[return-value]

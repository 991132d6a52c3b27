"""A lab and a kproxy for each test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from tests.support import Kproxy


@pytest.fixture
def lab() -> Iterator[Lab]:
    """One node with three pods, and a client outside."""
    with Lab(single(3)) as lab:
        yield lab


@pytest.fixture
def kproxy(lab: Lab, tmp_path: Path) -> Kproxy:
    """kproxy on the lab's node, told where pods and services are."""
    return Kproxy(lab.node("n1"), tmp_path / "state")

"""A lab and a kproxy for each test that asks for them, and a real API server, if one is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from tests.controlplane import Cluster, ControlPlane
from tests.support import Kproxy

KUBECONFIG = "KPROXY_TEST_KUBECONFIG"
"""The environment's name for the kubeconfig of a cluster that is there (docs/cluster.md)."""
ASSETS = "KPROXY_TEST_ASSETS"
"""And for the folder with kube-apiserver and etcd, of which one is made for the tests."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """One node with three pods, and a client outside."""
    with Lab(single(3)) as lab:
        yield lab


@pytest.fixture
def kproxy(lab: Lab, tmp_path: Path) -> Kproxy:
    """kproxy on the lab's node, told where pods and services are."""
    return Kproxy(lab.node("n1"), tmp_path / "state")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | None]:
    """The real API server that is to be tried, if one is named."""
    if assets := os.environ.get(ASSETS):
        with ControlPlane(Path(assets), tmp_path_factory.mktemp("control-plane")) as control_plane:
            yield Cluster(control_plane.kubeconfig, control_plane)
    elif kubeconfig := os.environ.get(KUBECONFIG):
        yield Cluster(Path(kubeconfig))
    else:
        yield None

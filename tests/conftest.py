"""Fixtures: a lab and kproxy for each test, and a real API server if the environment names one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from netns_lab.lab import Lab
from netns_lab.topology import single

from tests.controlplane import Cluster, ControlPlane
from tests.support import Kproxy

KUBECONFIG = "KPROXY_TEST_KUBECONFIG"
"""Environment variable with the kubeconfig of an existing cluster (docs/cluster.md)."""
ASSETS = "KPROXY_TEST_ASSETS"
"""Environment variable with the folder of kube-apiserver and etcd. The tests then start a cluster."""


# Few examples, so that the properties are always tested, and each time the same: what fails, fails again.
# `make test-long` tries others, with the profile `random`. A busy machine makes neither of them fail.
BUSY = [HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile(
    "random", max_examples=400, deadline=None, suppress_health_check=BUSY, print_blob=True
)
settings.register_profile("suite", settings.get_profile("random"), max_examples=40, derandomize=True)
settings.load_profile("suite")
# A shell that starts a command in the background makes it ignore SIGINT, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """One node with three pods, and an external client."""
    with Lab(single(3)) as lab:
        yield lab


@pytest.fixture
def kproxy(lab: Lab, tmp_path: Path) -> Kproxy:
    """kproxy on the lab's node, with the flags for its pod and Service networks."""
    return Kproxy(lab.node("n1"), tmp_path / "state")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster | None]:
    """The real API server to test with, or None if the environment names none."""
    if assets := os.environ.get(ASSETS):
        with ControlPlane(Path(assets), tmp_path_factory.mktemp("control-plane")) as control_plane:
            yield Cluster(control_plane.kubeconfig, control_plane)
    elif kubeconfig := os.environ.get(KUBECONFIG):
        yield Cluster(Path(kubeconfig))
    else:
        yield None

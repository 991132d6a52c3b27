"""`kproxy run` on a node of a cluster: the tables follow the API server, the double or a real one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests.controlplane import Cluster
from tests.stories.following import Follow, Told
from tests.stories.remote import remote
from tests.support import SERVICE_IP, service, slices

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")


def follow(told: Told) -> None:
    """Objects come, change and go; some while kproxy is away."""
    lab, running = told.lab, told.running
    assert told.answering() & set(PODS) == set()
    told.apply(service(), *slices(lab, PODS))
    told.right()
    assert told.answering() == told.answering(6) == set(PODS)
    told.apply(*slices(lab, ["pod-2"]))
    told.right()
    assert told.answering() == {"pod-2"}
    assert SERVICE_IP[4] in running.view("get", "svc", "-A")

    assert running.stop() == 0
    assert told.answering() == {"pod-2"}
    told.apply(*slices(lab, ["pod-3"]))
    running.start()
    told.right()
    assert told.answering() == {"pod-3"}
    running.stop(signal.SIGKILL)
    told.delete(service())
    running.start()
    told.right()
    assert told.answering() & set(PODS) == set()


def test_the_tables_follow_the_cluster(following: Follow) -> None:
    with following() as told:
        follow(told)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """Of the double as a process of its own, by TLS and a token: as strange to the test as a real server."""
    file = tmp_path / "admin.conf"
    command = [sys.executable, "-m", "tests.apiserver", "--tls", str(tmp_path / "pki"), "--token", "secret"]
    process = subprocess.Popen([*command, "--kubeconfig", str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().startswith("https://")
    yield file
    process.terminate()
    process.wait(60)


def test_the_same_by_http_alone(lab: Lab, tmp_path: Path, kubeconfig: Path) -> None:
    with remote(lab, tmp_path, Cluster(kubeconfig)) as told:
        follow(told)


def test_what_is_wrong_with_the_server_is_said(following: Follow) -> None:
    with following() as told:
        told.way.close()
        told.says("Connection refused")
        told.way.open()
        told.says("solved")

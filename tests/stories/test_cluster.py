"""`kproxy run` on a node of a cluster: the tables follow the API server, a double or a real one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests.controlplane import Cluster
from tests.stories.following import ClusterStory, Follow
from tests.stories.remote import remote
from tests.support import SERVICE_IP, service, slices

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")


def follow(story: ClusterStory) -> None:
    """Add, change and delete objects, some of them while kproxy does not run."""
    lab, running = story.lab, story.running
    assert story.answering() & set(PODS) == set()
    story.apply(service(), *slices(lab, PODS))
    story.converges()
    assert story.answering() == story.answering(6) == set(PODS)
    story.apply(*slices(lab, ["pod-2"]))
    story.converges()
    assert story.answering() == {"pod-2"}
    assert SERVICE_IP[4] in running.view("get", "svc", "-A")

    assert running.stop() == 0
    assert story.answering() == {"pod-2"}
    story.apply(*slices(lab, ["pod-3"]))
    running.start()
    story.converges()
    assert story.answering() == {"pod-3"}
    running.stop(signal.SIGKILL)
    story.delete(service())
    running.start()
    story.converges()
    assert story.answering() & set(PODS) == set()


def test_the_tables_follow_the_cluster(following: Follow) -> None:
    with following() as story:
        follow(story)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of the double as a separate process, with TLS and a token, like a real server."""
    file = tmp_path / "admin.conf"
    command = [sys.executable, "-m", "tests.apiserver", "--tls", str(tmp_path / "pki"), "--token", "secret"]
    process = subprocess.Popen([*command, "--kubeconfig", str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().startswith("https://")
    yield file
    process.terminate()
    process.wait(60)


def test_the_tables_follow_a_separate_server(lab: Lab, tmp_path: Path, kubeconfig: Path) -> None:
    with remote(lab, tmp_path, Cluster(kubeconfig)) as story:
        follow(story)


def test_an_unreachable_server_is_logged(following: Follow) -> None:
    with following() as story:
        story.network.close()
        story.logs("Connection refused")
        story.network.open()
        story.logs("solved")

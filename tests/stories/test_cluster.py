"""`kproxy run` on a cluster's node: the tables follow the API server, and outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, many

from tests.apiserver import ApiServer
from tests.apiserver.kubeconfig import write_kubeconfig
from tests.apiserver.listener import create_server
from tests.support import SERVICE_IP, Manifest, Running, eventually, service, slices

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")


@pytest.fixture
def api(lab: Lab) -> Iterator[ApiServer]:
    """An API server beside the node."""
    outside = lab.client("outside")
    with ApiServer(
        host=outside.address(4),
        listen=lambda host, port: outside.inside(lambda: create_server(host, port)),
    ) as server:
        yield server


@pytest.fixture
def running(lab: Lab, api: ApiServer, tmp_path: Path) -> Iterator[Running]:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", api.url, {})
    with Running(lab.node("n1"), tmp_path, ["--kubeconfig", str(kubeconfig)]) as running:
        yield running


def in_default(*manifests: Manifest) -> list[Manifest]:
    """As an API server has them: with their namespace."""
    return [{**made, "metadata": {"namespace": "default", **made["metadata"]}} for made in manifests]


def answering(lab: Lab) -> set[str]:
    client = lab.pod("pod-1")
    if http_get(client, SERVICE_IP[4], 80, timeout=1).outcome is not Outcome.ANSWERED:
        return set()
    return set(many(client, SERVICE_IP[4], 80, 30))


def test_the_tables_follow_the_cluster(lab: Lab, api: ApiServer, running: Running) -> None:
    assert answering(lab) == set()
    api.apply(*in_default(service(), *slices(lab, PODS)))
    eventually(lambda: answering(lab) == set(PODS), running.said)
    api.apply(*in_default(*slices(lab, ["pod-2"])))
    eventually(lambda: answering(lab) == {"pod-2"}, running.said)
    assert SERVICE_IP[4] in running.view("get", "svc", "web")

    # The API server is away: what is programmed stays, over a restart as well.
    api.stop()
    assert running.stop() == 0
    assert answering(lab) == {"pod-2"}
    api.resume()
    running.start()
    assert answering(lab) == {"pod-2"}
    api.delete(*in_default(service()))
    eventually(lambda: answering(lab) == set(), running.said)


def test_what_is_wrong_with_the_server_is_said(lab: Lab, api: ApiServer, running: Running) -> None:
    api.stop()
    eventually(lambda: "cannot be reached" in running.said() or "Connect" in running.said(), running.said)
    api.resume()
    eventually(lambda: "solved" in running.said(), running.said)

"""The readiness probe of the book chapter: a pod is ready while `ls /var/ready` succeeds in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.manifests import pod_manifests
from netns_lab.probe import Outcome, http_get, many

from tests.stories.chapter import MANIFESTS, POD_CIDR, cluster, kubia
from tests.support import Running, eventually

pytestmark = pytest.mark.lab

PODS = (
    kubia("kubia-m7xnj", "10.0.0.4"),
    kubia("kubia-qsrhr", "10.0.0.5"),
    kubia("kubia-wpk4k", "10.0.0.8"),
)
PROBE = {
    "exec": {"command": ["ls", "/var/ready"]},
    "periodSeconds": 1,
    "failureThreshold": 2,
    "timeoutSeconds": 60,
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(cluster(*PODS, nodes=1)) as lab:
        yield lab


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    """kproxy with the chapter's NodePort Service and pods with the probe."""
    runner = f"nsenter --net=/run/netns/nl-{lab.id}-{{pod}} --mount=/run/netns-lab/{lab.id}/{{pod}}"
    flags = ["--probe-exec", runner, "--cluster-cidr", POD_CIDR, "--service-cidr", "10.66.0.0/16"]
    running = Running(lab.node("n1"), tmp_path, flags)
    pods = pod_manifests(lab.topology)
    for pod in pods:
        pod["spec"]["containers"][0]["readinessProbe"] = PROBE
        del pod["status"]["conditions"]
    running.write("pods", *pods)
    (running.manifests / "nodeport.yaml").write_text((MANIFESTS / "kubia-svc-nodeport.yaml").read_text())
    with running:
        yield running


def answering(lab: Lab) -> Counter[str]:
    """The pods that answer 20 connections to the node port."""
    client, node = lab.client("outside"), lab.node("n1").address(4)
    if http_get(client, node, 30123, timeout=1).outcome is not Outcome.ANSWERED:
        return Counter()
    return many(client, node, 30123, 20)


def test_all_traffic_goes_to_the_ready_pod(lab: Lab, running: Running) -> None:
    node = lab.node("n1").address(4)
    assert http_get(lab.client("outside"), node, 30123).outcome is Outcome.REFUSED
    eventually(lambda: running.view("get", "pods").count("0/1") == 3, running.logged)

    ready = lab.pod("kubia-wpk4k")
    ready.run(["touch", "/var/ready"], check=True)
    eventually(lambda: answering(lab) == {"kubia-wpk4k": 20}, running.logged)
    eventually(lambda: running.view("get", "pods").count("1/1") == 1, running.logged)

    # A restart does not change the readiness of any pod.
    assert running.stop() == 0
    running.start()
    assert answering(lab) == {"kubia-wpk4k": 20}

    event = "Readiness probe failed: ls: cannot access '/var/ready': No such file or directory"
    eventually(lambda: event in running.view("describe", "pod", "kubia-m7xnj"), running.logged)
    assert event not in running.view("describe", "pod", "kubia-wpk4k")

    ready.run(["rm", "/var/ready"], check=True)
    eventually(lambda: answering(lab) == {}, running.logged)
    for pod in PODS:
        lab.pod(pod.name).run(["touch", "/var/ready"], check=True)
    eventually(lambda: set(answering(lab)) == {pod.name for pod in PODS}, running.logged)

"""kproxy run with probes: ready pods stay in service during errors in manifests and restarts of kproxy."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get

from tests.support import SERVICE_IP, Running, eventually, probed_pod, service

pytestmark = pytest.mark.lab

HTTP = {"httpGet": {"port": 8080}}
PODS = ("pod-1", "pod-2")


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path) as running:
        running.write("web", service(selector={"app": "web"}))
        yield running


def served_by(lab: Lab) -> str:
    """The pod that answers, or the failure."""
    reply = http_get(lab.client("outside"), SERVICE_IP[4], 80, timeout=1)
    return reply.pod if reply.outcome is Outcome.ANSWERED else reply.outcome.name


def serves(lab: Lab, running: Running, expected: str) -> None:
    eventually(lambda: served_by(lab) == expected, running.logged)


def always(lab: Lab, running: Running, expected: str, until: Callable[[], bool]) -> None:
    """Check that `expected` answers every request until a condition holds, and once more."""

    def holds() -> bool:
        assert served_by(lab) == expected, running.logged()
        return until()

    eventually(holds, running.logged)
    assert served_by(lab) == expected


def test_pods_stay_ready_after_a_kill_but_not_with_another_probe(lab: Lab, running: Running) -> None:
    running.write("pod-1", probed_pod(lab, "pod-1", HTTP))
    serves(lab, running, "pod-1")
    late = probed_pod(lab, "pod-1", {**HTTP, "initialDelaySeconds": 3600})
    running.stop(signal.SIGKILL)
    running.start()
    assert served_by(lab) == "pod-1"
    running.write("pod-1", late)
    serves(lab, running, "REFUSED")


def test_a_pod_stays_ready_while_its_manifest_is_invalid(lab: Lab, running: Running) -> None:
    good = probed_pod(lab, "pod-1", HTTP)
    running.write("pod-1", good)
    serves(lab, running, "pod-1")
    bad = probed_pod(lab, "pod-1", {**HTTP, "periodSeconds": -1})
    running.write("pod-1", bad)
    field = "spec.containers[0].readinessProbe.periodSeconds"
    always(lab, running, "pod-1", lambda: field in running.logged())
    before = running.logged().count("Pod default/pod-1 is")
    running.write("pod-1", good)
    always(lab, running, "pod-1", lambda: "solved: " in running.logged())
    assert running.logged().count("Pod default/pod-1 is") == before


def test_a_pod_that_stops_answering_is_removed_until_it_answers_again(lab: Lab, running: Running) -> None:
    for own in PODS:
        running.write(own, probed_pod(lab, own, {**HTTP, "periodSeconds": 1, "failureThreshold": 2}))
    eventually(lambda: len(re.findall(r"Pod \S+ is ready", running.logged())) == 2, running.logged)
    lab.stop_pod("pod-2")
    eventually(lambda: {served_by(lab) for _ in range(20)} == {"pod-1"}, running.logged)
    lab.start_pod("pod-2")
    eventually(lambda: served_by(lab) == "pod-2", running.logged)

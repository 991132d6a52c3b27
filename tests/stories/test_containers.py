"""Containers as pods beside a running kproxy: a double of docker, and a real podman."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import many

from kproxy.limits import ENGINE_BYTES, ENGINE_EVENT
from tests.engine import Engine
from tests.support import SERVICE_IP, Kproxy, Running, all_pods, eventually

pytestmark = pytest.mark.lab

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {
        "clusterIP": SERVICE_IP[4],
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}],
    },
}


class Story:
    """A node whose pods are containers of an engine. The pods of the lab answer for them."""

    def __init__(self, lab: Lab, folder: Path, engine: Engine) -> None:
        self.lab, self.engine = lab, engine
        self.running = Running(lab.node("n1"), folder, ["--pods-from", f"docker={engine.socket}"])
        self.running.write("web", SERVICE)

    def put(self, pod: str, **changes: Any) -> None:
        """Create or change the container that a pod of the lab answers for."""
        self.engine.put(pod, self.lab.pod(pod).address(4), app="web", **changes)

    def serves(self, *pods: str) -> None:
        """Wait until exactly these pods answer."""
        client = self.lab.client("outside")
        eventually(lambda: all_pods(client, SERVICE_IP[4], 80) == set(pods), self.running.logged)

    def logs(self, text: str, times: int = 1) -> None:
        """Wait until the log contains a text a number of times."""
        eventually(lambda: self.running.logged().count(text) >= times, self.running.logged)


@pytest.fixture
def story(lab: Lab, tmp_path: Path) -> Iterator[Story]:
    """Two containers, and a kproxy that follows them."""
    with Engine() as engine:
        story = Story(lab, tmp_path, engine)
        story.put("pod-1")
        story.put("pod-2")
        with story.running:
            yield story


def test_endpoints_follow_the_containers(story: Story) -> None:
    # 1. They are endpoints from the start, and shown as pods.
    story.serves("pod-1", "pod-2")
    assert "docker" in story.running.view("get", "pods", "-o", "wide")
    # 2. docker tells the engine to stop one: it gets no new connections while it still runs.
    story.engine.tell("kill", "pod-2", signal="15")
    story.serves("pod-1")
    story.put("pod-2", status="exited")
    story.engine.tell("die", "pod-2")
    # 3. A new one, one that becomes unhealthy, and one that starts again.
    story.put("pod-3")
    story.engine.tell("start", "pod-3")
    story.serves("pod-1", "pod-3")
    story.put("pod-1", health="unhealthy")
    story.engine.tell("health_status: unhealthy", "pod-1")
    story.serves("pod-3")
    story.put("pod-2")
    story.engine.tell("start", "pod-2")
    story.serves("pod-2", "pod-3")
    # 4. One is removed. Meanwhile podman answers with status 500.
    del story.engine.containers["id-pod-3"]
    story.engine.failing = 2
    story.engine.tell("destroy", "pod-3")
    story.serves("pod-2")
    assert "WARNING docker" not in story.running.logged()


CHECK = {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60}
PROBE = {"kproxy.io/readiness-probe": json.dumps(CHECK)}


def test_a_container_is_an_endpoint_while_its_probe_succeeds(story: Story) -> None:
    # 1. A command in the container decides. It fails at first.
    story.engine.outcomes["check"] = 3, b"no connection to the database"
    story.put("pod-3", **PROBE)
    story.engine.tell("start", "pod-3")
    story.logs("Pod default/pod-3 is not ready: Readiness probe failed: no connection to the database")
    story.serves("pod-1", "pod-2")
    story.engine.outcomes["check"] = 0, b""
    story.serves("pod-1", "pod-2", "pod-3")
    assert "exec [check]" in story.running.view("describe", "pod", "pod-3")
    # 2. It is not ready if its health check fails, or if it is paused, whatever the command says.
    story.put("pod-3", health="unhealthy", **PROBE)
    story.engine.tell("health_status: unhealthy", "pod-3")
    story.serves("pod-1", "pod-2")
    story.put("pod-3", **PROBE)
    story.engine.tell("health_status: healthy", "pod-3")
    story.serves("pod-1", "pod-2", "pod-3")
    # 3. A written Pod without an address describes a container. It brings labels and a probe.
    del story.engine.containers["id-pod-3"]
    story.engine.tell("destroy", "pod-3")
    story.serves("pod-1", "pod-2")
    story.engine.put("plain", story.lab.pod("pod-3").address(4))
    story.engine.tell("start", "plain")
    story.running.write("written", written("pod-3", "plain"))
    story.serves("pod-1", "pod-2", "pod-3")
    story.engine.outcomes["check"] = 1, b""
    story.serves("pod-1", "pod-2")
    assert "exit status 1" in story.running.view("describe", "pod", "pod-3")


def written(name: str, container: str) -> dict[str, Any]:
    """Return a Pod without an address that describes a container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "web"},
            "annotations": {"kproxy.io/container": container},
        },
        "spec": {"containers": [{"name": "main", "readinessProbe": CHECK}]},
    }


def test_an_engine_that_is_away_removes_nothing(story: Story) -> None:
    story.serves("pod-1", "pod-2")
    # 1. The engine is away. Nothing changes, and files are still read.
    story.engine.stop()
    story.logs(f"docker: {story.engine.socket}: ")
    other = SERVICE | {"metadata": {"name": "other"}, "spec": SERVICE["spec"] | {"clusterIP": "10.96.10.77"}}
    story.running.write("other", other)
    eventually(lambda: len(many(story.lab.client("outside"), "10.96.10.77", 80, 4, timeout=1)) > 0)
    story.serves("pod-1", "pod-2")
    # 2. It comes back with other containers.
    story.put("pod-2", status="exited")
    story.engine.start()
    story.serves("pod-1")
    story.logs("solved: docker: ")
    # 3. An answer or event that is too long or unreadable removes nothing.
    for line in (b"x" * (2 * ENGINE_EVENT), b"{]\n"):
        solved = story.running.logged().count("solved: docker: ")
        story.engine.send(line)
        story.logs("solved: docker: ", solved + 1)
    story.engine.body = b" " * (ENGINE_BYTES + 1)
    story.engine.stop()
    story.engine.start()
    story.logs("the answer is longer than")
    story.serves("pod-1")


def test_a_sync_needs_the_engine(lab: Lab, kproxy: Kproxy) -> None:
    with Engine() as engine:
        flags = "--pods-from", f"docker={engine.socket}"
        engine.put("pod-1", lab.pod("pod-1").address(4), app="web")
        kproxy.sync(SERVICE, flags=flags)
        before = kproxy.ruleset()
        # Without it, the service keeps its endpoint, and the exit status is 1.
        engine.stop()
        done = kproxy.run("sync", SERVICE, flags=flags)
        assert done.returncode == 1
        assert f"docker: {engine.socket}: No such file or directory" in done.stderr
        assert kproxy.ruleset() == before


NEEDED = ("podman", "crun", "busybox", "iptables", "curl")


@pytest.mark.skipif(
    any(shutil.which(each) is None for each in NEEDED) or not Path("/usr/lib/podman/netavark").exists(),
    reason="needs podman, netavark, crun, busybox, iptables and curl",
)
def test_containers_of_a_real_podman(lab: Lab) -> None:
    script = Path(__file__).with_name("podman.sh")
    isolated = (
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    )
    environment = os.environ | {"KPROXY": str(Path(sys.executable).with_name("kproxy"))}
    command = [
        "timeout",
        "300",
        "nsenter",
        "--net=/proc/self/ns/net",
        *isolated,
        "bash",
        str(script),
    ]
    done = lab.node("n1").run(command, env=environment, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr

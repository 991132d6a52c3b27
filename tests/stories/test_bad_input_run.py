"""kproxy run with one error in the input after another: each is reported, and other Services are served."""

from __future__ import annotations

import copy
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.manifests import pod_manifests
from netns_lab.probe import Outcome, http_get

from tests.support import SERVICE_IP, Manifest, Running, eventually, service

pytestmark = pytest.mark.lab

STEADY = SERVICE_IP[4]
"""An address that pod-1 serves during the whole story."""
OTHER = "10.96.10.20"
VIP = "192.168.77.100"
FLAGS = ["--service-node-port-range", "30000-30000", "--load-balancer-pool", VIP]


class Story:
    """A running kproxy, the unread part of its log, and input with errors."""

    def __init__(self, lab: Lab, running: Running) -> None:
        self.lab = lab
        self.running = running
        self.folder = running.manifests
        self._read = 0
        self.pods = {pod["metadata"]["name"]: pod for pod in pod_manifests(lab.topology)}
        self.running.write("web", self.service("web", STEADY, "steady"), self.pod("pod-1", "steady"))
        self.running.write("pods", self.pod("pod-2", "other"), self.pod("pod-3", "more"))
        self.running.write("other", self.other())
        self.serves(OTHER, "pod-2")

    def service(self, name: str, address: str, app: str, **spec: Any) -> Manifest:
        return service(name, families=(4,), cluster_ips={4: address}, **{"selector": {"app": app}, **spec})

    def other(self, **spec: Any) -> Manifest:
        return self.service("other", OTHER, "other", **spec)

    def pod(self, name: str, app: str, **container: Any) -> Manifest:
        pod = copy.deepcopy(self.pods[name])
        pod["metadata"]["labels"] = {"app": app}
        pod["spec"]["containers"][0].update(container)
        return pod

    def logged(self) -> str:
        """The log since the last expected message."""
        return self.running.logged()[self._read :]

    def logs(self, text: str) -> None:
        """Wait until a text is logged."""
        eventually(lambda: text in self.logged(), self.running.logged)
        self._read += self.logged().index(text) + len(text)

    def reports(self, about: str, text: str) -> None:
        """Check that a problem is logged and described, and that the other Service is served."""
        self.logs(text)
        assert http_get(self.lab.client("outside"), STEADY, 80).pod == "pod-1"
        kind, _, name = about.partition("/")
        shown = self.running.view("describe", kind, name)
        sentence = text.partition(f"{name}: ")[2] or text
        assert sentence in shown, shown

    def serves(self, address: str, pod: str, port: int = 80) -> None:
        """Wait until this pod answers, or no pod for an empty name."""
        client = self.lab.client("outside")

        def answers() -> bool:
            reply = http_get(client, address, port, timeout=0.5)
            return reply.pod == pod if pod else reply.outcome is Outcome.REFUSED

        eventually(answers, self.running.logged)


@pytest.fixture
def story(lab: Lab, tmp_path: Path) -> Iterator[Story]:
    prefix = lab.pod("pod-1").netns.removesuffix("pod-1")
    with Running(
        lab.node("n1"), tmp_path, [*FLAGS, "--probe-exec", f"ip netns exec {prefix}{{pod}}"]
    ) as running:
        yield Story(lab, running)


def test_invalid_services_and_services_without_endpoints(story: Story) -> None:
    write = story.running.write

    write("other", story.other(selector={"app": "othr"}))
    problem = "Service default/other: spec.selector: no pod in namespace default has the labels app=othr"
    story.reports("svc/other", problem)
    story.serves(OTHER, "")
    write("other", story.other())
    story.logs(f"solved: {story.folder}/other.json: {problem}")
    story.serves(OTHER, "pod-2")

    write("other", story.other(ports=[{"port": 80, "targetPort": "web"}]))
    problem = "Service default/other: spec.ports[0].targetPort: no container port web/tcp in Pod pod-2"
    story.reports("svc/other", problem)
    write("pods", story.pod("pod-2", "other", ports=[{"name": "web", "containerPort": 8080}]))
    story.logs(f"solved: {story.folder}/other.json: {problem}")
    story.serves(OTHER, "pod-2")

    # A refused Service keeps its previous rules.
    write("other", story.service("other", STEADY, "other"))
    story.reports(
        "svc/other", f"Service default/other: spec.clusterIP: {STEADY} belongs to Service default/web"
    )
    story.serves(OTHER, "pod-2")
    write("other", story.service("other", "172.16.0.1", "other"))
    story.reports("svc/other", "Service default/other: spec.clusterIP: 172.16.0.1 is not in --service-cidr")
    story.serves(OTHER, "pod-2")
    write("other", story.other(ports=[{"port": 70000}]))
    story.logs("Service default/other: spec.ports[0].port: 70000 is not a port (1-65535)")
    story.serves(OTHER, "pod-2")

    # The Service moves to another namespace with its address, but without its pods.
    moved = story.other()
    moved["metadata"]["namespace"] = "elsewhere"
    write("other", moved)
    story.logs(
        "Service elsewhere/other: spec.selector: no pod in namespace elsewhere has the labels app=other"
    )
    story.serves(OTHER, "")
    pod = story.pod("pod-2", "other")
    pod["metadata"]["namespace"] = "elsewhere"
    write("pods", pod)
    story.logs("solved: ")
    story.serves(OTHER, "pod-2")
    story.serves(STEADY, "pod-1")


def test_exhausted_ranges_and_hanging_probes(story: Story) -> None:
    write = story.running.write

    # One node port, and two Services that need one.
    write("other", story.other(type="NodePort"))
    story.serves(story.lab.node("n1").address(4), "pod-2", 30000)
    write("more", story.service("more", "10.96.10.30", "more", type="NodePort"))
    problem = "spec.ports[0].nodePort: --service-node-port-range 30000-30000 is full"
    story.reports("svc/more", f"Service default/more: {problem}")
    write("other", story.other())
    story.logs("solved: ")
    story.serves(story.lab.node("n1").address(4), "pod-3", 30000)

    # The same with load-balancer addresses. A Service is served without one, too.
    write("other", story.other(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    story.serves(VIP, "pod-2")
    more = story.service(
        "more", "10.96.10.30", "more", type="LoadBalancer", allocateLoadBalancerNodePorts=False
    )
    write("more", more)
    problem = (
        f"Service default/more: status.loadBalancer: no IPv4 address is free in --load-balancer-pool {VIP}"
    )
    story.reports("svc/more", problem)
    story.serves("10.96.10.30", "pod-3")
    write("other", story.other())
    story.logs("solved: ")
    story.serves(VIP, "pod-3")

    def probed(*command: str, period: object = 1) -> Manifest:
        probe = {"exec": {"command": list(command)}, "periodSeconds": period, "failureThreshold": 1}
        return story.pod("pod-2", "other", readinessProbe=probe)

    write("pods", probed("sleep", "5"), story.pod("pod-3", "more"))
    story.reports("pod/pod-2", "Readiness probe failed: sleep 5: timed out after 1s")
    assert "  pod-2  Readiness probe failed: sleep 5: timed out" in story.running.view(
        "describe", "svc", "other"
    )
    story.serves(OTHER, "")
    write("pods", probed("true"), story.pod("pod-3", "more"))
    story.logs("Pod default/pod-2 is ready")
    story.serves(OTHER, "pod-2")
    write("pods", probed("true", period="often"), story.pod("pod-3", "more"))
    story.logs("Pod default/pod-2: spec.containers[0].readinessProbe.periodSeconds: expected a number, got ")
    story.serves(OTHER, "pod-2")
    write("pods", probed("true", period=2), story.pod("pod-3", "more"))
    story.logs("solved: ")
    story.serves(OTHER, "pod-2")
    story.serves(STEADY, "pod-1")


def test_files_that_cannot_be_read(story: Story) -> None:
    folder = story.folder
    other = folder / "other.json"
    whole = other.read_text()

    # A misspelt kind protects its Service, and a misspelt field is a warning.
    other.write_text(whole.replace("Service", "Servcie"))
    story.logs('"Servcie" is not a kind that kproxy knows. Did you mean Service?')
    story.serves(OTHER, "pod-2")
    other.write_text(whole.replace("selector", "selectr"))
    story.logs("Service default/other: spec.selectr: unknown field. Did you mean selector?")
    other.write_text(whole)
    story.serves(OTHER, "pod-2")

    # Unreadable files of all kinds: nothing is removed, and valid files are programmed.
    (folder / "loop.yaml").symlink_to("loop.yaml")
    story.logs("loop.yaml: Too many levels of symbolic links")
    (folder / "nowhere.yaml").symlink_to("no-such-file")
    story.logs("nowhere.yaml: No such file or directory")
    (folder / "binary.yaml").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(range(256)))
    story.logs("binary.yaml: is not UTF-8 (byte ")
    (folder / "garbage.yaml").write_text("}{[]: !x &y *z\n" * 350_000)
    story.logs("garbage.yaml: line 1: not YAML: ")
    (folder / "deep.yaml").write_text("[" * 5_000_000)
    story.logs("deep.yaml: ")
    (folder / "folder.yaml").mkdir()
    os.mkfifo(folder / "pipe.yaml")
    other.unlink()
    (folder / "more.json").write_text(json.dumps(story.service("more", "10.96.10.30", "more")))
    story.serves("10.96.10.30", "pod-3")
    story.serves(OTHER, "pod-2")
    assert "garbage.yaml" in story.running.view("get", "svc")
    for name in ("loop", "nowhere", "binary", "garbage", "deep", "pipe"):
        (folder / f"{name}.yaml").unlink()
        story.logs("solved: ")
    eventually(
        lambda: http_get(story.lab.client("outside"), OTHER, 80, timeout=0.2).outcome is Outcome.TIMEOUT,
        story.running.logged,
    )

    # A file is written in two parts.
    with other.open("w") as file:
        file.write(whole[: len(whole) // 2])
        file.flush()
        (folder / "more.json").touch()
        story.logs("other.json: not JSON: ")
        file.write(whole[len(whole) // 2 :])
    story.logs("solved: ")
    story.serves(OTHER, "pod-2")

    # One object in two files: the first file is used until it is deleted.
    again = json.dumps(story.other(selector={"app": "more"}))
    (folder / "z.json").write_text(again)
    story.reports(
        "svc/other", f"Service default/other: metadata.name: is a duplicate; the object in {other} is used"
    )
    story.serves(OTHER, "pod-2")
    other.unlink()
    story.logs("solved: ")
    story.serves(OTHER, "pod-3")

    # Changes are noticed even with the same length and with old, future or equal timestamps.
    last = folder / "z.json"
    for stamp in (0, 2**32, last.stat().st_mtime):
        for app, pod in (("othr", ""), ("more", "pod-3")):
            with last.open("r+") as place:
                place.write(again.replace('"more"', f'"{app}"'))
            os.utime(last, (stamp, stamp))
            story.serves(OTHER, pod)
    story.serves(STEADY, "pod-1")

    # kproxy may open no more files. It stays, and continues as soon as it may.
    process = story.running.process
    files = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (5, files[1]))
    (folder / "late.json").write_text(json.dumps(story.service("late", "10.96.10.40", "more")))
    process.send_signal(signal.SIGHUP)
    story.logs("Too many open files")
    story.serves(STEADY, "pod-1")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, files)
    story.serves("10.96.10.40", "pod-3")

"""Unreadable files while kproxy runs: the views show what is programmed, and why."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from netns_lab.lab import Lab
from netns_lab.manifests import pod_manifests

from tests.support import SERVICE_IP, Manifest, Running, all_pods, eventually, service

pytestmark = pytest.mark.lab


class View(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


class Story:
    """Service `web` with pod-1 and pod-2. Each object has a separate file."""

    def __init__(self, lab: Lab, running: Running) -> None:
        self.lab = lab
        self.running = running
        pods = {pod["metadata"]["name"]: pod for pod in pod_manifests(lab.topology)}
        self.objects: dict[str, Manifest] = {"web": service(families=(4,), selector={"app": "web"})}
        for own in ("pod-1", "pod-2"):
            self.objects[own] = pods[own] | {"metadata": {"name": own, "labels": {"app": "web"}}}
        self.sockets = [f"{lab.pod(own).address(4)}:8080" for own in ("pod-1", "pod-2")]
        for own in self.objects:
            self.restore(own)
        self.serves("pod-1", "pod-2")

    def file(self, own: str) -> Path:
        return self.running.manifests / f"{own}.json"

    def restore(self, own: str) -> None:
        self.running.write(own, self.objects[own])

    def spoil(self, own: str) -> None:
        """Make a file invalid. Returns when kproxy has tried to read it."""
        errors = self.running.logged().count("not JSON")
        self.file(own).write_text("{")
        eventually(lambda: self.running.logged().count("not JSON") > errors, self.running.logged)

    def serves(self, *pods: str) -> None:
        client = self.lab.client("outside")
        eventually(lambda: all_pods(client, SERVICE_IP[4], 80) == set(pods), self.running.logged)

    def view(self, *command: str) -> View:
        flags = ["--state-dir", str(self.running.kproxy.state)]
        done = self.running.kproxy.node.run(
            [sys.executable, "-m", "kproxy", *command, *flags], capture_output=True
        )
        return View(done.returncode, str(done.stdout), str(done.stderr))

    def describe(self) -> View:
        """Describe the Service, without its events, which stay for an hour."""
        view = self.view("describe", "svc", "web")
        return view._replace(out=re.sub(r"^Events:.*\n(  .*\n)*", "", view.out, flags=re.MULTILINE))


@pytest.fixture
def story(lab: Lab, tmp_path: Path) -> Iterator[Story]:
    with Running(lab.node("n1"), tmp_path) as running:
        yield Story(lab, running)


def lines(view: View) -> list[str]:
    """Return the lines of a table or description, with single blanks between cells."""
    return [" ".join(line.split()) for line in view.out.splitlines()]


def test_an_unreadable_pod_is_shown_as_an_endpoint(story: Story) -> None:
    whole = story.describe()
    assert whole.status == 0
    story.spoil("pod-2")
    story.serves("pod-1", "pod-2")
    held = f"held: {story.file('pod-2')} cannot be read"

    description = story.describe()
    assert description.out == whole.out.replace("Problems:\n  <none>", f"Problems:\n  {held}")
    assert f"Endpoints: {','.join(story.sockets)}" in lines(description)
    assert f"{story.file('pod-2')}: not JSON" in description.err

    endpoints = story.view("get", "endpoints", "web")
    assert lines(endpoints)[1].split()[1] == ",".join(story.sockets)
    assert f"kproxy: {held} (Service default/web)\n" in endpoints.err
    pods = story.view("get", "pods", "-o", "name")
    assert pods.out == "pod/pod-1\n"
    missing = story.view("get", "pod", "pod-2")
    assert "pods 'pod-2' not found in namespace default. It is an endpoint of Service web." in missing.err
    assert {view.status for view in (description, endpoints, pods, missing)} == {1}

    story.restore("pod-2")
    eventually(lambda: story.describe() == whole, story.running.logged)


def test_objects_unreadable_since_the_start_are_shown_from_the_tables(story: Story) -> None:
    whole = story.describe()
    story.spoil("web")
    story.spoil("pod-2")
    story.running.stop()
    story.running.start()
    story.serves("pod-1", "pod-2")
    frontend, sockets = f"{SERVICE_IP[4]}:80/tcp", ",".join(story.sockets)

    unknown = f"held: {story.file('pod-2')}, {story.file('web')} cannot be read"
    assert f"kproxy: {unknown} (Service default/web)\n" in story.view("get", "svc").err
    missing = story.view("describe", "svc", "web")
    sentence = f"not found in namespace default. It is programmed ({frontend} -> {sockets}) and {unknown}."
    assert (missing.status, missing.out, sentence in missing.err) == (1, "", True)

    story.restore("web")
    held = f"held: {story.file('pod-2')} cannot be read"
    eventually(lambda: held in lines(story.view("describe", "svc", "web")), story.running.logged)
    known = lines(story.view("describe", "svc", "web"))
    assert f"{frontend} ClusterIP {story.sockets[0]}" in known
    assert known[known.index("Held Frontends:") + 1] == f"{frontend} {sockets}"
    story.serves("pod-1", "pod-2")

    story.restore("pod-2")
    eventually(lambda: story.describe() == whole, story.running.logged)


def test_an_unreadable_service_is_shown_as_programmed(story: Story) -> None:
    whole = story.view("get", "svc,ep,endpointslices")
    environment = story.view("env", "pod-1")
    assert {whole.status, environment.status} == {0}
    story.spoil("web")
    story.serves("pod-1", "pod-2")
    held = f"held: {story.file('web')} cannot be read"

    listed = story.view("get", "svc,ep,endpointslices")
    assert listed.out == whole.out
    assert f"kproxy: {held} (Service default/web)\n" in listed.err
    description = story.view("describe", "svc", "web")
    assert held in lines(description)
    assert f"{SERVICE_IP[4]}:80/tcp ClusterIP {','.join(story.sockets)}" in lines(description)
    assert story.view("describe", "pod", "pod-1").out.count(f"web  {story.sockets[0]}") == 1
    variables = story.view("env", "pod-1")
    assert variables.out == environment.out
    assert {view.status for view in (listed, description, variables)} == {1}

    story.restore("web")
    eventually(lambda: story.view("get", "svc,ep,endpointslices") == whole, story.running.logged)
    story.file("web").unlink()
    eventually(lambda: not story.view("get", "svc").out, story.running.logged)

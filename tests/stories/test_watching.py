"""`kproxy get --watch` with a running kproxy: rows appear when objects change, and Ctrl-C ends it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests import forkserver
from tests.support import Running, eventually, probed_pod, service

pytestmark = pytest.mark.lab


PROBE = {"httpGet": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 60}


class Watching:
    """`kproxy get ... --watch` on the node of a running kproxy."""

    def __init__(self, running: Running, folder: Path, *arguments: str) -> None:
        self.output = folder / f"watch-{arguments[0]}"
        command = ["get", *arguments, "--watch", "--state-dir", str(running.kproxy.state)]
        with self.output.open("w") as file:
            self.process = forkserver.popen(running.kproxy.node, command, stdout=file, stderr=file)

    def rows(self) -> list[str]:
        """Return the printed lines, with single blanks between cells."""
        return [" ".join(line.split()) for line in self.output.read_text().splitlines()]

    def shows(self, *rows: str) -> None:
        """Wait until exactly these lines are printed."""
        eventually(lambda: len(self.rows()) >= len(rows), self.output.read_text)
        assert self.rows() == list(rows)

    def end(self) -> int:
        """Press Ctrl-C. Returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return int(self.process.wait(30))


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path) as running:
        yield running


HEADINGS = "NAME READY STATUS RESTARTS AGE"


def row(own: str, ready: int) -> str:
    return f"{own} {ready}/1 <unknown> <unknown> <unknown>"


def test_a_pod_becomes_ready_and_its_row_appears(lab: Lab, running: Running, tmp_path: Path) -> None:
    lab.stop_pod("pod-1")
    running.write("web", service(selector={"app": "web"}))
    running.write("pod-1", probed_pod(lab, "pod-1", PROBE, (4,)))
    eventually(lambda: "pod-1 is not ready" in running.logged(), running.logged)
    pods = Watching(running, tmp_path, "pods")
    template = "-o=jsonpath={.metadata.name}: {.subsets[*].addresses[*].ip}{'\\n'}"
    endpoints = Watching(running, tmp_path, "endpoints", template)
    pods.shows(HEADINGS, row("pod-1", 0))
    endpoints.shows("web:")

    lab.start_pod("pod-1")
    pods.shows(HEADINGS, row("pod-1", 0), row("pod-1", 1))
    address = lab.pod("pod-1").address(4)
    endpoints.shows("web:", f"web: {address}")

    (running.manifests / "pod-1.json").unlink()
    pods.shows(HEADINGS, row("pod-1", 0), row("pod-1", 1), row("pod-1", 1))
    endpoints.shows("web:", f"web: {address}", "web:")

    assert pods.end() == 0
    assert running.stop() == 0
    endpoints.shows("web:", f"web: {address}", "web:", "kproxy: kproxy run has ended.")
    assert endpoints.process.wait(30) == 1

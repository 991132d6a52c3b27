"""Processes of this host as pods: Pods with hostNetwork and without an address, ready by their probes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab, Started
from netns_lab.probe import Outcome, http_get

from tests.support import SERVICE_IP, Manifest, Running, eventually, service

pytestmark = pytest.mark.lab

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())

    def log_message(self, *_):
        pass

HTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


def process(lab: Lab, port: int) -> Started:
    """Start a process on the node that answers with its port."""
    return lab.node("n1").popen([sys.executable, "-c", SERVER, str(port)])


def pod(port: int, probe: dict[str, Any]) -> Manifest:
    """Return the Pod of such a process, as docs/containers.md writes it."""
    container = {
        "name": "main",
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60, **probe},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"web-{port}", "labels": {"app": "web"}},
        "spec": {"hostNetwork": True, "containers": [container]},
    }


def answering(lab: Lab) -> set[str]:
    replies = [http_get(lab.client("outside"), SERVICE_IP[4], 80, timeout=1) for _ in range(8)]
    return {reply.body if reply.outcome is Outcome.ANSWERED else reply.outcome for reply in replies}


def test_processes_are_endpoints_while_their_probes_succeed(lab: Lab, tmp_path: Path) -> None:
    draining = tmp_path / "draining"
    with Running(lab.node("n1"), tmp_path) as running:
        # 1. Without a process there is no endpoint: connections are refused.
        running.write("web", service("web", {"port": 80, "targetPort": "http"}, selector={"app": "web"}))
        running.write("pod-1", pod(8081, {"httpGet": {"port": "http"}}))
        running.write("pod-2", pod(8082, {"exec": {"command": ["test", "!", "-e", str(draining)]}}))
        second = process(lab, 8082)
        eventually(lambda: answering(lab) == {"8082"}, running.logged)
        # 2. The probe over HTTP finds the other one as soon as it listens.
        first = process(lab, 8081)
        eventually(lambda: answering(lab) == {"8081", "8082"}, running.logged)
        assert lab.node("n1").address(4) in running.view("get", "pods", "-o", "wide")
        # 3. A command on this host takes one out before it stops.
        draining.touch()
        eventually(lambda: ":8082" not in running.view("get", "endpoints"), running.logged)
        assert answering(lab) == {"8081"}
        second.kill()
        assert answering(lab) == {"8081"}
        # 4. A process that dies is out after its next probe.
        first.kill()
        eventually(lambda: answering(lab) == {Outcome.REFUSED}, running.logged)

"""The status page of a running kproxy."""

from __future__ import annotations

from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import http_get

from tests.support import SERVICE_IP, Running, eventually, service, slices

pytestmark = pytest.mark.lab

URL = "http://127.0.0.1:10256/"


def get(node: Handle, *arguments: str) -> str:
    """Return the head and the body of the response to a request."""
    return str(node.run(["curl", "-si", URL, *arguments], capture_output=True).stdout)


def test_the_page_of_a_running_kproxy(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("n1")
    running = Running(node, tmp_path, ["--status-page"])
    running.write("web", service("web"), *slices(lab, ["pod-1"]))
    running.write("zero", service("zero", families=(4,), cluster_ips={4: "10.96.10.99"}))
    with running:
        # 1. Services with their endpoints.
        page = get(node)
        assert page.startswith("HTTP/1.1 200 OK\n")
        assert "default-src 'none'" in page
        for text in (
            "kproxy on n1",
            "default/web",
            f"{SERVICE_IP[4]}:80/tcp",
            f"{lab.pod('pod-1').address(4)}:8080",
        ):
            assert text in page
        # 2. The doctor has looked, in a process of its own. It says that default/zero has no endpoint.
        eventually(lambda: "KP006" in get(node), running.logged)
        # 3. A refused connection is counted.
        http_get(node, "10.96.10.99", 80)
        eventually(lambda: "default/zero<td>no endpoint is ready" in get(node), running.logged)
        # 4. A page of another site, whose name leads here, cannot read it.
        assert get(node, "-H", "Host: evil.example").startswith("HTTP/1.1 421 ")
        # 5. It is as current as the tables.
        running.write(
            "zero",
            service("zero", families=(4,), cluster_ips={4: "10.96.10.99"}),
            *slices(lab, ["pod-2"], name="zero"),
        )
        eventually(lambda: f"100.0% <code>{lab.pod('pod-2').address(4)}:8080" in get(node), running.logged)
    assert "Traceback" not in running.logged()


def test_without_the_flag_there_is_no_page(lab: Lab, tmp_path: Path) -> None:
    running = Running(lab.node("n1"), tmp_path)
    running.write("web", service("web"), *slices(lab, ["pod-1"]))
    with running:
        assert get(lab.node("n1")).startswith("HTTP/1.1 404 ")

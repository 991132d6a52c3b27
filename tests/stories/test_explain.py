"""`kproxy explain` of a running kproxy, and of a table in the kernel that another program edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import http_get

from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, Running, service, slices, sticky

pytestmark = pytest.mark.lab


def web(lab: Lab) -> list[Manifest]:
    """Return a sticky Service of two pods."""
    return [service("web", **sticky()), *slices(lab, ["pod-1", "pod-2"])]


def test_a_running_kproxy_explains_where_a_client_goes(lab: Lab, tmp_path: Path) -> None:
    running = Running(lab.node("n1"), tmp_path)
    running.write("web", *web(lab))
    with running:
        for family in FAMILIES:
            client = lab.pod("pod-3")
            question = "explain", client.address(family), f"[{SERVICE_IP[family]}]:80", "-o", "json"

            def answer(question: tuple[str, ...] = question) -> dict[str, Any]:
                return dict(json.loads(running.view(*question)))

            # 1. Before the first connection, each endpoint is as likely, and the kernel agrees.
            before = answer()
            assert {each["endpoint"] for each in before["endpoints"]} == {
                endpoint(lab.pod(pod).address(family)) for pod in ("pod-1", "pod-2")
            }
            assert (before["kernel"]["same"], before["kernel"]["affinity"]) == (True, None)
            # 2. After it, the affinity entry leads to the pod that answered.
            pod = http_get(client, SERVICE_IP[family], 80).pod
            after = answer()["kernel"]
            assert after["affinity"] == endpoint(lab.pod(pod).address(family))
            assert 0 < after["affinityExpiresSeconds"] <= 10800


def endpoint(address: str) -> str:
    """Return an address with the port of the pods."""
    return f"[{address}]:8080" if ":" in address else f"{address}:8080"


def test_a_difference_of_the_table_in_the_kernel_is_named(lab: Lab, tmp_path: Path) -> None:
    kproxy = Kproxy(lab.node("n1"), tmp_path / "state")
    kproxy.sync(*web(lab))
    question = lab.pod("pod-3").address(4), f"{SERVICE_IP[4]}:80", "--kernel"
    assert "The kernel's table does the same." in kproxy.run("explain", *web(lab), flags=question).stdout
    # 1. Another program leads the frontend to the chain that refuses connections.
    key = f"{SERVICE_IP[4]} . tcp . 80"
    kproxy.nft(f"delete element ip kproxy services {{ {key} }}")
    kproxy.nft(f"add element ip kproxy services {{ {key} : goto no-endpoints }}")
    done = kproxy.run("explain", *web(lab), flags=question)
    assert "The kernel's table does something else:\nrefused (TCP reset)" in done.stdout
    # 2. The table does not exist.
    kproxy.nft("delete table ip kproxy")
    done = kproxy.run("explain", *web(lab), flags=question)
    assert (done.returncode, done.stderr) == (0, "kproxy: The kernel has no table ip kproxy.\n")

"""`kproxy explain` of a running kproxy, and of a table in the kernel that another program edited."""

from __future__ import annotations

import json
import re
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

            # 1. Before the first connection, each endpoint is equally likely, and the kernel agrees.
            before = answer()
            assert {each["endpoint"] for each in before["endpoints"]} == {
                endpoint(lab.pod(pod).address(family)) for pod in ("pod-1", "pod-2")
            }
            assert (before["kernel"]["same"], before["kernel"]["affinity"]) == (True, None)
            # 2. After it, the affinity entry leads to the pod that answered.
            pod = http_get(client, SERVICE_IP[family], 80).pod
            after, chosen = answer(), endpoint(lab.pod(pod).address(family))
            assert [(each["endpoint"], each["probability"]) for each in after["endpoints"]] == [(chosen, 1.0)]
            assert (after["kernel"]["same"], after["kernel"]["affinity"]) == (True, chosen)
            assert 0 < after["kernel"]["affinityExpiresSeconds"] <= 10800


def endpoint(address: str) -> str:
    """Return an address with the port of the pods."""
    return f"[{address}]:8080" if ":" in address else f"{address}:8080"


def test_rules_have_the_handles_that_nft_lists(lab: Lab, tmp_path: Path) -> None:
    kproxy = Kproxy(lab.node("n1"), tmp_path / "state")
    kproxy.sync(*web(lab))
    question = lab.pod("pod-3").address(4), f"{SERVICE_IP[4]}:80", "--kernel", "--rules"
    done = kproxy.run("explain", *web(lab), flags=(*question, "-o", "json"))
    node = lab.node("n1")
    listed = node.run(["nft", "-a", "list", "table", "ip", "kproxy"], capture_output=True).stdout
    steps = [step for step in json.loads(done.stdout)["steps"] if step["rule"]]
    assert [each["chain"] for each in steps] == ["services", "sticky-4", "lb-4", "draw-4", "remember-10800"]
    for step in steps:
        (line,) = re.findall(rf".*# handle {step['handle']}\n", listed.partition("chain prerouting")[2])
        assert step["rule"].split()[-1] in line
    assert f"# handle {steps[0]['handle']}\n" in kproxy.run("explain", *web(lab), flags=question).stdout


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
    _, difference = done.stdout.split("The kernel's table differs:\n")
    assert re.search(r"result +translated to one of 2 endpoints +refused \(TCP reset\): no end", difference)
    assert re.search(r"endpoint \S+:8080 +50.0%, the source stays +not used", difference)
    assert "With the kernel's table:\nrefused (TCP reset): no endpoint is ready\n" in difference
    # 2. Another program adds a rule. What it does is unknown, so it differs also if the result is the same.
    kproxy.sync(*web(lab))
    kproxy.nft("add rule ip kproxy services counter")
    done = kproxy.run("explain", *web(lab), flags=(*question, "-o", "json"))
    assert json.loads(done.stdout)["kernel"]["differences"] == [
        {"what": "chain services", "desired": "5 rules", "kernel": "6 rules"}
    ]
    # 3. The table does not exist.
    kproxy.nft("delete table ip kproxy")
    done = kproxy.run("explain", *web(lab), flags=question)
    assert (done.returncode, done.stderr) == (0, "kproxy: The kernel has no table ip kproxy.\n")

"""Gateways under `kproxy run`: listeners, routes and backends change, and a route cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get

from tests.flows.scenarios.gateways import gateway, route
from tests.support import Running, eventually, service, slices

pytestmark = pytest.mark.lab

CONNECTIONS = 12
"""Of so many connections to two endpoints, all have the same one with a probability of 1/2048."""


def answers(lab: Lab, port: int) -> set[str]:
    """Return the pods that answer at a port of n1, and `refused`, for several connections."""
    to = lab.topology.addresses(lab.topology.node("n1"))[4]
    replies = [http_get(lab.client("outside"), to, port, timeout=10) for _ in range(CONNECTIONS)]
    return {"refused" if each.outcome is Outcome.REFUSED else each.pod for each in replies}


def test_listeners_change(lab: Lab, tmp_path: Path) -> None:
    with Running(lab.node("n1"), tmp_path) as running:

        def becomes(port: int, expected: set[str]) -> None:
            eventually(lambda: answers(lab, port) == expected, running.logged)

        # 1. A Gateway, a route and its Service: the listener leads to the pod.
        running.write("web", service(), *slices(lab, ["pod-1"]))
        running.write("edge", gateway("edge", "a 9001/TCP"))
        running.write("route", route("TCP", "db", "edge", "web:80"))
        becomes(9001, {"pod-1"})
        assert "edge   kproxy   192.168.77.11" in running.view("get", "gateway")

        # 2. An endpoint is added to the Service.
        running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
        becomes(9001, {"pod-1", "pod-2"})

        # 3. The listener moves to another port, which the route follows.
        running.write("edge", gateway("edge", "a 9002/TCP"))
        becomes(9002, {"pod-1", "pod-2"})
        becomes(9001, {"refused"})

        # 4. A second backend does not exist: its half is refused.
        running.write("route", route("TCP", "db", "edge", "web:80", "gone:80"))
        running.write("web", service(), *slices(lab, ["pod-1"]))
        becomes(9002, {"pod-1", "refused"})
        assert "Service default/gone not found" in running.view("describe", "tcproute", "db")

        # 5. The file of the route cannot be read: nothing changes. Another listener is added.
        running.write("route", {**route("TCP", "db", "edge", "web:80"), "spec": {"rules": []}})
        running.write("edge", gateway("edge", "a 9002/TCP", "b 9003/TCP"))
        becomes(9003, {"pod-1", "refused"})
        assert answers(lab, 9002) == {"pod-1", "refused"}

        # 6. The route is removed: the node itself answers again, which has no such port.
        (running.manifests / "route.json").unlink()
        eventually(lambda: "9002" not in running.kproxy.ruleset(), running.logged)

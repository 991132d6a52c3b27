"""Gateways under `kproxy run`: listeners, routes and backends change, and a route cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get

from tests.flows.scenarios.gateways import gateway, made, route
from tests.ingresses import HOST
from tests.stories.web_client import Client
from tests.support import Manifest, Running, eventually, service, slices

pytestmark = pytest.mark.lab

CONNECTIONS = 30
"""Of so many connections to two endpoints, all have the same one once in 2^29 times."""


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


VIP = "192.168.77.240"
"""An address of the pool. The client is in its network."""


def http_route(name: str, host: str, *backends: str) -> Manifest:
    """Return an HTTPRoute of the Gateway edge for a host, to port 80 of some Services."""
    spec = {
        "parentRefs": [{"name": "edge", "sectionName": "http"}],
        "hostnames": [host],
        "rules": [{"backendRefs": [{"name": each, "port": 80} for each in backends]}],
    }
    return made("HTTPRoute", name, 1, spec)


def test_http_and_tcp_routes_at_an_address_of_the_pool(lab: Lab, tmp_path: Path) -> None:
    client = Client(lab.client("outside"), VIP)
    flags = ["--gateway", "-v", "--load-balancer-pool", VIP]
    with Running(lab.node("n1"), tmp_path, flags=flags) as running:

        def becomes(expected: set[str], host: str = HOST) -> None:
            eventually(lambda: client.pods(host=host) == expected, running.logged)

        # 1. HAProxy serves one port of the address of a Gateway, and the tables serve the other.
        running.write("web", service(), *slices(lab, ["pod-1"]))
        running.write("edge", gateway("edge", "http 80/HTTP", "db 5432/TCP"))
        running.write("routes", http_route("web", HOST, "web"), route("TCP", "db", "edge/db", "web:80"))
        becomes({"pod-1"})
        assert http_get(lab.client("outside"), VIP, 5432, timeout=10).pod == "pod-1"
        assert client.get("unknown.example.com")[0] == 404
        first = re.findall(r"HAProxy runs: process (\d+)", running.logged())

        # 2. Another endpoint reaches both without a reload.
        running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
        becomes({"pod-1", "pod-2"})
        eventually(lambda: "goto lb-4" in running.kproxy.ruleset(), running.logged)

        # 3. A route for another host, half of whose backends do not exist.
        running.write("more", http_route("more", "more.example.com", "web", "gone"))
        becomes({"pod-1", "pod-2", "status 500"}, "more.example.com")
        assert re.findall(r"HAProxy runs: process (\d+)", running.logged()) == first

        # 4. The status, as kubectl shows it.
        assert f"edge   kproxy   {VIP}" in running.view("get", "gateway")
        assert "BackendNotFound" in running.view("get", "httproute", "more", "-o", "yaml")

        # 5. The Gateway is removed: its address is, too.
        (running.manifests / "edge.json").unlink()
        eventually(lambda: client.get()[0] == 0, running.logged)

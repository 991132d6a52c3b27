"""`kproxy run --gateway-controller`: Gateways of a cluster are served, and their status is written once."""

from __future__ import annotations

from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, udp_ask

from tests.apiserver.faults import Answer
from tests.flows.scenarios.gateways import gateway, made, route
from tests.stories.doubled import Double, DoubleStory
from tests.support import Manifest, eventually, service, slices

pytestmark = pytest.mark.lab

CLASS = made("GatewayClass", "kproxy", 1, {"controllerName": "kproxy.io/gateway-controller"})
FLAGS = ["--gateway-controller"]
PORTS = [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
OTHER = {
    "controllerName": "example.com/other",
    "parentRef": {"name": "edge", "kind": "Gateway", "group": "gateway.networking.k8s.io"},
    "conditions": [],
}
"""An entry of another controller in the status of a route."""


def web(lab: Lab, *pods: str) -> list[Manifest]:
    dns = slices(lab, pods, {"dns": 5353}, protocol="UDP")
    for each in dns:
        each["metadata"]["name"] += "-dns"
    return [service("web", *PORTS), *slices(lab, pods, {"http": 8080}), *dns]


def udp_route() -> Manifest:
    found = route("UDP", "dns", "edge/dns", "web:53")
    return found | {"apiVersion": "gateway.networking.k8s.io/v1alpha2"}


def conditions(fields: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in fields["conditions"]}


def writes(story: DoubleStory) -> int:
    """The number of written statuses."""
    resources = ("gatewayclasses", "gateways", "tcproutes", "udproutes")
    return sum(len(story.api.requests(verb="update", resource=each)) for each in resources)


def test_gateways_of_a_cluster_are_served_and_have_a_status(lab: Lab, double: Double) -> None:
    edge = gateway("edge", "db 9001/TCP", "dns 9053/UDP")
    db = route("TCP", "db", "edge/db", "web:80") | {"status": {"parents": [OTHER]}}
    objects = [CLASS, edge, db, udp_route(), *web(lab, "pod-1")]
    with double("objects of the Gateway API", *objects, flags=FLAGS) as story:
        client, address = lab.client("outside"), lab.node("n1").address(4)

        def status(kind: str, name: str) -> dict[str, Any]:
            found: dict[str, Any] = story.api.get(kind, name).get("status") or {}
            return found

        def written(kind: str, name: str) -> bool:
            found = status(kind, name)
            return bool(found.get("conditions") or found.get("parents", [{}])[-1].get("conditions"))

        # 1. Both listeners lead to the pod. UDPRoutes have an older version on this server.
        story.logs("this node writes the status of Gateways")
        assert http_get(client, address, 9001, timeout=10).pod == "pod-1"
        assert udp_ask(client, address, 9053, timeout=10).pod == "pod-1"

        # 2. The statuses are written, each once. The entry of another controller stays.
        for kind, name in (
            ("GatewayClass", "kproxy"),
            ("Gateway", "edge"),
            ("TCPRoute", "db"),
            ("UDPRoute", "dns"),
        ):
            eventually(lambda k=kind, n=name: written(k, n), story.running.logged)  # type: ignore[misc]
        found = status("Gateway", "edge")
        assert conditions(found) == {"Accepted": ("True", "Accepted"), "Programmed": ("True", "Programmed")}
        assert [each["attachedRoutes"] for each in found["listeners"]] == [1, 1]
        assert {"type": "IPAddress", "value": address} in found["addresses"]
        other, own = status("TCPRoute", "db")["parents"]
        assert other == OTHER
        assert conditions(own)["ResolvedRefs"] == ("True", "ResolvedRefs")
        assert writes(story) == 4

        # 3. An endpoint changes: the connections follow it, and nothing is written.
        story.apply(*web(lab, "pod-2"))
        eventually(lambda: http_get(client, address, 9001, timeout=10).pod == "pod-2", story.running.logged)

        # 4. A backend is gone. The server refuses the first write, because the object changed.
        fault = story.api.faults.add(Answer(409), verb="update", resource="tcproutes", times=1)
        before, time = writes(story), own["conditions"][0]["lastTransitionTime"]
        story.apply(route("TCP", "db", "edge/db", "gone:80") | {"status": status("TCPRoute", "db")})
        eventually(lambda: "BackendNotFound" in str(status("TCPRoute", "db")), story.running.logged)
        accepted, references = status("TCPRoute", "db")["parents"][1]["conditions"]
        assert (accepted["lastTransitionTime"], references["status"]) == (time, "False")
        assert writes(story) == before + 2
        story.api.faults.remove(fault)
        refused = http_get(client, address, 9001, timeout=10)
        assert refused.outcome is Outcome.REFUSED

        # 5. The route is deleted: the listener has no route any more, and the tables no frontend.
        story.delete(db)
        eventually(
            lambda: status("Gateway", "edge")["listeners"][0]["attachedRoutes"] == 0, story.running.logged
        )
        eventually(lambda: ". 9001 " not in story.running.kproxy.ruleset(), story.running.logged)


def test_gateways_stay_while_they_cannot_be_listed(lab: Lab, double: Double) -> None:
    objects = [CLASS, gateway("edge", "db 9001/TCP"), route("TCP", "db", "edge/db", "web:80")]
    with double("faults of lists", *objects, *web(lab, "pod-1"), flags=FLAGS) as story:
        client, address = lab.client("outside"), lab.node("n1").address(4)
        assert http_get(client, address, 9001, timeout=10).pod == "pod-1"
        story.running.stop()
        fault = story.api.faults.add(Answer(403), resource="gateways", times=None)
        story.running.start()
        assert http_get(client, address, 9001, timeout=10).pod == "pod-1"
        assert "cannot follow Gateways: 403" in story.running.view("get", "svc")
        story.api.faults.remove(fault)
        story.logs("this node writes the status of Gateways", times=2)
        eventually(lambda: "edge" in story.running.view("get", "gateway"), story.running.logged)

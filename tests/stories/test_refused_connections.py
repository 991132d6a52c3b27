"""Refused connections: each one is counted. The log and `describe` say which Service refused it, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import http_get, many, udp_ask

from tests.stories.test_telling import samples
from tests.support import SERVICE_IP, Manifest, Running, eventually, service, slices

pytestmark = pytest.mark.lab

BALANCER = "192.0.2.80"
UDP = {"name": "dns", "port": 53, "protocol": "UDP"}


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path) as running:
        yield running


def web(**spec: Any) -> Manifest:
    return service("web", {"name": "http", "port": 80, "targetPort": 8080}, UDP, **spec)


def refused(lab: Lab) -> dict[tuple[str, str], int]:
    """Return how many connections Service `web` refused, by port and reason."""
    pattern = (
        r'kproxy_refused_connections_total{namespace="default",port="(\w*)",reason="(.*)",service="web"}'
    )
    found = ((re.fullmatch(pattern, name), value) for name, value in samples(lab.node("n1")).items())
    return {(match[1], match[2]): int(value) for match, value in found if match and value}


def test_connections_to_a_service_without_endpoints(lab: Lab, running: Running) -> None:
    client = lab.pod("pod-3")
    running.write("web", web())
    eventually(lambda: SERVICE_IP[6] in running.logged(), running.logged)

    # 1. A thousand connections over IPv4, some over IPv6, and datagrams.
    assert many(client, SERVICE_IP[4], 80, 1000) == {"refused": 1000}
    many(client, SERVICE_IP[6], 80, 30)
    for _ in range(4):
        udp_ask(client, SERVICE_IP[4], 53)
    assert refused(lab) == {("http", "no-endpoints"): 1030, ("dns", "no-endpoints"): 4}

    # 2. `describe` and the log name the Service and the reason.
    told = r"refused 1034 connections in \d+ s: no endpoint is ready"
    assert re.search(rf"Warning  Refused .*{told}", running.view("describe", "svc", "web"))
    eventually(lambda: re.search(f"WARNING default/web {told}", running.logged()) is not None, running.logged)

    # 3. The first endpoints come. What was refused until then is counted, although the elements are replaced.
    many(client, SERVICE_IP[4], 80, 20)
    running.write("web", web(), *slices(lab, ["pod-1"], {"http": 8080, "dns": 53}))
    eventually(lambda: many(client, SERVICE_IP[4], 80, 5) == {"pod-1": 5}, running.logged)
    before = refused(lab)
    assert before[("http", "no-endpoints")] >= 1050
    many(client, SERVICE_IP[4], 80, 7)
    assert refused(lab) == before
    running.write("web", web())
    eventually(lambda: many(client, SERVICE_IP[4], 80, 1) == {"refused": 1}, running.logged)
    assert refused(lab)[("http", "no-endpoints")] == before[("http", "no-endpoints")] + 1


def test_reasons_other_than_missing_endpoints(lab: Lab, running: Running) -> None:
    outside, node = lab.client("outside"), lab.node("n1")
    elsewhere = slices(lab, ["pod-1"], {"http": 8080})
    for found in elsewhere:
        found["endpoints"][0]["nodeName"] = "n2"
    ranges = {"loadBalancerSourceRanges": ["198.51.100.0/24"]}
    status = {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}
    balancer = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "families": (4,), **ranges}
    running.write("web", web(**balancer) | {"status": status}, *elsewhere)
    eventually(lambda: BALANCER in running.logged(), running.logged)

    # 1. A client that the ranges do not contain, and two ports that the Service does not have.
    route = ["ip", "route", "add", BALANCER, "via", node.address(4)]
    outside.run(route, check=True)
    for _ in range(3):
        http_get(outside, BALANCER, 80, timeout=0.3)
    assert many(lab.pod("pod-3"), SERVICE_IP[4], 81, 5) == {"refused": 5}
    assert many(lab.pod("pod-3"), SERVICE_IP[4], 82, 1) == {"refused": 1}
    assert refused(lab) == {("http", "source-ranges"): 3, ("", "cluster-ip-port"): 6}

    # 2. All clients may connect, but the only endpoint is on another node.
    del balancer["loadBalancerSourceRanges"]
    running.write("web", web(**balancer) | {"status": status}, *elsewhere)

    def dropped_by_policy() -> bool:
        http_get(outside, BALANCER, 80, timeout=0.3)
        return ("http", "no-local-endpoints") in refused(lab)

    eventually(dropped_by_policy, running.logged)
    text = running.view("describe", "svc", "web")
    for sentence in (
        "loadBalancerSourceRanges do not contain the clients",
        "it has no port 81/tcp, 82/tcp",
        "the traffic policy is Local, and no endpoint is on this node",
    ):
        assert sentence in text

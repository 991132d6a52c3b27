"""A host-network Pod without an address in its manifest is an endpoint with the address of its node."""

from __future__ import annotations

import pytest
from netns_lab.lab import Lab
from netns_lab.manifests import pod_manifests
from netns_lab.probe import many
from netns_lab.topology import Family, Pod, Port

from tests.support import FAMILIES, SERVICE_IP, Kproxy, service

pytestmark = pytest.mark.lab

AGENT = Pod("agent", "n1", labels={"app": "web"}, ports=(Port("http", 9090),), host_network=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("node", ["n1", ""], ids=["on this node", "without nodeName"])
def test_a_host_network_pod_serves_all_clients(lab: Lab, kproxy: Kproxy, family: Family, node: str) -> None:
    lab.add_pod(AGENT)
    (agent,) = (pod for pod in pod_manifests(lab.topology) if pod["metadata"]["name"] == "agent")
    agent["spec"]["nodeName"] = node
    del agent["status"]["podIP"], agent["status"]["podIPs"]
    kproxy.sync(service("web", {"port": 80, "targetPort": 9090}, selector={"app": "web"}), agent)
    for asking in (lab.client("outside"), lab.pod("pod-1"), lab.node("n1")):
        assert many(asking, SERVICE_IP[family], 80, 5) == {"agent": 5}

"""Why a Service does not answer: the book chapter's list, and what shows each cause.

The fifth item, a name that does not resolve, is missing: kproxy does not answer DNS, and clients use the
addresses of Services.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from netns_lab.probe import echo, many
from netns_lab.topology import KUBIA, OUTSIDE, Client, Port

from tests.stories.chapter import KUBIA_IP, chapter, cluster, differences, endpoints, kubia, lines_of

pytestmark = pytest.mark.lab

CLIENT = kubia("dnsutils", "10.0.0.9", app="dnsutils", ports=())
PODS = (kubia("kubia-qsrhr", "10.0.0.7"), kubia("kubia-wpk4k", "10.0.0.8"))
NODE = "192.168.77.11"


def test_1_a_cluster_ip_is_not_reachable_from_outside(tmp_path: Path) -> None:
    """Only the cluster's network has a route to a ClusterIP. External clients use the node port."""
    client = Client("client", v4="192.168.77.201", v6="", via="lan")
    topology = cluster(CLIENT, *PODS, nodes=1, clients=(OUTSIDE, client))
    with chapter(topology, tmp_path, "kubia-svc.yaml", "kubia-svc-nodeport.yaml") as of:
        outside = of.lab.client("client")
        assert {of.curl(outside, address, 80, 0.5) for address in (KUBIA_IP, "10.66.5.6")} == {"timeout"}
        assert of.curl(outside, NODE, 30123).startswith("You've hit kubia-")
        assert of.curl(of.lab.pod("dnsutils"), KUBIA_IP, 80).startswith("You've hit kubia-")


def test_2_a_ping_has_no_answer(tmp_path: Path) -> None:
    """Six packets without an answer, from a Service that works and from one without endpoints."""
    with chapter(cluster(CLIENT, *PODS, nodes=1), tmp_path, "kubernetes.yaml", "kubia-svc.yaml") as of:
        client = of.lab.pod("dnsutils")
        for address in (KUBIA_IP, "10.66.0.1"):
            assert [echo(client, address, timeout=0.1) for _ in range(6)] == [False] * 6
        assert of.curl(client, KUBIA_IP, 80).startswith("You've hit kubia-")
        assert of.curl(client, "10.66.0.1", 443) == "refused"


def test_3_a_pod_that_is_not_ready_is_not_an_endpoint(tmp_path: Path) -> None:
    with chapter(cluster(CLIENT, *PODS, nodes=1), tmp_path, "kubia-svc-nodeport.yaml") as of:
        outside = of.lab.client("outside")
        of.unready = ["kubia-qsrhr"]
        of.sync()
        assert endpoints(of.get("endpoints")) == {"10.0.0.8:8080"}
        shown = of.describe("svc", "kubia-nodeport")
        assert differences("Endpoints: 10.0.0.8:8080\nNot Ready: 10.0.0.7:8080", shown) == []
        assert many(outside, NODE, 30123, 30) == {"kubia-wpk4k": 30}
        of.unready = ["kubia-qsrhr", "kubia-wpk4k"]
        of.sync()
        assert endpoints(of.get("endpoints")) == {"<none>"}
        shown = of.describe("endpoints", "kubia-nodeport")
        assert differences("Addresses: <none>\nNotReadyAddresses: 10.0.0.7,10.0.0.8", shown) == []
        assert many(outside, NODE, 30123, 5) == {"refused": 5}
        assert of.get("pods").count(" 0/1 ") == 2


def test_4_a_pod_that_the_selector_does_not_match_is_not_an_endpoint(tmp_path: Path) -> None:
    lost = [replace(pod, labels={"app": "kubla"}) for pod in PODS]
    with chapter(cluster(CLIENT, PODS[0], lost[1], nodes=1), tmp_path, "kubia-svc-nodeport.yaml") as of:
        assert endpoints(of.get("endpoints", "kubia-nodeport")) == {"10.0.0.7:8080"}
        assert many(of.lab.client("outside"), NODE, 30123, 30) == {"kubia-qsrhr": 30}
    problem = "spec.selector: no pod in namespace default has the labels app=kubia"
    warning = f"kubia-nodeport: {problem}\n"
    with chapter(cluster(CLIENT, *lost, nodes=1), tmp_path, "kubia-svc-nodeport.yaml", warning=warning) as of:
        assert endpoints(of.get("endpoints", "kubia-nodeport")) == {"<none>"}
        shown = lines_of(of.describe("svc", "kubia-nodeport"))
        assert shown[-1].endswith(f"kubia-svc-nodeport.yaml: {problem}")
        assert of.curl(of.lab.client("outside"), NODE, 30123) == "refused"


def test_6_the_target_port_is_not_the_services_port(tmp_path: Path) -> None:
    with chapter(cluster(CLIENT, *PODS, nodes=1), tmp_path, "kubia-svc-nodeport.yaml") as of:
        client = of.lab.pod("dnsutils")
        assert of.curl(client, "10.66.5.6", 8080) == "refused"
        shown = of.describe("svc", "kubia-nodeport")
        assert differences("Port: <unset> 80/TCP\nTargetPort: 8080/TCP", shown) == []
        assert of.curl(client, "10.66.5.6", 80).startswith("You've hit kubia-")
        assert of.curl(of.lab.client("outside"), NODE, 80) == "refused"
        assert of.curl(of.lab.client("outside"), NODE, 30123).startswith("You've hit kubia-")


def test_7_the_pod_listens_on_another_port_than_the_target_port(tmp_path: Path) -> None:
    """The endpoints look correct. A connection to the pod's own address shows the cause."""
    elsewhere = kubia("kubia-m7xnj", "10.0.0.4", ports=(Port("http", 8081, text="on default mux"),))
    with chapter(cluster(CLIENT, elsewhere, nodes=1), tmp_path, "kubia-svc-nodeport.yaml") as of:
        client = of.lab.pod("dnsutils")
        assert of.curl(client, "10.66.5.6", 80) == "refused"
        assert endpoints(of.get("endpoints")) == {"10.0.0.4:8080"}
        assert of.curl(client, "10.0.0.4", 8080) == "refused"
        assert of.curl(client, "10.0.0.4", 8081) == "You've hit kubia-m7xnj on default mux"


def test_7_the_pod_has_no_port_with_the_name(tmp_path: Path) -> None:
    """If the target port is a name, the pod is not an endpoint, and `describe` names the missing port."""
    nameless = kubia("kubia-m7xnj", "10.0.0.4", ports=(replace(KUBIA[0], name="http"), KUBIA[1]))
    problem = "spec.ports[0].targetPort: no container port http-default/tcp in Pod kubia-m7xnj"
    warning = f"kubia: {problem}\n"
    with chapter(cluster(CLIENT, nameless, nodes=1), tmp_path, "kubia-svc.yaml", warning=warning) as of:
        assert endpoints(of.get("endpoints")) == {"10.0.0.4:8090"}
        assert lines_of(of.describe("svc", "kubia"))[-1].endswith(f"kubia-svc.yaml: {problem}")
        assert of.curl(of.lab.pod("dnsutils"), KUBIA_IP, 80) == "refused"
        assert of.curl(of.lab.pod("dnsutils"), KUBIA_IP, 90) == "You've hit kubia-m7xnj on mux1"


def test_8_a_server_on_localhost_answers_only_in_its_pod(tmp_path: Path) -> None:
    """Everything looks correct, but the pod answers only itself, and not on its own address."""
    alone = kubia("kubia-m7xnj", "10.0.0.4", localhost_only=True)
    with chapter(cluster(CLIENT, alone, nodes=1), tmp_path, "kubia-svc-nodeport.yaml") as of:
        client, pod = of.lab.pod("dnsutils"), of.lab.pod("kubia-m7xnj")
        assert of.curl(client, "10.66.5.6", 80) == "refused"
        assert endpoints(of.get("endpoints")) == {"10.0.0.4:8080"}
        assert echo(client, "10.0.0.4")
        assert of.curl(client, "10.0.0.4", 8080) == of.curl(pod, "10.0.0.4", 8080) == "refused"
        assert of.curl(pod, "127.0.0.1", 8080) == "You've hit kubia-m7xnj on default mux"

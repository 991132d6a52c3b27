"""The Services of the book chapter, from inside the cluster: kubia, its variables, external hosts, headless.

The transcripts are the chapter's, from a cluster of 2020. kproxy's `describe` shows each of their lines.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from netns_lab.probe import echo, many
from netns_lab.topology import OUTSIDE, Client, Port

from tests.stories.chapter import (
    KUBIA_IP,
    MANIFESTS,
    PODS,
    chapter,
    cluster,
    differences,
    endpoints,
    kubia,
    without_age,
)

pytestmark = pytest.mark.lab

GET_KUBIA = """
NAME         TYPE        CLUSTER-IP     EXTERNAL-IP   PORT(S)         AGE
kubia        ClusterIP   10.66.13.240   <none>        80/TCP,90/TCP   8m48s
"""

DESCRIBE_KUBIA = """
Name:              kubia
Namespace:         default
Labels:            <none>
Annotations:       <none>
Selector:          app=kubia
Type:              ClusterIP
IP:                10.66.13.240

Port:              http-default  80/TCP
TargetPort:        http-default/TCP
Endpoints:         10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080

Port:              http-mux1  90/TCP
TargetPort:        http-mux1/TCP
Endpoints:         10.0.1.23:8090,10.0.2.13:8090,10.0.2.14:8090

Session Affinity:  ClientIP
Events:            <none>
"""

GET_ENDPOINTS = """
NAME    ENDPOINTS                                                  AGE
kubia   10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080 + 3 more...   2d
"""

DESCRIBE_ENDPOINTS = """
Name:         kubia
Namespace:    default
Labels:       <none>
Annotations:  <none>
Subsets:
  Addresses:          10.0.1.23,10.0.2.13,10.0.2.14
  NotReadyAddresses:  <none>
  Ports:
    Name          Port  Protocol
    ----          ----  --------
    http-default  8080  TCP
    http-mux1     8090  TCP

Events:  <none>
"""


def test_kubia_has_two_ports_and_sticky_clients(tmp_path: Path) -> None:
    with chapter(cluster(*PODS), tmp_path, "kubia-svc.yaml") as of:
        names = [pod.name for pod in PODS]
        # 1. The Service has its ClusterIP.
        assert without_age(of.get("svc")) == without_age(GET_KUBIA)
        # 2. A pod reaches both ports, which lead to the pods' ports with these names.
        client = of.lab.pod("kubia-zhg6k")
        assert of.curl(client, KUBIA_IP, 80) in [f"You've hit {name} on default mux" for name in names]
        assert of.curl(client, KUBIA_IP, 90) in [f"You've hit {name} on mux1" for name in names]
        # 3. Each client stays with one pod, on any node.
        for name in names:
            assert len(many(of.lab.pod(name), KUBIA_IP, 80, 20, concurrency=1)) == 1
        # 4. A ClusterIP is virtual: 8 packets transmitted, 0 received. A pod's address answers.
        assert echo(client, "10.0.1.23")
        assert [echo(client, KUBIA_IP, timeout=0.1) for _ in range(8)] == [False] * 8
        # 5. Its endpoints.
        assert differences(DESCRIBE_KUBIA, of.describe("svc", "kubia")) == []
        assert without_age(of.get("endpoints", "kubia")) == without_age(GET_ENDPOINTS)
        assert differences(DESCRIBE_ENDPOINTS, of.describe("endpoints", "kubia")) == []


def variables(service: str) -> set[str]:
    return set((MANIFESTS / f"{service}.env").read_text().split())


def test_a_pod_has_the_variables_of_the_services_that_existed_at_its_start(tmp_path: Path) -> None:
    """The variables are exactly those in the chapter."""
    with chapter(cluster(), tmp_path, "kubernetes.yaml") as of:
        before = of.start(PODS[0])
        of.files.append("kubia-svc.yaml")
        after = of.start(PODS[2])
        of.sync()

        def env(name: str) -> set[str]:
            shown = of.lab.pod(name).run(["env"], env={}, capture_output=True, check=True)
            return set(shown.stdout.splitlines())

        assert env(before.name) == variables("kubernetes")
        assert env(after.name) == variables("kubernetes") | variables("kubia")
        # With the variables alone, the pod finds the Service.
        line = ["sh", "-c", "echo $KUBIA_SERVICE_HOST $KUBIA_SERVICE_PORT_HTTP_MUX1"]
        host, port = after.run(line, capture_output=True, check=True).stdout.split()
        assert of.curl(after, host, int(port)).endswith(" on mux1")


def test_an_external_service_leads_out_of_the_cluster(tmp_path: Path) -> None:
    """Two hosts on the internet answer with a redirect to https, as in the chapter."""
    web = (Port("http", 80, to_https=True),)
    hosts = [
        Client("github-1", v4="13.250.94.254", v6="", via="n3", ports=web),
        Client("github-2", v4="13.229.188.59", v6="", via="n3", ports=web),
    ]
    topology = cluster(*PODS, clients=(OUTSIDE, *hosts))
    with chapter(topology, tmp_path, "external-service.yaml") as of:
        client, address = of.lab.pod("kubia-zhg6k"), "10.66.10.171"
        # 1. Without a selector and Endpoints, connections are refused.
        assert of.curl(client, address, 80) == "refused"
        # 2. With Endpoints of its name, it leads to both hosts. The client still uses the Service's address.
        of.files.append("external-service-endpoints.yaml")
        of.sync()
        reply = of.ask(client, address, 80)
        assert (reply.status, reply.location) == (301, "https://10.66.10.171/")
        assert set(many(client, address, 80, 40)) == {"github-1", "github-2"}
        shown = of.describe("svc", "external-service")
        assert differences("Endpoints: 13.250.94.254:80,13.229.188.59:80", shown) == []
        # 3. An ExternalName exists only in DNS: it has no address, and nothing is programmed.
        of.files.append("external-service-externalname.yaml")
        assert without_age(of.get("svc")) == [
            ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"],
            ["external-service", "ClusterIP", "10.66.10.171", "<none>", "80/TCP"],
            ["external-service-externalname", "ExternalName", "<none>", "httpbin.org", "80/TCP"],
        ]
        assert of.sync().endswith(": nothing to change\n")


GET_ALL = """
NAME                            TYPE           CLUSTER-IP     EXTERNAL-IP     PORT(S)         AGE
external-service                ClusterIP      10.66.10.171   <none>          80/TCP          95d
external-service-externalname   ExternalName   <none>         httpbin.org     80/TCP          95d
kubernetes                      ClusterIP      10.66.0.1      <none>          443/TCP         128d
kubia                           ClusterIP      10.66.13.240   <none>          80/TCP,90/TCP   97d
kubia-headless                  ClusterIP      None           <none>          80/TCP          11s
kubia-loadbalancer              LoadBalancer   10.66.4.173    35.221.253.22   80:32179/TCP    12d
kubia-nodeport                  NodePort       10.66.5.6      <none>          80:30123/TCP    94d
"""

DESCRIBE_HEADLESS = """
Name:              kubia-headless
Namespace:         default
Labels:            <none>
Annotations:       <none>
Selector:          app=kubia
Type:              ClusterIP
IP:                None
Port:              <unset>  80/TCP
TargetPort:        8080/TCP
Endpoints:         10.0.0.8:8080
Session Affinity:  None
Events:            <none>
"""


def test_a_headless_service_has_endpoints_and_no_address(tmp_path: Path) -> None:
    pods = [
        kubia("kubia-m7xnj", "10.0.2.4"),
        kubia("kubia-qsrhr", "10.0.2.5"),
        kubia("kubia-wpk4k", "10.0.0.8"),
    ]
    others = (
        *("external-service.yaml", "external-service-endpoints.yaml", "external-service-externalname.yaml"),
        *("kubernetes.yaml", "kubia-svc.yaml", "kubia-svc-loadbalancer.yaml", "kubia-svc-nodeport.yaml"),
    )
    with chapter(cluster(*pods), tmp_path, *others, unready=["kubia-m7xnj", "kubia-qsrhr"]) as of:
        # 1. It is listed. One pod is ready.
        of.files.append("kubia-svc-headless.yaml")
        assert without_age(of.get("service")) == without_age(GET_ALL)
        assert differences(DESCRIBE_HEADLESS, of.describe("service", "kubia-headless")) == []
        # 2. Nothing is programmed.
        assert of.sync().endswith(": nothing to change\n")
        # 3. Another pod is ready. The third is an endpoint only if the Service publishes not-ready addresses.
        of.unready = ["kubia-m7xnj"]
        assert endpoints(of.get("endpoints", "kubia-headless")) == {"10.0.0.8:8080", "10.0.2.5:8080"}
        of.files[-1] = "kubia-svc-headless-all.yaml"
        all_sockets = {"10.0.0.8:8080", "10.0.2.4:8080", "10.0.2.5:8080"}
        assert endpoints(of.get("endpoints", "kubia-headless")) == all_sockets


GET_NODEPORT = """
NAME             TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE
kubia-nodeport   NodePort   10.66.5.6    <none>        80:30123/TCP   9m39s
"""


def test_a_node_port_is_open_on_every_node(tmp_path: Path) -> None:
    with chapter(cluster(*PODS), tmp_path, "kubia-svc-nodeport.yaml") as of:
        all_pods = {pod.name for pod in PODS}
        assert without_age(of.get("svc", "kubia-nodeport")) == without_age(GET_NODEPORT)
        # 1. From outside through each node, to all pods. The first node has no pod.
        for node in of.lab.topology.nodes:
            assert of.curl(of.lab.client("outside"), node.v4, 30123).endswith(" on default mux")
            assert set(many(of.lab.client("outside"), node.v4, 30123, 60)) == all_pods
            assert of.curl(of.lab.client("outside"), node.v4, 80) == "refused"
        # 2. From a pod through the ClusterIP.
        assert of.curl(of.lab.pod("kubia-zhg6k"), "10.66.5.6", 80).endswith(" on default mux")
        assert set(many(of.lab.pod("kubia-zhg6k"), "10.66.5.6", 80, 60)) == all_pods

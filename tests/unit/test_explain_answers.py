"""`kproxy explain`: questions as rows, and the sentences that their answers contain."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from kproxy.cli import main
from tests.unit.make import manifest, service

FLAGS = "--node-name n1 --node-ip 192.0.2.1,2001:db8::1 --cluster-cidr 10.244.0.0/16,fd00:244::/64 --service-cidr 10.96.0.0/16"


def pod(own: str, node: str, address: str, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    """Return a pod that listens on port 8080."""
    return manifest(
        "Pod",
        own,
        metadata={"labels": {"app": "web"}, **metadata},
        spec={"nodeName": node, "containers": [{"name": "main", "ports": [{"containerPort": 8080}]}]},
        status={"podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": str(ready)}]},
    )


def of_pods(own: str, address: str, **spec: Any) -> dict[str, Any]:
    """Return a service of the pods."""
    ports = spec.pop("ports", [{"name": "http", "port": 80, "targetPort": 8080}])
    return service(own, clusterIP=address, selector={"app": "web"}, ports=ports, **spec)


LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30900}
OBJECTS = [
    pod("a", "n1", "10.244.1.2"),
    pod("b", "n2", "10.244.2.2"),
    pod("c", "n2", "10.244.2.3", ready=False),
    pod("d", "n2", "10.244.2.4", deletionTimestamp="2026-01-01T00:00:00Z"),
    of_pods("web", "10.96.0.1", type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}]),
    of_pods("sticky", "10.96.0.2", sessionAffinity="ClientIP"),
    of_pods("inside", "10.96.0.3", internalTrafficPolicy="Local"),
    of_pods("weighted", "10.96.0.4")
    | {"metadata": {"name": "weighted", "annotations": {"kproxy.io/weights": "b=3"}}},
    of_pods("hashed", "10.96.0.5")
    | {"metadata": {"name": "hashed", "annotations": {"kproxy.io/consistent-hash": "client-port"}}},
    of_pods("local", "10.96.0.6", externalIPs=["198.51.100.6"], **LOCAL),
    of_pods("ranges", "10.96.0.7", type="LoadBalancer", loadBalancerSourceRanges=["203.0.113.0/24"])
    | {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}},
    service("nothing", clusterIP="10.96.0.8", selector={"app": "none"}),
    service("headless", clusterIP="None"),
    service("outer", type="ExternalName", externalName="example.com"),
    of_pods("two", "10.96.0.9", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": "UDP"}]),
    of_pods("elsewhere", "10.96.0.10") | {"metadata": {"name": "elsewhere", "namespace": "shop"}},
    manifest(
        "EndpointSlice",
        "remote",
        metadata={"labels": {"kubernetes.io/service-name": "remote"}},
        addressType="IPv4",
        ports=[{"port": 9000}],
        endpoints=[{"addresses": ["10.244.2.9"], "nodeName": "n2"}],
    ),
    service("remote", clusterIP="10.96.0.11", internalTrafficPolicy="Local"),
]  # fmt: skip

ROWS = [
    ("pod/a web", "From pod default/a to Service default/web (10.96.0.1:80/tcp):", "one of 2 endpoints"),
    ("a web:80", "a pod: its address is in 10.244.0.0/16\n", "the destination is the ClusterIP of Service default/web"),
    ("a web", "10.244.1.2:8080   50.0%   pod a   node n1", "10.244.2.2:8080   50.0%   pod b   node n2"),
    ("a web", "10.244.2.3:8080   not ready     pod c", "10.244.2.4:8080   terminating   pod d"),
    ("a web", "(at 10.244.1.2:8080): the endpoint is the sender itself", "the source stays (at 10.244.2.2:8080)"),
    ("10.244.2.2 web", "From pod default/b to"),
    ("10.244.2.77 web", "From 10.244.2.77 to", "the sender is a pod", "replies to the client's own address"),
    ("node web", "this node itself sends the packet", "this node's address: the sender is not a pod"),
    ("192.0.2.1 web", "From this node to"),
    ("203.0.113.9 node:30080", "neither a pod nor this node", "a node port of Service default/web", "masq-always"),
    ("203.0.113.9 192.0.2.1:30080/tcp", "a node port of Service default/web"),
    ("a web:81", "refused (TCP reset): the ClusterIP does not have this port", "10.96.0.1 is a ClusterIP"),
    ("a web:80/udp", "refused (ICMP port unreachable): the ClusterIP does not have this port"),
    ("a web/icmp", "(10.96.0.1/icmp)", "dropped: a ClusterIP does not answer ping"),
    ("a 10.96.9.9:80", "dropped: no Service has this address of the service range"),
    ("a 10.244.2.2:8080", "left as it is: no Service has this address and port on this node"),
    ("a nothing", "refused (TCP reset): the Service has no endpoint", "no-endpoints"),
    ("a remote", "dropped: the traffic policy is Local", "10.244.2.9:9000   on node n2, and traffic policy Local"),
    ("a inside", "translated to one endpoint", "10.244.2.2:8080   on node n2, and traffic policy Local uses only"),
    ("a sticky", "remember-10800", "until 3h after its last new connection"),
    ("a weighted", "25.0%   pod a", "75.0%   pod b"),
    ("a hashed --source-port 4000", "a hash of the client's address and port selects slot", "100.0%"),
    ("203.0.113.9 198.51.100.6:80", "clients from outside get only its endpoints on this node", "pod a"),
    ("a 198.51.100.6:80", "an external IP of Service default/local:http", "pod b"),
    ("203.0.113.9 198.51.100.7:80", "loadBalancerSourceRanges (203.0.113.0/24) contain 203.0.113.9"),
    ("192.0.2.99 198.51.100.7:80", "dropped: loadBalancerSourceRanges do not contain the client"),
    ("a two:b", "(10.96.0.9:81/udp)"),
    ("a two:81", "(10.96.0.9:81/udp)"),
    ("a shop/elsewhere:80", "Service shop/elsewhere"),
    ("a svc/web:80", "Service default/web"),
    ("a elsewhere.shop", "Service shop/elsewhere"),
    ("a elsewhere.shop.svc.cluster.local:http", "Service shop/elsewhere"),
    ("default/a elsewhere -n shop", "Service shop/elsewhere"),
    ("10.244.2.77 web --masquerade-all", "this node's address: --masquerade-all"),
]  # fmt: skip

PAIRS = ("@nh,120,8 . @nh,152,8", "@nh,112,8 . @nh,144,8", "@nh,104,8 . @nh,136,8", "@nh,96,8 . @nh,128,8")
TO_ITSELF = " ".join(f"{pair} @equal-bytes" for pair in PAIRS)
TO_ITSELF += ' masquerade fully-random comment "the source is the destination"'
RULES = [
    ("a web", "prerouting", None, []),
    ("a web", "services", "ip daddr . meta l4proto . th dport vmap @services", ['10.96.0.1 . tcp . 80 comment "default/web" : goto lb-4']),
    ("a web", "lb-4", "jump draw-4", []),
    ("a web", "draw-4", "dnat ip to ip daddr . tcp dport . numgen random mod 4 map @endpoints-tcp", ["10.96.0.1 . 80 . 0 : 10.244.1.2 . 8080", "10.96.0.1 . 80 . 1 : 10.244.2.2 . 8080"]),
    ("a web", "translated", TO_ITSELF, []),
    ("node web", "translated", "ct original ip daddr @cluster-ips ip saddr != @pod-cidrs masquerade fully-random", ["10.96.0.1"]),
    ("a web:81", "services", 'ip daddr @cluster-ips fib daddr type != local goto unknown-port comment "refuse ports that the Service does not have"', ["10.96.0.1"]),
    ("a web/icmp", "services", 'ip daddr @cluster-ips fib daddr type != local meta l4proto icmp drop comment "ClusterIPs do not answer ping"', ["10.96.0.1"]),
    ("a 10.96.9.9:80", "services", 'ip daddr @service-cidrs fib daddr type != local drop comment "drop packets to ClusterIPs that no Service has"', ["10.96.0.0/16"]),
    ("a nothing", "no-endpoints", "meta l4proto tcp reject with tcp reset", []),
    ("a remote", "discard", "drop", []),
    ("a sticky", "sticky-4", "goto lb-4", []),
    ("a sticky", "remember-10800", "meta l4proto tcp update @affinity-tcp { ct original ip saddr . ct original ip daddr . ct original proto-dst timeout 10800s : ct reply ip saddr . ct reply proto-src }", ['10.96.0.2 . tcp . 80 : goto remember-10800']),
    ("203.0.113.9 198.51.100.7:80", "check-source", "ip daddr . meta l4proto . th dport . ip saddr @source-ranges return", ["198.51.100.7 . tcp . 80 . 203.0.113.0-203.0.113.255"]),
    ("192.0.2.99 198.51.100.7:80", "check-source", "drop", []),
    ("203.0.113.9 198.51.100.6:80", "prerouting", "ip saddr != @pod-cidrs fib saddr type != local ip daddr . meta l4proto . th dport vmap @services-from-outside", ['198.51.100.6 . tcp . 80 comment "default/local:http" : goto outside-lb-1']),
    ("203.0.113.9 node:30080", "masq-always", "masquerade fully-random", ['192.0.2.1 . tcp . 30080 : goto masq-always']),
]  # fmt: skip
"""A question, the chain of a step, its rule and elements."""

ERRORS = [
    ("a wep:80", "Service default/wep not found."),
    ("a elsewhere:80", "Service default/elsewhere not found. It exists in namespace shop."),
    ("zzz web", "Pod default/zzz not found."),
    (
        "a headless:80",
        "is headless: clients connect to its endpoints themselves. See kproxy get ep headless.",
    ),
    ("a outer:80", "a name in DNS for example.com"),
    ("a two", "has several ports. Its ports are a (80/tcp), b (81/udp)."),
    ("a web:https", "has no port 'https'."),
    ("2001:db8::7 web", "have no addresses of the same family"),
]
USAGE = [
    ("a 10.96.0.1", "needs a port"),
    ("a web:0", "not between 1 and 65535"),
    ("a web:80/quic", "'quic' is not one of tcp, udp, sctp and icmp"),
    ("a web:80/icmp", "icmp has no ports"),
    ("a ::", "'::' is not HOST:PORT"),
    ("a", "Wrong number of arguments."),
    ("a web --source-port 0", "not a port"),
    ("a web -o yaml", "--output: 'yaml' is not one of json."),
]


class Asked:
    """Runs `kproxy explain` on OBJECTS, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        path = folder / "in.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": OBJECTS}))
        self.flags = [*FLAGS.split(), "-f", str(path), "--state-dir", str(folder / "state")]

    def __call__(self, question: str) -> tuple[int, str, str]:
        """Return the exit status, the output and the errors."""
        status = main(["explain", *shlex.split(question), *self.flags])
        return status, *self.capsys.readouterr()


@pytest.fixture(name="asked")
def _asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked(tmp_path, capsys)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_answer(asked: Asked, row: tuple[str, ...]) -> None:
    question, *expected = row
    status, out, _ = asked(question)
    assert status == 0
    for text in expected:
        assert text in out


@pytest.mark.parametrize(("question", "expected"), ERRORS)
def test_an_object_that_does_not_exist_is_an_error(asked: Asked, question: str, expected: str) -> None:
    status, out, err = asked(question)
    assert (status, out) == (1, "")
    assert expected in err


@pytest.mark.parametrize(("question", "expected"), USAGE)
def test_a_question_that_cannot_be_parsed_is_a_usage_error(
    asked: Asked, question: str, expected: str
) -> None:
    status, out, err = asked(question)
    assert (status, out) == (2, "")
    assert expected in err


@pytest.mark.parametrize("row", RULES, ids=lambda row: f"{row[0]}: {row[1]}")
def test_the_rule_and_the_elements_behind_a_step(
    asked: Asked, row: tuple[str, str, str | None, list[str]]
) -> None:
    question, chain, rule, elements = row
    found = json.loads(asked(f"{question} --rules -o json")[1])["steps"]
    step = [each for each in found if each["chain"] == chain][-1 if chain == "prerouting" else 0]
    assert (step["rule"], step["handle"], step["elements"]) == (rule, None, elements)


def test_rules_in_words(asked: Asked) -> None:
    out = asked("a web --rules")[1]
    assert "rule: ip daddr . meta l4proto . th dport vmap @services\n" in out
    assert 'element: 10.96.0.1 . tcp . 80 comment "default/web" : goto lb-4\n' in out


def test_json_has_the_same_facts(asked: Asked) -> None:
    found = json.loads(asked("a sticky:http -o json --rules")[1])
    assert found["from"] == {"name": "pod default/a", "address": "10.244.1.2"}
    assert found["to"] == {
        "name": "Service default/sticky",
        "address": "10.96.0.2",
        "port": 80,
        "protocol": "tcp",
    }
    assert (found["service"], found["fate"], found["reason"]) == ("default/sticky", "translated", None)
    assert [step["chain"] for step in found["steps"]] == [
        "prerouting",
        "services",
        "sticky-4",
        "lb-4",
        "draw-4",
        "remember-10800",
        "translated",
        "translated",
    ]
    assert found["steps"][1]["elements"][0].endswith("goto sticky-4")
    assert [(each["pod"], each["probability"], each["masquerade"]) for each in found["endpoints"]] == [
        ("a", 0.5, "hairpin"),
        ("b", 0.5, None),
    ]
    assert [(each["pod"], each["why"]) for each in found["unused"]] == [
        ("c", "not ready"),
        ("d", "terminating"),
    ]
    assert found["kernel"] is None


def test_json_names_the_reason(asked: Asked) -> None:
    found = json.loads(asked("a web/icmp -o json")[1])
    assert (found["fate"], found["reason"], found["service"]) == ("dropped", "cluster-ip-ping", None)

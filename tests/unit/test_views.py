"""The output of `kproxy get` and `kproxy describe`: the tables of the textbook chapter, and all kinds of cells."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import netns_lab
import pytest
import yaml

from kproxy.cli import main
from kproxy.cli.get import ages
from kproxy.model import Family
from kproxy.show import tables as views
from kproxy.show.kinds import KINDS
from tests.cases import cases
from tests.unit.make import NODE, decoded, manifest, selected_slices, service

CHAPTER = Path(netns_lab.__file__).parent / "chapter"
FLAGS = ["--service-cidr", "10.66.0.0/16,fd00:66::/112"]


def pod(own: str, *addresses: str, ready: bool = True, app: str = "kubia", **rest: Any) -> dict[str, Any]:
    ports = [{"name": "http-default", "containerPort": 8080}, {"name": "http-mux1", "containerPort": 8090}]
    status = {
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    spec = {"nodeName": f"node-{own}", "containers": [{"ports": ports}]}
    metadata = {"labels": {"app": app}, **rest.pop("metadata", {})}
    return manifest("Pod", own, metadata=metadata, spec=spec, status=status | rest)


def chapter(own: str, **spec: Any) -> dict[str, Any]:
    """Return a service of the chapter as it is after it was created."""
    given: dict[str, Any] = yaml.safe_load((CHAPTER / f"{own}.yaml").read_text())
    return given | ({"spec": given["spec"] | spec} if spec else {})


GONE = {"deletionTimestamp": "2020-07-20T23:30:33Z"}
TARGET = {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"app": "kubia"}}
BALANCER = service("kubia-loadbalancer", type="LoadBalancer", clusterIP="10.66.4.173", **TARGET)
BALANCER["spec"]["ports"] = [{"port": 80, "targetPort": 8080, "nodePort": 32179}]
CHAPTERS = [
    chapter("kubia-svc", clusterIP="10.66.13.240"),
    chapter("kubia-svc-nodeport", clusterIP="10.66.5.6"),
    chapter("external-service", clusterIP="10.66.10.171"),
    chapter("external-service-endpoints"),
    BALANCER | {"status": {"loadBalancer": {"ingress": [{"ip": "35.221.253.22"}]}}},
    service("external-service-externalname", type="ExternalName", externalName="httpbin.org"),
    service("kubia-headless", clusterIP="None", **TARGET),
    service("kubernetes", clusterIP="10.66.0.1", ports=[{"port": 443}]),
    pod("kubia-a", "10.0.1.23", "fd00::1"),
    pod("kubia-b", "10.0.2.13", "fd00::2"),
    pod("kubia-c", "10.0.2.14", "fd00::3"),
    pod("kubia-d", "10.0.2.15", "fd00::4", ready=False),
]


class Shown:
    """Runs a command on objects, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, command: str, *objects: dict[str, Any]) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        node = ["--node-name", "n1", "--node-ip", "192.0.2.1"] if command.startswith("describe") else []
        path = self.folder / "in.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        status = main(
            [*shlex.split(command), "-f", str(path), "--state-dir", str(self.folder / "state"), *FLAGS, *node]
        )
        out, err = self.capsys.readouterr()
        assert not (self.folder / "state").exists()
        return status, out, err


@pytest.fixture(name="shown")
def _shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    return Shown(tmp_path, capsys)


# --- the chapter's tables ---

SERVICES = """
NAME                            TYPE           CLUSTER-IP     EXTERNAL-IP     PORT(S)         AGE
external-service                ClusterIP      10.66.10.171   <none>          80/TCP          <unknown>
external-service-externalname   ExternalName   <none>         httpbin.org     80/TCP          <unknown>
kubernetes                      ClusterIP      10.66.0.1      <none>          443/TCP         <unknown>
kubia                           ClusterIP      10.66.13.240   <none>          80/TCP,90/TCP   <unknown>
kubia-headless                  ClusterIP      None           <none>          80/TCP          <unknown>
kubia-loadbalancer              LoadBalancer   10.66.4.173    35.221.253.22   80:32179/TCP    <unknown>
kubia-nodeport                  NodePort       10.66.5.6      <none>          80:30123/TCP    <unknown>
"""
KUBIA = """
NAME    ENDPOINTS                                                  AGE
kubia   10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080 + 3 more...   <unknown>
"""
ENDPOINTS = """
NAME                 ENDPOINTS                                                  AGE
external-service     13.250.94.254:80,13.229.188.59:80                          <unknown>
kubia                10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080 + 3 more...   <unknown>
kubia-headless       10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080               <unknown>
kubia-loadbalancer   10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080               <unknown>
kubia-nodeport       10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080               <unknown>
"""
SLICES = """
NAME                   ADDRESSTYPE   PORTS       ENDPOINTS                                     AGE
external-service-0     IPv4          80          13.250.94.254,13.229.188.59                   <unknown>
kubia-0                IPv4          8080,8090   10.0.1.23,10.0.2.13,10.0.2.14 + 1 more...     <unknown>
kubia-1                IPv6          8080,8090   fd00::1,fd00::2,fd00::3 + 1 more...           <unknown>
"""
PODS = """
NAME      READY   STATUS      RESTARTS    AGE         IP          NODE
kubia-a   1/1     <unknown>   <unknown>   <unknown>   10.0.1.23   node-kubia-a
kubia-d   0/1     <unknown>   <unknown>   <unknown>   10.0.2.15   node-kubia-d
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("get svc", SERVICES),
        ("get endpoints kubia", KUBIA),
        ("get ep", ENDPOINTS),
        ("get po kubia-a -o wide kubia-d", PODS),
    ],
)
def test_the_tables_of_the_chapter(shown: Shown, command: str, expected: str) -> None:
    assert shown(command, *CHAPTERS) == (0, expected.lstrip("\n"), "")


def test_the_slices_of_the_chapter(shown: Shown) -> None:
    _, out, _ = shown("get endpointslices external-service-0 kubia-0 kubia-1", *CHAPTERS)
    assert " ".join(out.split()) == " ".join(SLICES.split())


# --- cells ---

CREATED = {"creationTimestamp": "2020-07-20T23:30:33Z"}
LONG = [{"ip": "203.0.113.10"}, {"hostname": "lb.example.net"}]


def balanced(*entries: dict[str, str], **spec: Any) -> dict[str, Any]:
    made = service(type="LoadBalancer", allocateLoadBalancerNodePorts=False, clusterIP="10.66.0.2", **spec)
    return made | {"status": {"loadBalancer": {"ingress": list(entries)}}}


@pytest.mark.parametrize(
    ("given", "flags", "row"),
    [
        (service(clusterIP="10.66.0.2", externalIPs=["198.51.100.7", "198.51.100.8"]), "", "web ClusterIP 10.66.0.2 198.51.100.7,198.51.100.8 80/TCP <unknown>"),
        (service(clusterIP="fd00:66::2", ports=[{"port": 53, "protocol": "UDP"}]), "", "web ClusterIP fd00:66::2 <none> 53/UDP <unknown>"),
        (service(clusterIP="None", ports=[]), "", "web ClusterIP None <none> <none> <unknown>"),
        (service(clusterIP="10.66.0.2"), "-o wide", "web ClusterIP 10.66.0.2 <none> 80/TCP <unknown> <none>"),
        (service(clusterIP="10.66.0.2", selector={"b": "2", "a": "1"}), "-o wide", "web ClusterIP 10.66.0.2 <none> 80/TCP <unknown> a=1,b=2"),
        (service(clusterIP="10.66.0.2"), "-A", "default web ClusterIP 10.66.0.2 <none> 80/TCP <unknown>"),
        (balanced(), "", "web LoadBalancer 10.66.0.2 <pending> 80/TCP <unknown>"),
        (balanced(*LONG), "", "web LoadBalancer 10.66.0.2 203.0.113.10,... 80/TCP <unknown>"),
        (balanced(*LONG), "-o wide", "web LoadBalancer 10.66.0.2 203.0.113.10,lb.example.net 80/TCP <unknown> <none>"),
        (balanced(LONG[0], externalIPs=["198.51.100.7"]), "", "web LoadBalancer 10.66.0.2 203.0.113.10,198.51.100.7 80/TCP <unknown>"),
        (balanced({"ip": "203.0.113.10", "ipMode": "Proxy"}), "", "web LoadBalancer 10.66.0.2 203.0.113.10 80/TCP <unknown>"),
    ],
)  # fmt: skip
def test_a_service(shown: Shown, given: dict[str, Any], flags: str, row: str) -> None:
    status, out, err = shown(f"get services {flags}", given)
    assert (status, err) == (0, "")
    assert out.splitlines()[1].split() == row.split()


COUNTED = [{"ready": True, "restartCount": 2}, {"ready": False}]


@pytest.mark.parametrize(
    ("given", "row"),
    [
        (manifest("Pod"), "web False Pending <unknown> <unknown> <none> <none>"),
        (pod("web"), "web 0/1 Pending <unknown> <unknown> <none> node-web"),
        (pod("web", phase="Running"), "web 1/1 Running <unknown> <unknown> <none> node-web"),
        (pod("web", "fd00::1", phase="Running", containerStatuses=COUNTED), "web 1/2 Running 2 <unknown> fd00::1 node-web"),
        (pod("web", phase="Running", metadata={"deletionTimestamp": "2020-07-20T23:30:33Z"}), "web 1/1 Terminating <unknown> <unknown> <none> node-web"),
    ],
)  # fmt: skip
def test_a_pod(shown: Shown, given: dict[str, Any], row: str) -> None:
    assert shown("get pods -o wide", given)[1].splitlines()[1].split() == row.split()


HEADLESS_SLICE = manifest(
    "EndpointSlice",
    "web-1",
    metadata={"labels": {"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""}},
    addressType="IPv4",
    ports=[{"port": 8080}],
    endpoints=[{"addresses": ["10.0.0.9"]}],
)


@pytest.mark.parametrize(
    ("objects", "row"),
    [
        ([service(selector={"app": "kubia"})], "web <none> <unknown>"),
        ([service(selector={"app": "kubia"}), pod("a", "10.0.0.1", ready=False)], "web <none> <unknown>"),
        ([service(selector={"app": "kubia"}, ipFamilies=["IPv6"]), pod("a", "10.0.0.1", "fd00::1")], "web [fd00::1]:80 <unknown>"),
        ([service(clusterIP="None", ports=[], selector={"app": "kubia"}), pod("a", "10.0.0.1")], "web 10.0.0.1 <unknown>"),
        ([manifest("Endpoints", subsets=[])], "web <none> <unknown>"),
        ([service(clusterIP="None"), HEADLESS_SLICE], "web 10.0.0.9:8080 <unknown>"),
        ([service(selector={"app": "kubia"}, publishNotReadyAddresses=True), pod("a", "10.0.0.1", ready=False)], "web 10.0.0.1:80 <unknown>"),
    ],
)  # fmt: skip
def test_endpoints(shown: Shown, objects: list[dict[str, Any]], row: str) -> None:
    assert shown("get ep", *objects)[1].splitlines()[1].split() == row.split()


def test_a_slice_of_a_headless_service(shown: Shown) -> None:
    out = shown("get endpointslices", service(clusterIP="None"), HEADLESS_SLICE)[1]
    assert out.splitlines()[1].split() == ["web-1", "IPv4", "8080", "10.0.0.9", "<unknown>"]
    out = shown("describe svc web", service(clusterIP="10.66.0.2"), HEADLESS_SLICE)[1]
    assert "  10.66.0.2:80/tcp  ClusterIP  refused: no endpoint\n" in out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (47, "47s"),
        (119, "119s"),
        (120, "2m"),
        (8 * 60 + 48, "8m48s"),
        (10 * 60 + 5, "10m"),
        (179 * 60, "179m"),
        (180 * 60, "3h"),
        (7 * 3600 + 60, "7h1m"),
        (9 * 3600 + 60, "9h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (97 * 86400 + 3600, "97d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (365 * 8 * 86400 + 86400, "8y"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert views.duration(seconds) == text
    assert ages(now)((now - timedelta(seconds=seconds)).isoformat()) == text


def test_an_invalid_timestamp_has_no_age() -> None:
    age = ages(datetime(2026, 1, 1, tzinfo=UTC))
    assert [age(""), age("soon"), age("2025-12-31T23:00:00")] == [views.UNKNOWN, views.UNKNOWN, "60m"]


# --- selection of objects, and exit status ---

KINDS_OF_GET = "".join(
    (" A KIND is ", ", ".join(f"{plural} ({kind.aliases[-1]})" for plural, kind in KINDS.items()), ".\n")
)
USAGE_OF_GET = """\
Usage: kproxy get [FLAGS] KIND[,KIND...] [NAME...]
       kproxy get [FLAGS] KIND/NAME...
See 'kproxy get --help'.
"""
TWO = [
    service("a", clusterIP="10.66.0.3") | {"metadata": {"name": "a", "namespace": "one"}},
    service("b", clusterIP="10.66.0.4"),
]


@cases(
    """
    command                                      status  names                message
    get svc -o name                              0       service/b            -
    get svc -n one -o name                       0       service/a            -
    get svc -A -o name                           0       service/b service/a  -
    get svc a b -o name                          1       service/b            kproxy: services 'a' not found in namespace default. It exists in namespace one: see -n.
    get svc c -o yaml                            1       -                    kproxy: services 'c' not found in namespace default.
    get svc -n none                              0       -                    No services found in namespace none.
    get pods -A                                  0       -                    No pods found.
    get svc -n one a -o name                     0       service/a            -
    get -n one svc -o name a                     0       service/a            -
    get svc/b -o name                            0       service/b            -
    get service/b svc/c -o name                  1       service/b            kproxy: services 'c' not found in namespace default.
    get svc,ep b -o name                         1       service/b            kproxy: endpoints 'b' not found in namespace default.
    get Service b b -o name                      0       service/b            -
    get po,ep                                    0       -                    No pods or endpoints found in namespace default.
    describe ing                                 0       -                    No ingresses found in namespace default.
    describe svc c                               1       -                    kproxy: services 'c' not found in namespace default.
    """,
    status=int,
    names=str.split,
)
def test_selected_objects_and_messages(
    shown: Shown, command: str, status: int, names: list[str], message: str
) -> None:
    out = "".join(f"{each}\n" for each in names)
    assert shown(command, *TWO) == (status, out, f"{message}\n" if message else "")


def test_every_missing_object_is_named(shown: Shown) -> None:
    status, out, err = shown("get service/b ep/b svc/c -o name", *TWO)
    assert (status, out) == (1, "service/b\n")
    assert err.splitlines() == [
        "kproxy: services 'c' not found in namespace default.",
        "kproxy: endpoints 'b' not found in namespace default.",
    ]


@cases(
    """
    command        message
    get svc a -A   A resource cannot be retrieved by name across all namespaces.
    get svc/b -A   A resource cannot be retrieved by name across all namespaces.
    get svc/b ep   'ep' is not KIND/NAME, which cannot be combined with other forms.
    get svc/b/c    'svc/b/c' is not KIND/NAME, which cannot be combined with other forms.
    get ingres     Unknown kind ingres. Did you mean ingress?
    """
)
def test_the_usage_of_get_follows_an_error(shown: Shown, command: str, message: str) -> None:
    assert shown(command, *TWO) == (2, "", f"kproxy: {message}\n{USAGE_OF_GET}")


def test_an_unknown_kind_gets_the_list_of_kinds(shown: Shown) -> None:
    assert shown("get jobs", *TWO) == (2, "", f"kproxy: Unknown kind jobs.{KINDS_OF_GET}{USAGE_OF_GET}")


def test_a_service_without_its_requested_address_is_shown_with_a_problem(shown: Shown) -> None:
    status, out, err = shown("get svc", service(clusterIP="10.1.0.1", type="NodePort"))
    assert status == 1
    assert "10.1.0.1 is not in --service-cidr 10.66.0.0/16" in err
    assert out.splitlines()[1].split() == ["web", "NodePort", "10.1.0.1", "<none>", "80/TCP", "<unknown>"]


SEVERAL = """
NAME                      TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE
service/kubia-nodeport    NodePort   10.66.5.6    <none>        80:30123/TCP   <unknown>

NAME                       ENDPOINTS                                       AGE
endpoints/kubia-nodeport   10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080    <unknown>
"""
LABELLED = {"metadata": {"labels": {"b": "2", "a": "1"}}}


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    "asked", ["svc,ep kubia-nodeport", "service/kubia-nodeport endpoints/kubia-nodeport"]
)
def test_several_kinds(shown: Shown, asked: str) -> None:
    status, out, err = shown(f"get {asked}", *CHAPTERS)
    assert (status, err) == (0, "")
    assert squeezed(out) == squeezed(SEVERAL)


def test_named_objects_are_in_the_order_of_the_arguments(shown: Shown) -> None:
    assert shown("get po kubia-d kubia-a -o name", *CHAPTERS)[1] == "pod/kubia-d\npod/kubia-a\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("svc", "a=1,b=2"),
        ("ep", "a=1,b=2"),
        ("endpointslices", "a=1,b=2,kubernetes.io/service-name=web"),
        ("pods", "app=kubia"),
    ],
)
def test_labels(shown: Shown, kind: str, expected: str) -> None:
    web = service(selector={"app": "kubia"}) | manifest("Service", **LABELLED)
    out = shown(f"get {kind} --show-labels -A", web, pod("a", "10.0.0.1"))[1].splitlines()
    assert [line.split()[-1] for line in out] == ["LABELS", expected]


def test_an_endpoints_object_has_its_own_labels(shown: Shown) -> None:
    given = [service(), manifest("Endpoints", subsets=[], **LABELLED)]
    assert shown("get ep --show-labels", *given)[1].splitlines()[1].split()[-1] == "a=1,b=2"


# --- manifests ---


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_printed_manifests_decode_to_the_same_services_and_slices(shown: Shown, form: str) -> None:
    """The decoded services have the allocated addresses and node ports."""
    before = decoded(yaml.safe_dump_all(CHAPTERS)).state
    protected = {}
    for kind in ("services", "endpointslices"):
        status, out, err = shown(f"get {kind} -o {form}", *CHAPTERS)
        assert (status, err) == (0, "")
        again = decoded(out)
        assert again.problems == []
        protected[kind] = again.state
    services, slices = protected["services"].services, protected["endpointslices"].slices
    assert services.keys() == before.services.keys()
    for name, found in services.items():
        given = before.services[name]
        assert (found.type, found.selector, found.headless) == (given.type, given.selector, given.headless)
        assert (found.affinity_timeout, found.external_name) == (given.affinity_timeout, given.external_name)
        assert found.load_balancer_ips == given.load_balancer_ips
        assert bool(found.cluster_ips) is found.wants_cluster_ip
        assert all(bool(port.node_port) is found.wants_node_ports for port in found.ports)
    dual = {name for name, given in before.services.items() if given.family_policy}
    expected = {
        name: [
            (s.family, s.ports, s.endpoints)
            for s in of
            if s.endpoints and (name in dual or s.family is Family.IPV4)
        ]
        for name, of in selected_slices(before, NODE).items()
    }
    assert {name: [(s.family, s.ports, s.endpoints) for s in of] for name, of in slices.items()} == expected


PROBES: list[dict[str, Any]] = [
    {"exec": {"command": ["ls", "/var/ready"]}, "periodSeconds": 5},
    {
        "httpGet": {
            "port": "web",
            "path": "/x",
            "scheme": "HTTPS",
            "httpHeaders": [{"name": "A", "value": "b"}],
        }
    },
    {"tcpSocket": {"port": 9, "host": "192.0.2.9"}, "failureThreshold": 1, "successThreshold": 2},
    {"grpc": {"port": 9, "service": "x"}, "initialDelaySeconds": 3, "timeoutSeconds": 4},
]
PODS_AT_LENGTH = [
    pod("a", "10.0.0.1", "fd00::1", ready=False, phase="Running"),
    pod("b", metadata=GONE | {"labels": {"x": "y"}, "uid": "4711"}),
    manifest(
        "Pod",
        "c",
        spec={
            "hostNetwork": True,
            "enableServiceLinks": False,
            "containers": [
                {"name": f"c-{index}", "image": "web", "ports": [{"containerPort": 8080, "name": "web"}], "readinessProbe": probe}
                for index, probe in enumerate(PROBES)
            ],
        },
        status={"hostIP": "192.0.2.7"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_printed_pod_decodes_to_the_same_pod(shown: Shown, form: str) -> None:
    before = decoded(yaml.safe_dump_all(PODS_AT_LENGTH)).state.pods
    status, out, err = shown(f"get pods -o {form}", *PODS_AT_LENGTH)
    assert (status, err) == (0, "")
    again = decoded(out)
    assert (again.problems, again.state.pods) == ([], before)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_printed_endpoints_object_decodes_to_the_same_endpoints(shown: Shown, form: str) -> None:
    status, out, err = shown(f"get endpoints -o {form}", *CHAPTERS)
    assert (status, err) == (0, "")
    again = decoded(out)
    assert again.problems == []
    table = shown("get endpoints", *yaml.safe_load(out)["items"], *CHAPTERS[:8])[1]
    assert squeezed(table) == squeezed(ENDPOINTS)
    kubia = next(item for item in yaml.safe_load(out)["items"] if item["metadata"]["name"] == "kubia")
    (subset,) = kubia["subsets"]
    assert subset["notReadyAddresses"] == [
        {
            "ip": "10.0.2.15",
            "nodeName": "node-kubia-d",
            "targetRef": {"kind": "Pod", "name": "kubia-d", "namespace": "default"},
        }
    ]
    assert [port["port"] for port in subset["ports"]] == [8080, 8090]


def test_a_printed_service_has_all_fields_that_kproxy_reads(shown: Shown) -> None:
    """All fields have values other than their defaults."""
    annotations = {"kproxy.io/weights": "a=3, 10.0.0.7=2", "kproxy.io/consistent-hash": "client-port"}
    marked = {"labels": {"service.kubernetes.io/service-proxy-name": ""}, "annotations": annotations}
    spec: dict[str, Any] = {
        "type": "LoadBalancer",
        "clusterIPs": ["fd00:66::2", "10.66.0.2"],
        "ipFamilies": ["IPv6", "IPv4"],
        "ipFamilyPolicy": "RequireDualStack",
        "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local",
        "externalIPs": ["198.51.100.7"],
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "allocateLoadBalancerNodePorts": False,
        "healthCheckNodePort": 30100,
        "loadBalancerIP": "203.0.113.1",
        "loadBalancerClass": "example.com/lb",
        "publishNotReadyAddresses": True,
        "trafficDistribution": "PreferSameZone",
        "selector": {"app": "web"},
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns", "nodePort": 30053}],
    }
    entries = [
        {"ip": "203.0.113.1"},
        {"ip": "203.0.113.2", "ipMode": "Proxy"},
        {"hostname": "lb.example.net"},
    ]
    given = manifest("Service", metadata={**CREATED, **marked}, spec=spec)
    given["status"] = {"loadBalancer": {"ingress": entries}}
    (before,) = decoded(yaml.safe_dump(given)).state.services.values()
    assert decoded(shown("get svc web -o yaml", given)[1]).state.services == {before.name: before}
    sticky = service(clusterIP="10.66.0.2", ipFamilies=["IPv4"], sessionAffinity="ClientIP")
    sticky["spec"]["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 60}}
    (before,) = decoded(yaml.safe_dump(sticky)).state.services.values()
    assert decoded(shown("get svc web -o yaml", sticky)[1]).state.services == {before.name: before}


POOL = "--load-balancer-pool 192.0.2.9"


def test_an_address_of_the_pool_is_shown(shown: Shown) -> None:
    given = service(type="LoadBalancer", clusterIP="10.66.0.2", allocateLoadBalancerNodePorts=False)
    assert "web LoadBalancer 10.66.0.2 192.0.2.9 80/TCP" in " ".join(
        shown(f"get svc {POOL}", given)[1].split()
    )
    assert "LoadBalancer Ingress:     192.0.2.9\n" in shown(f"describe svc web {POOL}", given)[1]
    made = yaml.safe_load(shown(f"get svc web -o yaml {POOL}", given)[1])
    assert made["status"] == {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}}


def test_the_description_of_a_service_without_an_address_explains_why(shown: Shown) -> None:
    given = service(type="LoadBalancer", clusterIP="10.66.0.2", loadBalancerIP="192.0.2.1")
    status, out, _ = shown(f"describe svc web {POOL}", given)
    assert status == 1
    assert "spec.loadBalancerIP: 192.0.2.1 is not in --load-balancer-pool 192.0.2.9" in out
    assert "10.66.0.2:80/tcp" in out


def test_one_name_prints_one_object(shown: Shown) -> None:
    _, out, _ = shown("get endpointslices kubia-headless-0 -o json", *CHAPTERS[:-3])
    assert json.loads(out) == {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubia-headless-0",
            "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": "kubia-headless",
                "service.kubernetes.io/headless": "",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": ["10.0.1.23"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "node-kubia-a",
                "targetRef": {"kind": "Pod", "name": "kubia-a", "namespace": "default"},
            }
        ],
    }


# --- describe ---

SVC_KUBIA = """
Name:                     kubia
Namespace:                default
Labels:                   <none>
Annotations:              <none>
Selector:                 app=kubia
Type:                     ClusterIP
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.66.13.240
IPs:                      10.66.13.240
Port:                     http-default  80/TCP
TargetPort:               http-default/TCP
Endpoints:                10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
Not Ready:                10.0.2.15:8080
Port:                     http-mux1  90/TCP
TargetPort:               http-mux1/TCP
Endpoints:                10.0.1.23:8090,10.0.2.13:8090,10.0.2.14:8090
Not Ready:                10.0.2.15:8090
Session Affinity:         ClientIP
Internal Traffic Policy:  Cluster
Events:                   <none>
Frontends:
  10.66.13.240:80/tcp  ClusterIP  10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
  10.66.13.240:90/tcp  ClusterIP  10.0.1.23:8090,10.0.2.13:8090,10.0.2.14:8090
Pods Not Ready:
  kubia-d  condition Ready is not True
DNS:
  kubia.default.svc.cluster.local                     A    10.66.13.240
  _http-default._tcp.kubia.default.svc.cluster.local  SRV  port 80
  _http-mux1._tcp.kubia.default.svc.cluster.local     SRV  port 90
Problems:
  <none>
"""
SVC_BALANCER = """
Name:                     kubia-loadbalancer
Namespace:                default
Labels:                   <none>
Annotations:              <none>
Selector:                 app=kubia
Type:                     LoadBalancer
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.66.4.173
IPs:                      10.66.4.173
LoadBalancer Ingress:     35.221.253.22
Port:                     <unset>  80/TCP
TargetPort:               8080/TCP
NodePort:                 <unset>  32179/TCP
Endpoints:                10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
Not Ready:                10.0.2.15:8080
Session Affinity:         None
External Traffic Policy:  Cluster
Internal Traffic Policy:  Cluster
Events:                   <none>
Frontends:
  10.66.4.173:80/tcp    ClusterIP     10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
  35.221.253.22:80/tcp  LoadBalancer  10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
  192.0.2.1:32179/tcp   NodePort      10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
Pods Not Ready:
  kubia-d  condition Ready is not True
DNS:
  kubia-loadbalancer.default.svc.cluster.local  A  10.66.4.173
Problems:
  <none>
"""
SVC_HEADLESS = """
Name:                     kubia-headless
Namespace:                default
Labels:                   <none>
Annotations:              <none>
Selector:                 app=kubia
Type:                     ClusterIP
IP Families:              <none>
IP:                       None
IPs:                      None
Port:                     <unset>  80/TCP
TargetPort:               8080/TCP
Endpoints:                10.0.1.23:8080,10.0.2.13:8080,10.0.2.14:8080
Not Ready:                10.0.2.15:8080
Session Affinity:         None
Internal Traffic Policy:  Cluster
Events:                   <none>
Frontends:
  <none>
Pods Not Ready:
  kubia-d  condition Ready is not True
DNS:
  kubia-headless.default.svc.cluster.local  A  10.0.1.23,10.0.2.13,10.0.2.14
Problems:
  <none>
"""
SVC_NAME = """
Name:              external-service-externalname
Namespace:         default
Labels:            <none>
Annotations:       <none>
Selector:          <none>
Type:              ExternalName
IP Families:       <none>
IP:                <none>
IPs:               <none>
External Name:     httpbin.org
Port:              <unset>  80/TCP
TargetPort:        80/TCP
Endpoints:         <none>
Session Affinity:  None
Events:            <none>
Frontends:
  <none>
DNS:
  external-service-externalname.default.svc.cluster.local  CNAME  httpbin.org
Problems:
  <none>
"""
EP_KUBIA = """
Name:         kubia
Namespace:    default
Labels:       <none>
Annotations:  <none>
Subsets:
  Addresses:          10.0.1.23,10.0.2.13,10.0.2.14
  NotReadyAddresses:  10.0.2.15
  Ports:
    Name          Port  Protocol
    ----          ----  --------
    http-default  8080  TCP
    http-mux1     8090  TCP

Events:  <none>
Problems:
  <none>
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("describe svc kubia", SVC_KUBIA),
        ("describe service kubia-loadbalancer", SVC_BALANCER),
        ("describe svc kubia-headless", SVC_HEADLESS),
        ("describe svc external-service-externalname", SVC_NAME),
        ("describe endpoints kubia", EP_KUBIA),
    ],
)
def test_the_descriptions_of_the_chapter(shown: Shown, command: str, expected: str) -> None:
    single = [chapter("kubia-svc", clusterIP="10.66.13.240", ipFamilyPolicy="SingleStack"), *CHAPTERS[1:]]
    assert shown(command, *single) == (0, expected.lstrip("\n"), "")


SELECTING: dict[str, Any] = {"clusterIP": "10.66.0.2", "selector": {"app": "kubia"}}
LOCAL: dict[str, Any] = {
    **SELECTING,
    "type": "NodePort",
    "externalTrafficPolicy": "Local",
    "ports": [{"port": 80, "nodePort": 30080}],
}
WEIGHTS: dict[str, Any] = {"metadata": {"annotations": {"kproxy.io/weights": "a=2"}}}
HASH: dict[str, Any] = {
    "metadata": {"annotations": {"kproxy.io/weights": "a=2", "kproxy.io/consistent-hash": "client"}}
}


@pytest.mark.parametrize(
    ("objects", "line"),
    [
        ([service(**SELECTING)], "  10.66.0.2:80/tcp  ClusterIP  refused: no endpoint"),
        ([service(**SELECTING)], "  {source}: spec.selector: no pod in namespace default has the labels app=kubia"),
        ([service(**SELECTING), pod("a")], "  {source}: spec.selector: no address (status.podIPs) in Pod a"),
        ([service(**SELECTING, ports=[{"port": 80, "targetPort": "web"}]), pod("a", "10.0.0.1")], "  {source}: spec.ports[0].targetPort: no container port web/tcp in Pod a"),
        ([service(**SELECTING), manifest("Endpoints", subsets=[])], "  <none>"),
        ([service(**SELECTING), pod("a", "10.0.0.1", metadata=GONE)], "  a  terminating"),
        ([service(**LOCAL), pod("a", "10.0.0.1")], "  192.0.2.1:30080/tcp  from outside  dropped: no endpoint on this node"),
        ([service(**LOCAL), pod("a", "10.0.0.1")], "  192.0.2.1:30080/tcp  NodePort      10.0.0.1:80"),
        ([service(**LOCAL), pod("a", "10.0.0.1")], "  {source}: spec.externalTrafficPolicy: no endpoint is on this node, n1: packets from outside are dropped; its endpoints are on node-a"),
        ([service(**SELECTING) | manifest("Service", **WEIGHTS), pod("a", "10.0.0.1"), pod("b", "10.0.0.2")], "  10.66.0.2:80/tcp  ClusterIP  10.0.0.1:80 x2,10.0.0.2:80"),
        ([service(**SELECTING) | manifest("Service", **HASH), pod("a", "10.0.0.1"), pod("b", "10.0.0.2")], "  10.66.0.2:80/tcp  ClusterIP  10.0.0.1:80,10.0.0.2:80"),
        ([service(**SELECTING, externalIPs=["198.51.100.7"])], "External IPs:             198.51.100.7"),
        ([service(**SELECTING, trafficDistribution="PreferSameZone")], "Traffic Distribution:     PreferSameZone"),
        ([service(**SELECTING, loadBalancerSourceRanges=["192.0.2.0/24"])], "LoadBalancer Source Ranges:  192.0.2.0/24"),
        ([service(**{**SELECTING, "type": "LoadBalancer"}, externalTrafficPolicy="Local", healthCheckNodePort=30100)], "HealthCheck NodePort:     30100"),
        ([service(**{**SELECTING, "type": "LoadBalancer"}, loadBalancerIP="192.0.2.9")], "Desired LoadBalancer IP:  192.0.2.9"),
    ],
)  # fmt: skip
def test_lines_of_a_description(shown: Shown, objects: list[dict[str, Any]], line: str) -> None:
    status, out, err = shown("describe svc web", *objects)
    assert (status, err) == (0, "")
    assert line.replace("{source}", str(shown.folder / "in.json")) in out.splitlines()


def test_describing_all_objects_of_a_namespace(shown: Shown) -> None:
    """Two empty lines separate the descriptions."""
    status, out, err = shown("describe service", *CHAPTERS)
    assert (status, err) == (0, "")
    names = [line.split()[1] for line in out.splitlines() if line.startswith("Name:")]
    assert names == [row[0] for row in squeezed(SERVICES)[1:]]
    assert out.count("\n\n\nName:") == len(names) - 1
    alone = shown("describe -n default svc/kubia", *CHAPTERS)[1]
    assert alone in out
    assert shown("describe svc kubia", *CHAPTERS)[1] == alone


def test_endpoints_that_are_not_ready(shown: Shown) -> None:
    """They are listed as by the endpoints controller, without terminating pods."""
    gone = pod("b", "10.0.0.2", metadata=GONE)
    objects = [service(selector={"app": "kubia"}), pod("a", "10.0.0.1", ready=False), gone]
    assert "NotReadyAddresses:  10.0.0.1\n" in shown("describe ep web", *objects)[1]
    (subset,) = yaml.safe_load(shown("get ep web -o yaml", *objects)[1])["subsets"]
    assert [entry["ip"] for entry in subset["notReadyAddresses"]] == ["10.0.0.1"]


def test_problems_are_in_the_description_of_their_object(shown: Shown) -> None:
    objects = [service("a", clusterIP="10.1.0.1"), service("b", ports=[{"port": 0}])]
    status, out, err = shown("describe svc a", *objects)
    assert (status, err.count("\n")) == (1, 1)
    assert "Service default/b: spec.ports[0].port: 0 is not a port" in err
    assert "spec.clusterIP: 10.1.0.1 is not in --service-cidr 10.66.0.0/16" in out
    status, out, err = shown("describe svc b", *objects)
    assert (status, out) == (1, "")
    assert err.endswith("kproxy: services 'b' not found in namespace default.\n")

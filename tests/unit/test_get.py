"""kubectl's flags of `kproxy get`, which select, sort and format objects, as rows of command and output."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cases import cases
from tests.unit.make import decoded, manifest, service, slice_of
from tests.unit.test_views import Shown, pod

ADDRESSES = [
    {"type": "InternalIP", "address": "10.140.0.2"},
    {"type": "ExternalIP", "address": "35.234.11.33"},
]
INFO = {
    "kubeletVersion": "v1.16.13",
    "osImage": "Container-Optimized OS",
    "kernelVersion": "4.19.112+",
    "containerRuntimeVersion": "docker://19.3.1",
}
NODES = [
    manifest(
        "Node",
        "gke-1",
        metadata={"labels": {"node-role.kubernetes.io/worker": "", "zone": "a"}, "annotations": {"note": "x"}},
        spec={"podCIDR": "10.0.0.0/24", "taints": [{"key": "db", "value": "1", "effect": "NoSchedule"}]},
        status={"addresses": ADDRESSES, "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": INFO},
    ),
    manifest("Node", "gke-2", spec={"unschedulable": True}, status={"addresses": [{"type": "ExternalIP", "address": "35.234.27.130"}], "conditions": [{"type": "Ready", "status": "False"}]}),
    manifest("Node", "gke-3", metadata={"labels": {"kubernetes.io/role": "db"}}),
]  # fmt: skip
WEB: dict[str, Any] = {"clusterIP": "10.66.0.2", "ports": [{"port": 80}], "selector": {"app": "web"}}
OBJECTS = [
    *NODES,
    service("web", **WEB) | {"metadata": {"name": "web", "labels": {"tier": "front", "rev": "2"}}},
    service("api", clusterIP="10.66.0.10", ports=[{"port": 8080, "name": "a"}, {"port": 443, "name": "b"}]),
    pod("web-10", "10.0.1.9", app="web", metadata={"creationTimestamp": "2026-01-01T00:00:00Z"}),
    pod("web-9", "10.0.1.10", app="web", metadata={"creationTimestamp": "2026-01-02T00:00:00Z"}),
    pod("db", "10.0.1.8", app="db", ready=False),
    manifest("Pod", "other", metadata={"namespace": "shop"}),
]


@pytest.fixture(name="shown")
def _shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    return Shown(tmp_path, capsys)


def run(shown: Shown, command: str, *objects: dict[str, Any]) -> tuple[int, str, str]:
    return shown(command, *(objects or OBJECTS))


# --- the commands of the chapter, with kproxy instead of kubectl ---

CHAPTER_NODES = """get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="ExternalIP")].address}'"""
CHAPTER_PODS = 'get pods -o jsonpath="{range .items[*]}{.metadata.name}--{.status.podIP} {end}"'


@pytest.mark.parametrize(
    ("line", "out"),
    [
        (f"kubectl {CHAPTER_NODES} | tr ' ' '\\n'", "35.234.11.33\n35.234.27.130"),
        (f"kubectl {CHAPTER_PODS} | tr ' ' '\\n'", "db--10.0.1.8\nweb-10--10.0.1.9\nweb-9--10.0.1.10\n"),
    ],
)
def test_the_commands_of_the_chapter_in_a_shell(line: str, out: str, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": OBJECTS}))
    program = f'{sys.executable} -m kproxy "$@" -f in.json --service-cidr 10.66.0.0/16 --state-dir state'
    script = f"kubectl() {{ {program}; }}\n{line}\n"
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (out, "")


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (CHAPTER_NODES, "35.234.11.33 35.234.27.130"),
        (CHAPTER_PODS, "db--10.0.1.8 web-10--10.0.1.9 web-9--10.0.1.10 "),
        (CHAPTER_PODS.replace("-o ", "-o="), "db--10.0.1.8 web-10--10.0.1.9 web-9--10.0.1.10 "),
        ("get pods web-9 -o jsonpath='{.metadata.name}{\"\\n\"}'", "web-9\n"),
        ("get pods web-9 db -o jsonpath='{.items[*].metadata.name}'", "web-9 db"),
        ("get svc,pods -o jsonpath='{.items[*].kind}'", "Service Service Pod Pod Pod"),
        ("get svc web -o jsonpath='{.spec.ports[0].port}{.none}{.metadata.labels}'", '80{"rev":"2","tier":"front"}'),
        ("get pods -n none -o jsonpath='{.items[*].metadata.name}'", ""),
        ("get pods -l app=web --sort-by .metadata.name -o jsonpath='{.items[*].metadata.name}'", "web-9 web-10"),
        ("get node gke-1 -o jsonpath='{.status.nodeInfo.kubeletVersion} {.spec.podCIDRs[0]}'", "v1.16.13 10.0.0.0/24"),
    ],
)  # fmt: skip
def test_jsonpath(shown: Shown, command: str, out: str) -> None:
    assert run(shown, command) == (0, out, "")


# --- selection ---


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("get pods -l app=web", "pod/web-10 pod/web-9"),
        ("get pods -l 'app in (web,db)'", "pod/db pod/web-10 pod/web-9"),
        ("get pods -l '!app' -A", "pod/other"),
        ("get pods --selector app!=web -A", "pod/db pod/other"),
        ("get svc,pods -l tier", "service/web"),
        ("get endpoints -l tier", "endpoints/web"),
        ("get endpointslices -l kubernetes.io/service-name=web", "endpointslice.discovery.k8s.io/web-0"),
        ("get endpointslices.discovery.k8s.io web-0", "endpointslice.discovery.k8s.io/web-0"),
        ("get httproutes.gateway.networking.k8s.io", ""),
        ("get pods -l app=none", ""),
        ("get all", "pod/db pod/web-10 pod/web-9 service/api service/web"),
        ("get all -l rev>1", "service/web"),
        ("get all,nodes -A -l '!app,!tier'", "pod/other service/api node/gke-1 node/gke-2 node/gke-3"),
        ("get no", "node/gke-1 node/gke-2 node/gke-3"),
        ("get nodes gke-2 -n shop", "node/gke-2"),
        ("get nodes gke-2 -A", "node/gke-2"),
        ("get node/gke-3 pod/db", "node/gke-3 pod/db"),
        ("get nodes -l zone=a", "node/gke-1"),
        ("get pods --sort-by metadata.name", "pod/db pod/web-9 pod/web-10"),
        ("get pods --sort-by={.status.podIP}", "pod/db pod/web-10 pod/web-9"),
        ("get pods --sort-by .metadata.creationTimestamp", "pod/db pod/web-10 pod/web-9"),
        ("get svc --sort-by .spec.ports[0].port", "service/web service/api"),
        ("get pods -n none --sort-by .metadata.name", ""),
    ],
)  # fmt: skip
def test_selected_objects(shown: Shown, command: str, out: str) -> None:
    assert run(shown, f"{command} -o name") == (0, "".join(f"{each}\n" for each in out.split()), "")


@cases(
    """
    command                                  status  err
    get pods -l app=none                     0       No pods found in namespace default.
    get all -n none                          0       No resources found in namespace none.
    get nodes -l app=none                    0       No nodes found.
    get nodes,pods -n none -l x              0       No nodes or pods found in namespace none.
    get node gke-4                           1       kproxy: nodes 'gke-4' not found.
    get pods -l app=                         0       No pods found in namespace default.
    get pods -l 'app in web'                 2       kproxy: --selector: 'app in web' is not KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (VALUE, ...) or KEY notin (VALUE, ...).
    get pods --sort-by .none                 1       kproxy: --sort-by: no object has .none.
    get pods --sort-by '{'                   2       kproxy: JSONPath '{' is not one path, such as .metadata.name.
    get pods -o jsonpath='{.items[0'         2       kproxy: JSONPath '{.items[0', character 10: expected ']'.
    get pods -o jsonpath='{.items[9].kind}'  1       kproxy: JSONPath '{.items[9].kind}', character 9: index 9 is out of bounds: the list has 3 items.
    get pods -o custom-columns=NAME          2       kproxy: -o custom-columns: 'NAME' is not HEADER:PATH.
    """,
    status=int,
)
def test_messages_and_exit_status(shown: Shown, command: str, status: int, err: str) -> None:
    assert run(shown, command) == (status, "", f"{err}\n")


# --- tables ---

TABLES = [
    ("get nodes", """
NAME    STATUS                        ROLES    AGE         VERSION
gke-1   Ready                         worker   <unknown>   v1.16.13
gke-2   NotReady,SchedulingDisabled   <none>   <unknown>   <unknown>
gke-3   Unknown                       db       <unknown>   <unknown>
"""),
    ("get nodes gke-1 gke-2 -o wide --no-headers", """
gke-1   Ready                         worker   <unknown>   v1.16.13    10.140.0.2   35.234.11.33    Container-Optimized OS   4.19.112+   docker://19.3.1
gke-2   NotReady,SchedulingDisabled   <none>   <unknown>   <unknown>   <none>       35.234.27.130   <unknown>                <unknown>   <unknown>
"""),
    ("get nodes -A -l zone --show-labels", """
NAME    STATUS   ROLES    AGE         VERSION    LABELS
gke-1   Ready    worker   <unknown>   v1.16.13   node-role.kubernetes.io/worker=,zone=a
"""),
    ("get pods -A --no-headers -l app!=web", """
default   db      0/1     <unknown>   <unknown>   <unknown>
shop      other   False   Pending     <unknown>   <unknown>
"""),
    ("get all -l app!=db --no-headers", """
pod/web-10   1/1   <unknown>   <unknown>   <AGE>
pod/web-9    1/1   <unknown>   <unknown>   <AGE>

service/api   ClusterIP   10.66.0.10   <none>   8080/TCP,443/TCP   <unknown>
service/web   ClusterIP   10.66.0.2    <none>   80/TCP             <unknown>
"""),
    ("get ep", """
NAME   ENDPOINTS                  AGE
web    10.0.1.9:80,10.0.1.10:80   <unknown>
"""),
    ("get svc -o custom-columns=NAME:.metadata.name,PORTS:.spec.ports[*].port,LABELS:.metadata.labels", """
NAME   PORTS      LABELS
api    8080,443   <none>
web    80         map[rev:2 tier:front]
"""),
    ("get svc,node -o custom-columns=N:.kind,A:.metadata.annotations --no-headers", """
Service   <none>
Service   <none>
Node      map[note:x]
Node      <none>
Node      <none>
"""),
    ("get pods -n none -o custom-columns=A:.a,NAME:.metadata.name", """
A     NAME
"""),
]  # fmt: skip


def columns(text: str) -> list[str]:
    """Return the lines without the widths of columns, because ages change."""
    return [" ".join(line.split()) for line in text.strip("\n").splitlines()]


@pytest.mark.parametrize(("command", "expected"), TABLES, ids=[command for command, _ in TABLES])
def test_tables(shown: Shown, command: str, expected: str) -> None:
    status, out, err = run(shown, command)
    assert (status, err) == (0, "")
    if "<AGE>" in expected:
        out = "\n".join(
            line.rsplit(" ", 1)[0] + " <AGE>" if "web-" in line else line for line in out.splitlines()
        )
    assert columns(out) == columns(expected)


def test_columns_have_a_minimum_width_and_a_gap_of_three(shown: Shown) -> None:
    """kubectl's tabwriter does the same."""
    command = "get svc -o custom-columns=N:.none[0],NAME:.metadata.name,P:.spec.ports[0].port,K:.kind"
    assert run(shown, command)[1].splitlines() == [
        "N        NAME   P      K",
        "<none>   api    8080   Service",
        "<none>   web    80     Service",
    ]
    assert (
        run(shown, "get svc -o custom-columns=P:.spec.ports[0].none[0:0],N:.metadata.name")[1].splitlines()[0]
        == "P        N"
    )


# --- order of endpoints ---


ENDPOINTS = [service("web", clusterIP="10.66.0.2", ports=[{"port": 80}])]
SLICES = [
    *ENDPOINTS,
    slice_of("web", "10.0.0.10", "10.0.0.2", own_name="web-a"),
    slice_of("web", "10.0.0.9", own_name="web-b"),
]
LEGACY = [
    *ENDPOINTS,
    manifest(
        "Endpoints",
        subsets=[{"addresses": [{"ip": "10.0.0.10"}, {"ip": "10.0.0.2"}], "ports": [{"port": 8080}]}],
    ),
]
PODS = [
    service("web", **WEB),
    pod("a", "10.0.0.10", app="web"),
    pod("b", "10.0.0.9", app="web"),
    pod("c", "10.0.0.2", app="web", ready=False),
]


@pytest.mark.parametrize(
    ("objects", "command", "line"),
    [
        (SLICES, "get ep web", "web 10.0.0.2:8080,10.0.0.9:8080,10.0.0.10:8080 <unknown>"),
        (SLICES, "describe ep web", "Addresses: 10.0.0.2,10.0.0.9,10.0.0.10"),
        (SLICES, "describe svc web", "Endpoints: 10.0.0.2:8080,10.0.0.9:8080,10.0.0.10:8080"),
        (SLICES, "get endpointslices web-a", "web-a IPv4 8080 10.0.0.10,10.0.0.2 <unknown>"),
        (LEGACY, "get ep web", "web 10.0.0.10:8080,10.0.0.2:8080 <unknown>"),
        (LEGACY, "describe svc web", "Endpoints: 10.0.0.10:8080,10.0.0.2:8080"),
        (PODS, "get ep web", "web 10.0.0.9:80,10.0.0.10:80 <unknown>"),
        (PODS, "describe ep web", "Addresses: 10.0.0.9,10.0.0.10"),
        (PODS, "describe svc web", "Endpoints: 10.0.0.9:80,10.0.0.10:80"),
    ],
)  # fmt: skip
def test_endpoints_are_sorted_by_address(
    shown: Shown, objects: list[dict[str, Any]], command: str, line: str
) -> None:
    assert line in columns(run(shown, command, *objects)[1])


# --- describe ---

TERMINATING = {
    "conditions": {"ready": False, "serving": True, "terminating": True},
    "nodeName": "n1",
    "targetRef": {"kind": "Pod", "name": "web-1"},
    "hints": {"forZones": [{"name": "a"}]},
}
SLICE = """
Name:         web-b
Namespace:    default
Labels:       kubernetes.io/service-name=web
              zone=a
Annotations:  note: x
AddressType:  IPv4
Ports:
  Name     Port  Protocol
  ----     ----  --------
  <unset>  8080  TCP
Endpoints:
  - Addresses:  10.0.0.9
    Conditions:
      Ready:   true
    NodeName:  <unset>
  - Addresses:  10.0.0.10
    Conditions:
      Ready:        false
      Serving:      true
      Terminating:  true
    TargetRef:      Pod/web-1
    NodeName:       n1
    ForZones:       a
Problems:
  <none>
"""
NODE = """
Name:               gke-1
Roles:              worker
Labels:             node-role.kubernetes.io/worker=
                    zone=a
Annotations:        note: x
CreationTimestamp:  <unknown>
Taints:             db=1:NoSchedule
Unschedulable:      false
Conditions:
  Type   Status
  ----   ------
  Ready  True
Addresses:
  InternalIP:  10.140.0.2
  ExternalIP:  35.234.11.33
System Info:
  Kernel Version:             4.19.112+
  OS Image:                   Container-Optimized OS
  Container Runtime Version:  docker://19.3.1
  Kubelet Version:            v1.16.13
PodCIDR:   10.0.0.0/24
PodCIDRs:  10.0.0.0/24
Problems:
  <none>
"""


def test_an_endpointslice(shown: Shown) -> None:
    given = slice_of("web", "10.0.0.9", own_name="web-b")
    given["metadata"] |= {"annotations": {"note": "x"}, "labels": given["metadata"]["labels"] | {"zone": "a"}}
    given["endpoints"].append({"addresses": ["10.0.0.10"], **TERMINATING})
    assert run(shown, "describe endpointslice web-b", given, *ENDPOINTS) == (0, SLICE.lstrip("\n"), "")


def test_an_empty_endpointslice(shown: Shown) -> None:
    given = slice_of(own_name="web-b", ports=None)
    assert "Ports: <unset>\nEndpoints: <none>\n" in run(shown, "describe endpointslices", given)[1]


def test_a_node(shown: Shown) -> None:
    assert run(shown, "describe node gke-1", *NODES) == (0, NODE.lstrip("\n"), "")


def test_describing_objects_with_a_label(shown: Shown) -> None:
    out = run(shown, "describe pods -l app=web")[1]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("Name:")] == ["web-10", "web-9"]


LONG = "x" * 150
ANNOTATIONS = {
    "b": "two\nlines\n",
    "a": "1",
    "long": LONG,
    "kubectl.kubernetes.io/last-applied-configuration": "{}",
}
ANNOTATED = """
Labels:                   a=1
                          b=2
Annotations:              a: 1
                          b:
                            two
                            lines
                          long:
                            {cut}...
Selector:                 app=web
"""


@pytest.mark.parametrize("kind", ["svc", "pod", "endpointslice", "ep", "ingress", "node"])
def test_annotations(shown: Shown, kind: str) -> None:
    metadata = {"annotations": {"note": "x"}}
    given: dict[str, dict[str, Any]] = {
        "svc": service("web", **WEB),
        "pod": pod("web", "10.0.0.9"),
        "endpointslice": slice_of("web", "10.0.0.9"),
        "ep": manifest("Endpoints", subsets=[]),
        "ingress": manifest("Ingress", spec={"defaultBackend": {"resource": {"kind": "A", "name": "b"}}}) | {"apiVersion": "networking.k8s.io/v1"},
        "node": manifest("Node", "web"),
    }  # fmt: skip
    given[kind]["metadata"] |= metadata
    assert "Annotations: note: x" in columns(run(shown, f"describe {kind} web", given[kind])[1])
    out = run(shown, f"get {kind} web -o jsonpath='{{.metadata.annotations}}'", given[kind])[1]
    assert out == '{"note":"x"}'


def test_long_annotations(shown: Shown) -> None:
    given = service("web", **WEB)
    given["metadata"] |= {"annotations": ANNOTATIONS, "labels": {"b": "2", "a": "1"}}
    assert ANNOTATED.format(cut="x" * 135) in run(shown, "describe svc web", given)[1]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_printed_node_decodes_to_the_same_node(shown: Shown, form: str) -> None:
    leaving = manifest("Node", "gke-4", metadata={"deletionTimestamp": "2026-01-05T09:30:00Z"})
    given = [*NODES, leaving]
    before = decoded(yaml.safe_dump_all(given)).state.nodes
    status, out, err = run(shown, f"get nodes -o {form}", *given)
    assert (status, err) == (0, "")
    again = decoded(out)
    assert (again.problems, again.state.nodes) == ([], before)

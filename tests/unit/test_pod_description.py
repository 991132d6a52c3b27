"""The output of `kproxy describe pod`, with and without results of probes."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from kproxy.model import Bridge, Event, Family
from kproxy.probes.core.readiness import ContainerReadiness, PodReadiness, with_readiness
from kproxy.show.describe.context import Context
from kproxy.show.describe.pod import HAIRPIN, describe_pod
from kproxy.show.snapshot import Snapshot, encode
from kproxy.show.snapshot import decode as decode_snapshot
from kproxy.table.skeleton import Options
from tests.unit.make import NODE, decoded, inventory_of, manifest, name, service, slice_of

NOW = 1_000_000.0
LS = {"exec": {"command": ["ls", "/var/ready"]}}
GONE = "Readiness probe failed: ls: cannot access '/var/ready': No such file or directory"
PORTS = [{"containerPort": 8080, "name": "http"}]
WEB = {"name": "kubia", "image": "kubia:v0.4", "ports": PORTS, "readinessProbe": LS}


def pod(*containers: dict[str, Any], status: Any = None, **spec: Any) -> dict[str, Any]:
    given = {"podIP": "10.0.0.1", "phase": "Running", **(status or {})}
    labels = {"labels": {"app": "kubia"}}
    content = {"containers": list(containers or (WEB,)), "nodeName": "n1", **spec}
    return manifest("Pod", "kubia-m7xnj", metadata=labels, spec=content, status=given)


def described(*objects: dict[str, Any], found: PodReadiness | None = None, probing: bool = True) -> str:
    """Describe the pod among these objects. `probing`: whether kproxy runs and probes it."""
    result = decoded("\n---\n".join(map(json.dumps, objects)))
    statuses = {name("kubia-m7xnj"): found} if found else {}
    result = replace(result, state=with_readiness(result.state, statuses))
    inventory = replace(inventory_of(result), readiness=statuses if probing else None)
    context = Context(Snapshot(inventory, [], result.problems, NODE), NOW)
    (own,) = context.objects.pods
    return describe_pod(own, context)


@pytest.mark.parametrize(
    ("filtered", "spec", "expected"),
    [
        ((), {}, "Bridge:       br0\n"),
        ((Family.IPV6,), {}, "Bridge:       br0\n"),
        ((Family.IPV4,), {}, f"Bridge:       br0 ({HAIRPIN})\n"),
        ((), {"hostNetwork": True}, ""),
    ],
)
def test_the_bridge_of_a_pod(filtered: tuple[Family, ...], spec: dict[str, Any], expected: str) -> None:
    bridges = (
        Bridge("br0", (ip_network("10.0.0.0/24"),), filtered),
        Bridge("br1", (ip_network("10.1.0.0/24"),)),
    )
    inventory = inventory_of(decoded(json.dumps(pod(**spec))))
    snapshot = Snapshot(inventory, [], [], NODE, options=Options(bridges=bridges))
    context = Context(decode_snapshot(encode(snapshot)), NOW)
    text = describe_pod(context.objects.pods[0], context)
    assert [line for line in text.splitlines(True) if line.startswith("Bridge:")] == [expected] * bool(
        expected
    )


def failing(*events: Event) -> PodReadiness:
    return PodReadiness(False, (ContainerReadiness("kubia", False, -9, events),))


WHOLE = f"""\
Name:         kubia-m7xnj
Namespace:    default
Labels:       app=kubia
Annotations:  <none>
Node:         n1
Status:       Running
IP:           10.0.0.1
IPs:          10.0.0.1
Containers:
  kubia:
    Image:      kubia:v0.4
    Port:       8080/TCP (http)
    Ready:      False
    Readiness:  exec [ls /var/ready] delay=0s timeout=1s period=10s #success=1 #failure=3
Conditions:
  Type   Status
  ----   ------
  Ready  False
Services:
  kubia      not an endpoint: not ready
  kubia-all  10.0.0.1:8080
Events:
  Type     Reason     Age                 From    Message
  ----     ------     ---                 ----    -------
  Warning  Unhealthy  98s (x61 over 11m)  kproxy  {GONE}
Problems:
  <none>
"""


TO_HTTP = {"selector": {"app": "kubia"}, "ports": [{"port": 80, "targetPort": 8080}]}
TO_WEB: dict[str, Any] = {"ports": [{"port": 80, "targetPort": "web"}]}
NO_PORT = "kubia  not an endpoint: no port with that name, or no address of the Service's families"
ELSEWHERE = manifest("Service", "kubia", metadata={"namespace": "x"}, spec=TO_HTTP)


def selecting(own: str = "kubia", **spec: Any) -> dict[str, Any]:
    return service(own, **{**TO_HTTP, **spec})


def test_a_pod_that_fails_its_probe() -> None:
    found = failing(Event("Unhealthy", GONE, 61, NOW - 11 * 60, NOW - 98))
    services = [selecting(), selecting("kubia-all", publishNotReadyAddresses=True), service("other")]
    assert described(pod(), *services, found=found) == WHOLE


def section(text: str, title: str) -> list[str]:
    """Return the lines of a section."""
    lines = text.replace(f"{title}:  ", f"{title}:\n  ").splitlines()
    rest = lines[lines.index(f"{title}:") + 1 :]
    return [line.strip() for line in rest[: next((i for i, r in enumerate(rest) if r[0] != " "), None)]]


def test_a_pod_that_passes() -> None:
    found = PodReadiness(True, (ContainerReadiness("kubia", True, 5),))
    text = described(pod(), selecting(), found=found)
    assert section(text, "Conditions")[-1].split() == ["Ready", "True"]
    assert section(text, "Services") == ["kubia  10.0.0.1:8080"]
    assert section(text, "Events") == ["<none>"]


@pytest.mark.parametrize(
    ("given", "probing", "events"),
    [
        (pod(), False, "not probed: kproxy is not running"),
        (pod(nodeName="n2"), True, "not probed by node n1: the pod is on node n2"),
        (pod({"name": "a"}), False, "<none>"),
        (pod({"name": "a", "readinessProbe": {"grpc": {"port": 9}}}), False, "<none>"),
    ],
)
def test_why_a_pod_is_not_probed(given: dict[str, Any], probing: bool, events: str) -> None:
    assert section(described(given, probing=probing), "Events") == [events]


def test_events_are_sorted_by_their_last_time() -> None:
    first, second = (ContainerReadiness(own, False, -1, (event,)) for own, event in (
        ("a", Event("Unhealthy", "later", 1, NOW - 5, NOW - 5)),
        ("b", Event("ProbeWarning", "earlier", 2, NOW - 600, NOW - 60)),
    ))  # fmt: skip
    lines = section(described(pod(), found=PodReadiness(False, (first, second))), "Events")[2:]
    assert [line.split(maxsplit=2)[1:] for line in lines] == [
        ["ProbeWarning", "60s (x2 over 10m)  kproxy  earlier"],
        ["Unhealthy", "5s                 kproxy  later"],
    ]


SECOND = {"name": "side", "readinessProbe": {"grpc": {"port": 9000, "service": "s"}}}


def test_each_container_has_its_own_readiness() -> None:
    text = described(pod(WEB, SECOND, {"name": "plain"}), found=failing())
    ready = [line.split()[-1] for line in section(text, "Containers") if line.startswith("Ready:")]
    assert ready == ["False", "True", "True"]
    assert "grpc <pod>:9000 s delay=0s timeout=1s period=10s #success=1 #failure=3 (not supported" in text


@pytest.mark.parametrize(
    ("containers", "status", "ready"),
    [
        ([WEB], "True", ["True"]),
        ([WEB], "False", ["False"]),
        ([WEB, SECOND], "True", ["True", "True"]),
        ([WEB, SECOND], "False", ["<unknown>", "<unknown>"]),
    ],
)
def test_containers_without_probe_results_follow_their_pod(
    containers: list[dict[str, Any]], status: str, ready: list[str]
) -> None:
    given = pod(*containers, status={"conditions": [{"type": "Ready", "status": status}]})
    lines = section(described(given, probing=False), "Containers")
    assert [line.split()[-1] for line in lines if line.startswith("Ready:")] == ready


@pytest.mark.parametrize(
    ("given", "chosen", "row"),
    [
        (pod(), selecting(), "kubia  10.0.0.1:8080"),
        (pod(), selecting(clusterIP="None", ports=[]), "kubia  10.0.0.1"),
        (pod(status={"podIP": None}), selecting(), "kubia  not an endpoint: no address"),
        (pod(), selecting(type="ExternalName", externalName="x.org"), "<none>"),
        (pod(), ELSEWHERE, "<none>"),
        (pod(), service("kubia", selector={"app": "x"}), "<none>"),
        (pod(), selecting(**TO_WEB), NO_PORT),
    ],
)  # fmt: skip
def test_the_services_of_a_pod(given: dict[str, Any], chosen: dict[str, Any], row: str) -> None:
    assert section(described(given, chosen), "Services") == [row]


def test_a_pod_that_terminates() -> None:
    given = pod()
    given["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    text = described(given, selecting())
    assert "Status:       Terminating\n" in text
    assert section(text, "Services") == [
        "kubia  not an endpoint: terminating; used only if no other pod is ready"
    ]


def test_endpoints_in_the_input_may_refer_to_the_pod() -> None:
    endpoint = {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "kubia-m7xnj"}}
    given = slice_of("kubia", endpoints=[endpoint])
    assert section(described(pod(), service("kubia"), given), "Services") == ["kubia  10.0.0.1:8080"]

"""Containers as pods: what an engine says, and the pods that kproxy sees, as rows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from kproxy.decode import Decoded, Document, decode
from kproxy.model import (
    EndpointPort,
    NamespacedName,
    Pod,
    Probe,
    ProbePort,
    Protocol,
    TCPSocketAction,
    format_address,
)
from kproxy.sources.engines.core.answers import Event, Inspected, Member
from kproxy.sources.engines.core.merge import together, with_found_pods
from kproxy.sources.engines.core.pods import PORTS_LABEL, PROBE_LABEL, Choice, PodManifests
from kproxy.sources.engines.core.streams import Streams
from tests.unit.make import manifest

CHOICE = Choice("podman", "n1")


def container(name: str = "web-1", /, **changes: Any) -> dict[str, Any]:
    """Return the answer to an inspection. `changes` are by the paths of fields: `State__Status="paused"`."""
    answer: dict[str, Any] = {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Created": "2026-01-01T00:00:00.123456789Z",
        "RestartCount": 2,
        "State": {"Status": "running", "Health": None},
        "Config": {"Labels": {"app": "web"}, "ExposedPorts": {"8080/tcp": {}}},
        "NetworkSettings": {
            "Networks": {"podman": {"IPAddress": "10.88.0.2", "GlobalIPv6Address": ""}},
            "Ports": {"8080/tcp": None},
        },
        "HostConfig": {"NetworkMode": "bridge"},
    }
    for path, value in changes.items():
        at = answer
        *keys, last = path.split("__")
        for key in keys:
            at = at[key]
        at[last] = value
    return answer


def networks(**addresses: tuple[str, str]) -> dict[str, dict[str, str]]:
    """Return networks with an IPv4 and an IPv6 address each."""
    return {n: {"IPAddress": v4, "GlobalIPv6Address": v6} for n, (v4, v6) in addresses.items()}


def pods(*answers: dict[str, Any], members: dict[str, Member] | None = None, **rest: Any) -> tuple[Pod, ...]:
    """Return the pods of containers, decoded as kproxy does. Everything must be valid."""
    found = [msgspec.convert(each, Inspected) for each in answers]
    choice = rest.get("choice", CHOICE)
    manifests = PodManifests(choice).of(found, members or {}, frozenset(rest.get("stopping", ())))
    decoded = decode(Document("podman", msgspec.Raw(each)) for each in manifests.values())
    assert decoded.problems == []
    return decoded.state.pods


def pod(*answers: dict[str, Any], **rest: Any) -> Pod:
    """Return the only pod."""
    (found,) = pods(*answers, **rest)
    return found


def test_a_container_is_a_pod() -> None:
    found = pod(container())
    assert found.name == NamespacedName("default", "web-1")
    assert (found.labels, found.node, found.uid) == ({"app": "web"}, "n1", "id-of-web-1")
    assert [format_address(address) for address in found.addresses] == ["10.88.0.2"]
    assert found.containers[0].ports == (EndpointPort("", Protocol.TCP, 8080),)
    assert (found.ready, found.terminating, found.phase, found.origin.source) == (
        True,
        False,
        "Running",
        "podman",
    )
    assert found.counts == (1, 1, 2)


@pytest.mark.parametrize(
    ("status", "health", "ready"),
    [
        ("running", None, True),
        ("running", {"Status": "none"}, True),
        ("running", {"Status": "healthy"}, True),
        ("running", {"Status": "starting"}, False),
        ("running", {"Status": "unhealthy"}, False),
        ("paused", None, False),
        ("stopping", None, False),
    ],
)
def test_ready_is_what_the_health_check_says(status: str, health: object, ready: bool) -> None:
    assert pod(container(State__Status=status, State__Health=health)).ready is ready


@pytest.mark.parametrize("status", ["created", "exited", "dead", "removing", "restarting", "initialized", ""])
def test_a_container_that_does_not_run_is_no_pod(status: str) -> None:
    assert pods(container(State__Status=status)) == ()


def test_a_container_that_was_told_to_stop_is_terminating() -> None:
    assert pod(container(State__Status="stopping")).terminating
    assert pod(container(), stopping=["id-of-web-1"]).terminating


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web_1", "web-1"),
        ("Shop.Web--1_", "shop.web--1"),
        ("a/b", "a-b"),
        ("a..b_.c", "a.b.c"),
        ("x" * 300, "x" * 253),
    ],
)
def test_a_name_becomes_one_that_a_pod_can_have(name: str, expected: str) -> None:
    assert pod(container(name)).name.name == expected


def test_the_namespace_and_names_of_ports_come_from_labels() -> None:
    labels = {"kproxy.io/namespace": "shop", "kproxy.io/ports": "http=8080, dns=53/udp, alt=81,"}
    found = pod(container(Config__Labels=labels, Config__ExposedPorts={"53/udp": {}, "9/tcp": {}, "x": {}}))
    assert found.name.namespace == "shop"
    assert {(port.name, port.port, port.protocol) for port in found.containers[0].ports} == {
        ("dns", 53, "udp"),
        ("", 9, "tcp"),
        ("http", 8080, "tcp"),
        ("alt", 81, "tcp"),
    }


def test_labels_that_kubernetes_does_not_allow_are_left_out() -> None:
    labels = {"a b": "x", "note": "two words", "com.example/part": "db", "long": "x" * 64, "empty": ""}
    assert pod(container(Config__Labels=labels)).labels == {"com.example/part": "db", "empty": ""}


@pytest.mark.parametrize(
    ("attached", "network", "expected"),
    [
        (networks(a=("10.1.0.2", "fd00::2")), "", ["10.1.0.2", "fd00::2"]),
        (networks(b=("10.2.0.2", ""), a=("10.1.0.2", "")), "", ["10.1.0.2"]),
        (networks(b=("10.2.0.2", ""), a=("10.1.0.2", "")), "b", ["10.2.0.2"]),
        (networks(a=("10.1.0.2", ""), b=("", "fd00::2")), "", ["10.1.0.2", "fd00::2"]),
        (networks(a=("10.1.0.2", "")), "c", []),
        (None, "", []),
    ],
)
def test_addresses_come_from_the_networks(attached: object, network: str, expected: list[str]) -> None:
    found = pod(container(NetworkSettings__Networks=attached), choice=CHOICE._replace(network=network))
    assert [format_address(address) for address in found.addresses] == expected


def test_a_container_in_the_network_of_the_host_has_the_addresses_of_the_node() -> None:
    found = pod(container(HostConfig__NetworkMode="host"))
    assert (found.host_network, found.addresses) == (True, ())


def test_the_containers_of_a_pod_of_podman_are_one_pod() -> None:
    infra = container("p-infra", Config__Labels=None, Config__ExposedPorts=None)
    web = container("p-web", NetworkSettings__Networks=networks(podman=("10.88.0.2", "")))
    sidecar = container(
        "p-log",
        State__Health={"Status": "unhealthy"},
        NetworkSettings__Networks=None,
        Config__ExposedPorts={"9/tcp": {}},
    )
    members = {
        f"id-of-p-{n}": Member(f"id-of-p-{n}", "p1", "shop", n == "infra") for n in ("infra", "web", "log")
    }
    found = pod(infra, web, sidecar, members=members)
    assert (found.name.name, found.uid, found.ready) == ("shop", "p1", False)
    assert [each.name for each in found.containers] == ["p-web", "p-log"]
    assert found.counts == (1, 2, 4)
    assert pods(infra, members=members) == ()


def test_a_manifest_is_made_again_only_if_its_container_is_another_object() -> None:
    manifests = PodManifests(CHOICE)
    first, second = (msgspec.convert(container(name), Inspected) for name in ("a", "b"))
    before = manifests.of([first, second], {}, frozenset())
    after = manifests.of([second, msgspec.convert(container("a"), Inspected)], {}, frozenset())
    assert list(after.items()) == list(before.items())
    assert [after[each.id] is before[each.id] for each in (first, second)] == [False, True]
    stopping = manifests.of([first, second], {}, frozenset({second.id}))
    assert b"deletionTimestamp" in stopping[second.id]
    assert manifests.of([second], {}, frozenset()) == {second.id: before[second.id]}


def test_of_two_containers_with_one_name_the_first_counts() -> None:
    found = [msgspec.convert(container(name), Inspected) for name in ("web_1", "web-1")]
    made = PodManifests(CHOICE).of(found, {}, frozenset())
    decoded = together("podman", (decode([Document("podman", msgspec.Raw(each))]) for each in made.values()))
    assert [pod.uid for pod in decoded.state.pods] == ["id-of-web_1"]
    assert [problem.object for problem in decoded.problems] == ["Pod default/web-1"]


def test_absent_and_null_fields_have_defaults() -> None:
    bare = {"Id": "1", "Name": "/x", "Created": "2026-01-01T00:00:00Z", "State": {"Status": "running"}}
    assert (pod(bare).addresses, pod(bare).labels) == ((), {})


def test_a_written_pod_wins_over_a_found_one() -> None:
    def decoded(*objects: dict[str, Any]) -> Decoded:
        return decode(Document("x", each) for each in objects)

    written = decoded(manifest("Pod", "a", status={"podIP": "10.0.0.1"}))
    found = decoded(manifest("Pod", "a", status={"podIP": "10.0.0.2"}), manifest("Pod", "b"))
    merged = {pod.name.name: pod for pod in with_found_pods(written, [found]).state.pods}
    assert merged.keys() == {"a", "b"}
    assert [format_address(address) for address in merged["a"].addresses] == ["10.0.0.1"]


PROBE = {"tcpSocket": {"port": 8080}}
WRITTEN = {"spec": {"containers": [{"name": "main", "readinessProbe": PROBE}]}}


def merged_pods(written: dict[str, Any], *answers: dict[str, Any]) -> dict[str, Pod]:
    """Return the pods by name, if there is this manifest and these containers."""
    found = replace(decode([]), state=replace(decode([]).state, pods=pods(*answers)))
    return {
        pod.name.name: pod for pod in with_found_pods(decode([Document("f", written)]), [found]).state.pods
    }


@pytest.mark.parametrize(
    ("name", "annotations"),
    [
        ("web-1", {}),
        ("db", {"kproxy.io/container": "web-1"}),
        ("db", {"kproxy.io/container": "podman web-1"}),
    ],
)
def test_a_written_pod_may_describe_a_container(name: str, annotations: dict[str, str]) -> None:
    pod = manifest("Pod", name, metadata={"labels": {"app": "db"}, "annotations": annotations}, **WRITTEN)
    found = merged_pods(pod, container("web-1"), container("other"))
    assert found.keys() == {name, "other"}
    assert [format_address(address) for address in found[name].addresses] == ["10.88.0.2"]
    assert (found[name].labels, found[name].node, found[name].ready) == ({"app": "db"}, "n1", True)
    assert [(each.name, each.identifier) for each in found[name].containers] == [
        ("main", "podman://id-of-web-1")
    ]
    assert found[name].gates_open


@pytest.mark.parametrize("rest", [{"status": {"podIP": "10.0.0.1"}}, {"spec": {"hostNetwork": True}}])
def test_another_written_pod_does_not(rest: dict[str, Any]) -> None:
    pod = manifest("Pod", "db", metadata={"annotations": {"kproxy.io/container": "web-1"}}, **rest)
    found = merged_pods(pod, container("web-1"))
    assert found.keys() == {"db", "web-1"}
    assert found["db"].node == ""


def test_without_its_container_a_written_pod_has_no_address() -> None:
    found = merged_pods(manifest("Pod", "web-1", **WRITTEN), container("other"))
    assert found["web-1"].addresses == ()
    stopped = merged_pods(manifest("Pod", "web-1", **WRITTEN), container("web-1", State__Status="paused"))
    assert (stopped["web-1"].ready, stopped["web-1"].gates_open) == (False, False)


def test_a_number_that_is_no_port_is_left_out() -> None:
    long = "9" * 5000
    found = pod(
        container(
            Config__Labels={"kproxy.io/ports": "http=8080"},
            Config__ExposedPorts={f"{long}/tcp": {}},
        )
    )
    assert found.containers[0].ports == (EndpointPort("http", Protocol.TCP, 8080),)


def test_a_label_is_a_readiness_probe() -> None:
    label = {"kproxy.io/readiness-probe": msgspec.json.encode(PROBE).decode()}
    found = pod(container(Config__Labels=label))
    assert found.containers[0].probe == Probe(TCPSocketAction(ProbePort(8080, 8080)))
    assert (found.containers[0].identifier, found.gates_open) == ("podman://id-of-web-1", True)
    unhealthy = pod(container(Config__Labels=label, State__Health={"Status": "unhealthy"}))
    assert not unhealthy.gates_open


@pytest.mark.parametrize(
    ("label", "text", "field", "message"),
    [
        (PROBE_LABEL, "tcp:8080", "readinessProbe", 'expected an object, got "tcp:8080"'),
        (PROBE_LABEL, "{}", "readinessProbe", "must have exactly one of exec, httpGet, tcpSocket, grpc"),
        (PROBE_LABEL, "[" * 100_000, "readinessProbe", "expected an object, got"),
        *(
            (PROBE_LABEL, "[" * levels + "]" * levels, "readinessProbe", "expected an object, got")
            for levels in (400, 600, 990, 1000)
        ),
        (PORTS_LABEL, "http=eighty", "ports[0].containerPort", 'expected a number, got "http=eighty"'),
        (PORTS_LABEL, "a=81, 8080", "ports[1].containerPort", 'expected a number, got "8080"'),
        (PORTS_LABEL, f"a={'9' * 5000}", "ports[0].containerPort", "expected a number, got"),
        (PORTS_LABEL, "http=0", "ports[0].containerPort", "0 is not a port (1-65535)"),
        (PORTS_LABEL, "http=80/tpc", "ports[0].protocol", "'TPC' is not"),
    ],
)
def test_a_wrong_label_is_a_problem_of_the_pod(label: str, text: str, field: str, message: str) -> None:
    answer = container(Config__Labels={label: text})
    made = PodManifests(CHOICE).of([msgspec.convert(answer, Inspected)], {}, frozenset())
    (problem,) = decode(Document("podman", msgspec.Raw(each)) for each in made.values()).problems
    assert (problem.object, problem.field) == ("Pod default/web-1", f"spec.containers[0].{field}")
    assert message in problem.message


FRAMES = b"\1\0\0\0\0\0\0\3out" + b"\2\0\0\0\0\0\0\5error" + b"\1\0\0\0\0\0\0\0"


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_the_output_of_a_command_may_arrive_in_any_pieces(size: int) -> None:
    whole, short = Streams(100), Streams(5)
    for begin in range(0, len(FRAMES), size):
        whole.add(FRAMES[begin : begin + size])
        short.add(FRAMES[begin : begin + size])
    assert (bytes(whole.output), bytes(short.output)) == (b"outerror", b"outer")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"Type": "container", "Action": "start", "Actor": {"ID": "c1", "Attributes": {}}}, "c1"),
        ({"Type": "container", "Action": "health_status: healthy", "Actor": {"ID": "c1"}}, "c1"),
        ({"Type": "container", "Action": "exec_create: true", "Actor": {"ID": "c1"}}, ""),
        ({"Type": "container", "Action": "exec", "Actor": {"ID": "c1"}}, ""),
        (
            {"Type": "network", "Action": "connect", "Actor": {"ID": "n", "Attributes": {"container": "c2"}}},
            "c2",
        ),
        (
            {"Type": "network", "Action": "disconnect", "Actor": {"ID": "c3", "Attributes": {"name": "web"}}},
            "c3",
        ),
        ({"Type": "network", "Action": "create", "Actor": {"ID": "n", "Attributes": None}}, ""),
        ({}, ""),
    ],
)
def test_an_event_names_the_container_that_may_have_changed(event: dict[str, Any], expected: str) -> None:
    assert msgspec.convert(event, Event).container == expected


@pytest.mark.parametrize(
    ("signal", "stops"), [("15", True), ("SIGTERM", True), ("9", True), ("1", False), ("", False)]
)
def test_a_signal_that_ends_the_process_is_told(signal: str, stops: bool) -> None:
    event = {"Type": "container", "Action": "kill", "Actor": {"ID": "c", "Attributes": {"signal": signal}}}
    assert msgspec.convert(event, Event).stops is stops

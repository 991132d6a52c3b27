"""The readiness of containers and pods, from results of probes."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from kproxy import model
from kproxy.limits import PROBE_EVENTS
from kproxy.probes.core.readiness import (
    ContainerReadiness,
    PodReadiness,
    ProbeOutcome,
    ProbeResult,
    describe_probe,
    identity,
    observe,
    pod_readiness,
    probed_on,
    supported_probes,
    unsuccessful,
    unsupported_probes,
    with_readiness,
)
from tests.unit.make import decoded, manifest, name

LS = model.ExecAction(("ls", "/var/ready"))
OUTCOMES = {"+": ProbeOutcome.SUCCESS, "w": ProbeOutcome.WARNING, "-": ProbeOutcome.FAILURE}


def course(results: Iterable[str], ready: bool = False, /, **thresholds: int) -> str:
    """The readiness after each result: `r` or `.` (not ready)."""
    state, probe = ContainerReadiness("c", ready), model.Probe(LS, **thresholds)
    states = ""
    for now, result in enumerate(results):
        state = observe(state, probe, ProbeResult(OUTCOMES[result]), now)
        states += "r" if state.ready else "."
    return states


@pytest.mark.parametrize(
    ("results", "states", "thresholds"),
    [
        ("+", "r", {}),
        ("-", ".", {}),
        ("w", "r", {}),
        ("--+", "..r", {}),
        ("+--+", "rrrr", {}),
        ("+---+", "rrr.r", {}),
        ("+--w---", "rrrrrr.", {}),
        ("+-+-+-", "rrrrrr", {}),
        ("+----+", "rrr..r", {}),
        ("+-+", "r.r", {"failure_threshold": 1}),
        ("++", ".r", {"success_threshold": 2}),
        ("+-++", "...r", {"success_threshold": 2}),
        ("+w", ".r", {"success_threshold": 2}),
        ("++---+-++", ".rrr....r", {"success_threshold": 2}),
        ("+++-+-+++", "..r.....r", {"success_threshold": 3, "failure_threshold": 1}),
    ],
)
def test_readiness_after_each_result(results: str, states: str, thresholds: dict[str, int]) -> None:
    assert course(results, **thresholds) == states


def test_a_container_that_was_ready_before_a_restart() -> None:
    assert course("---", True) == "rr."
    assert course("-+", True, success_threshold=3) == "rr"


def failure(text: str) -> ProbeResult:
    return ProbeResult(ProbeOutcome.FAILURE, text)


def after(*results: ProbeResult) -> ContainerReadiness:
    """The state after these results, ten seconds apart."""
    state = ContainerReadiness("c")
    for index, result in enumerate(results):
        state = observe(state, model.Probe(LS), result, 1000.0 + 10 * index)
    return state


def test_the_same_failure_is_one_event() -> None:
    state = after(failure("gone\n"), ProbeResult(ProbeOutcome.SUCCESS, "fine"), failure("gone"))
    assert state.events == (model.Event("Unhealthy", "Readiness probe failed: gone", 2, 1000.0, 1020.0),)


def test_events_are_in_order_of_their_last_occurrence() -> None:
    state = after(failure("a"), failure("b"), failure("a"), ProbeResult(ProbeOutcome.WARNING, "moved"))
    assert [(event.reason, event.message, event.count) for event in state.events] == [
        ("Unhealthy", "Readiness probe failed: b", 1),
        ("Unhealthy", "Readiness probe failed: a", 2),
        ("ProbeWarning", "Readiness probe warning: moved", 1),
    ]


def test_a_probe_that_is_not_possible_says_nothing_about_the_pod() -> None:
    lacking = unsuccessful(OSError(errno.EMFILE, "Too many open files"), "connect: too many open files")
    assert lacking.outcome is ProbeOutcome.UNKNOWN
    assert unsuccessful(OSError(errno.ECONNREFUSED, "refused"), "").outcome is ProbeOutcome.FAILURE
    ready = ContainerReadiness("c", True, -1)
    found = observe(ready, model.Probe(LS, failure_threshold=2), lacking, 1000.0)
    assert (found.ready, found.streak) == (True, -1)
    assert [event.message for event in found.events] == [
        "Readiness probe is not possible: connect: too many open files"
    ]


def test_events_and_messages_are_limited() -> None:
    state = after(*(failure(f"{index} " + "x" * 100_000) for index in range(50)))
    assert len(state.events) == PROBE_EVENTS
    assert state.streak == -50
    assert sum(len(event.message) for event in state.events) < 5000


# --- pods ---


def pod(own: str = "web-1", *probes: dict[str, Any], status: Any = None, **rest: Any) -> model.Pod:
    """A Pod with a container c0 without a probe, and c1, c2... with these probes."""
    containers = [{"name": "c0"}] + [
        {"name": f"c{index}", "readinessProbe": probe} for index, probe in enumerate(probes, 1)
    ]
    spec = {"containers": containers, **rest.pop("spec", {})}
    content = manifest("Pod", own, spec=spec, status=status or {"podIP": "10.0.0.1"}, **rest)
    result = decoded(msgspec.json.encode(content).decode())
    assert result.problems == []
    return result.state.pods[0]


EXEC = {"exec": {"command": ["true"]}}
GRPC = {"grpc": {"port": 9000}}
UP, DOWN = ContainerReadiness("c1", True), ContainerReadiness("c2", False)
GATE = {"readinessGates": [{"conditionType": "lb"}]}


@pytest.mark.parametrize(
    ("made", "containers", "ready"),
    [
        (pod("p", EXEC), [UP], True),
        (pod("p", EXEC), [DOWN], False),
        (pod("p", EXEC, EXEC), [UP, DOWN], False),
        (pod("p", EXEC, EXEC), [UP, UP], True),
        (pod("p", EXEC, spec=GATE), [UP], False),
        (pod("p", EXEC, spec=GATE, status={"conditions": [{"type": "lb", "status": "True"}]}), [UP], True),
        (pod("p", EXEC, status={"conditions": [{"type": "Ready", "status": "False"}]}), [UP], True),
    ],
)
def test_a_pod_is_ready_if_all_its_containers_are(
    made: model.Pod, containers: list[ContainerReadiness], ready: bool
) -> None:
    assert pod_readiness(made, containers) == PodReadiness(ready, tuple(containers))


def test_readiness_replaces_that_of_the_manifest() -> None:
    text = """
{apiVersion: v1, kind: Pod, metadata: {name: probed}, spec: {containers: [{name: a}, {name: b}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other}}
"""
    state = decoded(text).state
    assert [p.ready for p in state.pods] == [True, True]
    found = with_readiness(state, {name("probed"): PodReadiness(False, (DOWN,))})
    assert [(p.ready, p.counts) for p in found.pods] == [(False, (1, 2, None)), (True, None)]
    assert found.services is state.services
    assert with_readiness(state, {}) is state


def test_restarts_are_taken_from_the_manifest() -> None:
    own = pod("p", EXEC, status={"containerStatuses": [{"ready": True, "restartCount": 4}]})
    state = decoded("").state
    state = msgspec.structs.replace(state, pods=(own,))
    (found,) = with_readiness(state, {own.name: PodReadiness(True, (UP,))}).pods
    assert found.counts == (2, 2, 4)


def test_which_pods_a_node_probes() -> None:
    pods = [
        pod("here", EXEC, spec={"nodeName": "n1"}),
        pod("anywhere", EXEC),
        pod("there", EXEC, spec={"nodeName": "n2"}),
        pod("unprobed"),
        pod("grpc", GRPC),
        pod("both", GRPC, EXEC),
    ]
    assert [found.name.name for found in probed_on(pods, "n1")] == ["here", "anywhere", "both"]
    assert [own for own, _ in supported_probes(pods[-1])] == ["c2"]
    assert [str(problem) for problem in unsupported_probes(pods)] == [
        f"in.yaml: Pod default/{own}: containers[c1].readinessProbe.grpc: "
        "is not supported; the container counts as ready"
        for own in ("grpc", "both")
    ]


SAME: list[dict[str, Any]] = [
    {"metadata": {"labels": {"a": "b"}}},
    {"status": {"podIP": "10.0.0.1", "phase": "Running"}},
    {"spec": {"nodeName": "n1"}},
]
OTHER: list[dict[str, Any]] = [
    {"metadata": {"uid": "1"}},
    {"metadata": {"namespace": "x"}},
    {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}},
    {"status": {"podIP": "10.0.0.2"}},
]


@pytest.mark.parametrize("rest", SAME)
def test_changes_that_keep_the_identity(rest: dict[str, Any]) -> None:
    assert identity(pod("p", EXEC, **rest)) == identity(pod("p", EXEC))


@pytest.mark.parametrize("rest", OTHER)
def test_changes_of_the_identity(rest: dict[str, Any]) -> None:
    assert identity(pod("p", EXEC, **rest)) != identity(pod("p", EXEC))


def test_another_probe_changes_the_identity() -> None:
    probes: list[dict[str, Any]] = [
        EXEC,
        {**EXEC, "periodSeconds": 9},
        {"exec": {"command": ["true", "x"]}},
        {"httpGet": {"port": 1}},
        {"tcpSocket": {"port": 1}},
    ]
    assert len({identity(pod("p", probe)) for probe in probes}) == len(probes)
    assert identity(pod("q", EXEC)) != identity(pod("p", EXEC))


def test_readiness_can_be_encoded_and_decoded() -> None:
    state = {name("x/y"): PodReadiness(False, (after(failure("a"), failure("b")),))}
    sent = msgspec.msgpack.encode([(*key, value) for key, value in state.items()])
    got = msgspec.msgpack.decode(sent, type=list[tuple[str, str, PodReadiness]])
    assert {model.NamespacedName(*key): value for *key, value in got} == state


# --- text ---


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (LS, "exec [ls /var/ready]"),
        (model.HTTPGetAction(model.ProbePort(8080, 8080), "/ready"), "http-get http://:8080/ready"),
        (model.HTTPGetAction(model.ProbePort("web", 8080)), "http-get http://:web/"),
        (
            model.HTTPGetAction(model.ProbePort(1, 1), "ready", "x.org", "HTTPS"),
            "http-get https://x.org:1/ready",
        ),
        (model.HTTPGetAction(model.ProbePort(1, 1), "/", "fd00::1"), "http-get http://[fd00::1]:1/"),
        (model.TCPSocketAction(model.ProbePort(8080, 8080)), "tcp-socket :8080"),
        (model.TCPSocketAction(model.ProbePort("web", 0), "10.0.0.1"), "tcp-socket 10.0.0.1:web"),
        (model.GRPCAction(9000, "s"), "grpc <pod>:9000 s"),
    ],
)
def test_probes_are_formatted_as_in_kubectl(action: Any, text: str) -> None:
    assert (
        describe_probe(model.Probe(action)) == f"{text} delay=0s timeout=1s period=10s #success=1 #failure=3"
    )


def test_format_of_the_numbers_of_a_probe() -> None:
    text = describe_probe(model.Probe(LS, 1, 2, 3, 4, 5))
    assert text == "exec [ls /var/ready] delay=1s timeout=3s period=2s #success=4 #failure=5"

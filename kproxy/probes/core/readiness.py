"""Whether pods are ready, by what their readiness probes found: the kubelet's rules, without a kubelet.

A container with a probe begins as not ready, and changes its mind after so many results in a
row as its thresholds say. A pod is ready while all its containers are, and the conditions
of its readiness gates are True; what its manifest says of Ready does not count. Pure:
results and the time come in (prober.py has both), a state comes out, and a state is plain
enough to be written down and to be shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kproxy.model import (
    ClusterState,
    ContainerCounts,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    NamespacedName,
    Pod,
    Probe,
    TCPSocketAction,
)
from kproxy.problems import Problem

EVENTS = 4
"""Events that are kept of a container, the last ones."""
MESSAGE = 1024
"""Characters of a message that are kept, as of an event in Kubernetes."""

NOT_PROBED = "not probed yet"


class ProbeOutcome(StrEnum):
    """How a probe went."""

    SUCCESS = "success"
    WARNING = "warning"
    """A success that is to be spoken of."""
    FAILURE = "failure"


class ProbeResult(NamedTuple):
    """What came of one probe."""

    outcome: ProbeOutcome
    message: str = ""
    hung: bool = False
    """It was given up at its timeout."""


class Event(Struct, frozen=True):
    """The same message, as often as it came; times in seconds of the Unix epoch."""

    reason: str
    """Unhealthy or ProbeWarning."""
    message: str
    count: int
    first: float
    last: float


class ContainerReadiness(Struct, frozen=True):
    """What is known of one container with a probe."""

    name: str
    ready: bool = False
    run: int = 0
    """How many probes in a row ended alike: passed, or, as a negative number, failed."""
    events: tuple[Event, ...] = ()
    """The one that came last is last."""


class PodReadiness(Struct, frozen=True):
    """What is known of one pod: its containers that have a probe, and what that makes of the pod."""

    ready: bool
    containers: tuple[ContainerReadiness, ...]


def observe(before: ContainerReadiness, probe: Probe, result: ProbeResult, now: float) -> ContainerReadiness:
    """The state after one more result."""
    events = before.events
    if result.outcome is not ProbeOutcome.SUCCESS:
        events = tuple(_with_event(events, result, now))
    if result.outcome is ProbeOutcome.FAILURE:
        run = min(before.run, 0) - 1
        ready = before.ready and -run < probe.failure_threshold
    else:
        run = max(before.run, 0) + 1
        ready = before.ready or run >= probe.success_threshold
    return ContainerReadiness(before.name, ready, run, events)


def _with_event(events: Iterable[Event], result: ProbeResult, now: float) -> list[Event]:
    failed = result.outcome is ProbeOutcome.FAILURE
    reason, verb = ("Unhealthy", "failed") if failed else ("ProbeWarning", "warning")
    text = "".join(c if c.isprintable() else " " for c in result.message[: 2 * MESSAGE].strip())
    message = f"Readiness probe {verb}: {text[:MESSAGE]}"
    same = [event for event in events if (event.reason, event.message) == (reason, message)]
    others = [event for event in events if event not in same]
    count, first = (same[0].count, same[0].first) if same else (0, now)
    return [*others, Event(reason, message, count + 1, first, now)][-EVENTS:]


def pod_readiness(pod: Pod, containers: Iterable[ContainerReadiness]) -> PodReadiness:
    """What `containers`, all those of the pod that can be probed, make of it."""
    members = tuple(containers)
    return PodReadiness(pod.gates_open and all(member.ready for member in members), members)


def why_not(found: PodReadiness) -> str:
    """Why a pod is not ready: what its probes said last."""
    waiting = [c for c in found.containers if not c.ready]
    if not waiting:
        return "a readiness gate is not True"
    said = dict.fromkeys(c.events[-1].message for c in waiting if c.events)
    return "; ".join(said) or NOT_PROBED


def can_be_probed(pod: Pod) -> Iterator[tuple[str, Probe]]:
    """Its probes but those by gRPC: these containers count as if they had none."""
    return ((name, probe) for name, probe in pod.probes if not isinstance(probe.action, GRPCAction))


def probed_on(pods: Iterable[Pod], node: str) -> list[Pod]:
    """The pods that this node probes: its own, and those of which nobody says where they are."""
    return [pod for pod in pods if pod.node in ("", node) and any(can_be_probed(pod))]


def not_probed(pods: Iterable[Pod]) -> list[Problem]:
    """The probes that kproxy cannot make, in order of the pods."""
    return [
        Problem(
            pod.origin.source,
            f"Pod {pod.name}",
            f"containers[{name}].readinessProbe.grpc",
            "is not supported: this container counts as ready",
        )
        for pod in pods
        for name, probe in pod.probes
        if isinstance(probe.action, GRPCAction)
    ]


def identity(pod: Pod) -> str:
    """Equal for two pods if what is known of one holds for the other: the same pod, probed alike."""
    parts = (pod.name, pod.uid, pod.origin.created, pod.addresses, pod.probes)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def with_readiness(state: ClusterState, statuses: Mapping[NamespacedName, PodReadiness]) -> ClusterState:
    """The state, its pods as ready as `statuses` says; pods that are not in it stay as they are."""
    if not statuses:
        return state
    return replace(state, pods=tuple(_as_found(pod, statuses.get(pod.name)) for pod in state.pods))


def _as_found(pod: Pod, found: PodReadiness | None) -> Pod:
    if found is None:
        return pod
    waiting = sum(not container.ready for container in found.containers)
    restarts = pod.counts.restarts if pod.counts else None
    counts = ContainerCounts(len(pod.containers) - waiting, len(pod.containers), restarts)
    return replace(pod, ready=found.ready, counts=counts)


def describe_probe(probe: Probe) -> str:
    """As kubectl writes it: `exec [ls /var/ready] delay=0s timeout=1s period=10s #success=1 #failure=3`."""
    numbers = f"delay={probe.initial_delay}s timeout={probe.timeout}s period={probe.period}s"
    thresholds = f"#success={probe.success_threshold} #failure={probe.failure_threshold}"
    return f"{_describe_action(probe)} {numbers} {thresholds}"


def _describe_action(probe: Probe) -> str:
    match probe.action:
        case ExecAction(command=command):
            return f"exec [{' '.join(command)}]"
        case HTTPGetAction(port=port, path=path, host=host, scheme=scheme):
            host = f"[{host}]" if ":" in host else host
            return f"http-get {scheme.lower()}://{host}:{port.name_or_number}/{path.removeprefix('/')}"
        case TCPSocketAction(port=port, host=host):
            return f"tcp-socket {host}:{port.name_or_number}"
        case GRPCAction(port=number, service=service):
            return f"grpc <pod>:{number} {service}"

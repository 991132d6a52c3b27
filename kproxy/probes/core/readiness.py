"""The readiness of pods, from the results of their probes, by the kubelet's rules.

A container with a probe starts as not ready. Its readiness changes after as many consecutive
results as its thresholds require. A pod is ready if all its containers are ready and the
conditions of all its readiness gates are True. The condition Ready in its manifest does not
count. Pure: prober.py provides the results and the time.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kproxy import model
from kproxy.limits import PROBE_EVENTS, PROBE_MESSAGE
from kproxy.problems import SHORTAGES, Problem

NOT_PROBED = "not probed yet"
LACKING = (*SHORTAGES, errno.EAGAIN)
"""The errors because of which a probe is not possible. EAGAIN: no process can be started."""


class ProbeOutcome(StrEnum):
    """The outcome of a probe."""

    SUCCESS = "success"
    WARNING = "warning"
    """A success with an event."""
    FAILURE = "failure"
    UNKNOWN = "unknown"
    """This node lacked files, memory or processes for the probe. That says nothing about the pod."""


class ProbeResult(Struct, frozen=True):
    """The result of one probe."""

    outcome: ProbeOutcome
    message: str = ""
    timed_out: bool = False


_WORDS = {
    ProbeOutcome.FAILURE: ("Unhealthy", "failed"),
    ProbeOutcome.UNKNOWN: ("ProbeError", "is not possible"),
    ProbeOutcome.WARNING: ("ProbeWarning", "warning"),
}
"""The reasons of events, and what their messages begin with."""


def unsuccessful(error: BaseException, message: str) -> ProbeResult:
    """Return the result of a probe that ended with an error: a failure, unless this node lacks something."""
    lacking = isinstance(error, OSError) and error.errno in LACKING
    return ProbeResult(ProbeOutcome.UNKNOWN if lacking else ProbeOutcome.FAILURE, message)


class ContainerReadiness(Struct, frozen=True):
    """The readiness of one container with a probe."""

    name: str
    ready: bool = False
    streak: int = 0
    """The number of consecutive successes; negative: of consecutive failures."""
    events: tuple[model.Event, ...] = ()
    """In order of their last occurrence."""


class PodReadiness(Struct, frozen=True):
    """The readiness of one pod, and of its containers that have a probe."""

    ready: bool
    containers: tuple[ContainerReadiness, ...]


def observe(
    before: ContainerReadiness, probe: model.Probe, result: ProbeResult, now: float
) -> ContainerReadiness:
    """Return the state after one more result at the time `now`."""
    events = before.events
    if result.outcome is not ProbeOutcome.SUCCESS:
        events = tuple(_with_event(events, result, now))
    streak, ready = before.streak, before.ready
    if result.outcome is ProbeOutcome.FAILURE:
        streak = min(before.streak, 0) - 1
        ready = before.ready and -streak < probe.failure_threshold
    elif result.outcome is not ProbeOutcome.UNKNOWN:
        streak = max(before.streak, 0) + 1
        ready = before.ready or streak >= probe.success_threshold
    return ContainerReadiness(before.name, ready, streak, events)


def _with_event(events: Iterable[model.Event], result: ProbeResult, now: float) -> list[model.Event]:
    reason, verb = _WORDS[result.outcome]
    text = "".join(c if c.isprintable() else " " for c in result.message[: 2 * PROBE_MESSAGE].strip())
    message = f"Readiness probe {verb}: {text[:PROBE_MESSAGE]}"
    same = [event for event in events if (event.reason, event.message) == (reason, message)]
    others = [event for event in events if event not in same]
    event = same[0].again(now) if same else model.Event(reason, message, 1, now, now)
    return [*others, event][-PROBE_EVENTS:]


def pod_readiness(pod: model.Pod, containers: Iterable[ContainerReadiness]) -> PodReadiness:
    """Return the readiness of a pod. `containers` are all its containers with a supported probe."""
    members = tuple(containers)
    return PodReadiness(pod.gates_open and all(member.ready for member in members), members)


def not_ready_reason(found: PodReadiness) -> str:
    """Return why a pod is not ready: the last messages of its probes."""
    waiting = [c for c in found.containers if not c.ready]
    if not waiting:
        return "a readiness gate is not True"
    messages = dict.fromkeys(c.events[-1].message for c in waiting if c.events)
    return "; ".join(messages) or NOT_PROBED


def supported_probes(pod: model.Pod) -> Iterator[tuple[str, model.Probe]]:
    """Yield the containers and their probes, except for gRPC probes, which kproxy does not support."""
    return ((name, probe) for name, probe in pod.probes if not isinstance(probe.action, model.GRPCAction))


def probed_on(pods: Iterable[model.Pod], node: str) -> list[model.Pod]:
    """Return the pods that this node probes: those with its name as nodeName, or without nodeName."""
    return [pod for pod in pods if pod.node in ("", node) and any(supported_probes(pod))]


def unsupported_probes(pods: Iterable[model.Pod]) -> list[Problem]:
    """Return a problem for each gRPC probe, in order of the pods."""
    return [
        Problem(
            pod.origin.source,
            f"Pod {pod.name}",
            f"containers[{name}].readinessProbe.grpc",
            "is not supported; the container counts as ready",
        )
        for pod in pods
        for name, probe in pod.probes
        if isinstance(probe.action, model.GRPCAction)
    ]


def identity(pod: model.Pod) -> str:
    """Return a text that is equal for two versions of a pod if earlier results remain valid."""
    from hashlib import sha256  # not at the top: only pods with probes need it

    parts = (pod.name, pod.uid, pod.origin.created, pod.addresses, pod.probes)
    return sha256(msgspec.json.encode(parts)).hexdigest()


def with_readiness(
    state: model.ClusterState, statuses: Mapping[model.NamespacedName, PodReadiness]
) -> model.ClusterState:
    """Return the state with the readiness of `statuses`. Pods that are not in it do not change."""
    if not statuses:
        return state
    return replace(state, pods=tuple(_with_status(pod, statuses.get(pod.name)) for pod in state.pods))


def _with_status(pod: model.Pod, found: PodReadiness | None) -> model.Pod:
    if found is None:
        return pod
    waiting = sum(not container.ready for container in found.containers)
    restarts = pod.counts.restarts if pod.counts else None
    counts = model.ContainerCounts(len(pod.containers) - waiting, len(pod.containers), restarts)
    return replace(pod, ready=found.ready, counts=counts)


def describe_probe(probe: model.Probe) -> str:
    """Format a probe as kubectl does.

    For example: `exec [ls /var/ready] delay=0s timeout=1s period=10s #success=1 #failure=3`.
    """
    numbers = f"delay={probe.initial_delay}s timeout={probe.timeout}s period={probe.period}s"
    thresholds = f"#success={probe.success_threshold} #failure={probe.failure_threshold}"
    return f"{_describe_action(probe)} {numbers} {thresholds}"


def _describe_action(probe: model.Probe) -> str:
    match probe.action:
        case model.ExecAction(command=command):
            return f"exec [{' '.join(command)}]"
        case model.HTTPGetAction(port=port, path=path, host=host, scheme=scheme):
            host = f"[{host}]" if ":" in host else host
            return f"http-get {scheme.lower()}://{host}:{port.name_or_number}/{path.removeprefix('/')}"
        case model.TCPSocketAction(port=port, host=host):
            return f"tcp-socket {host}:{port.name_or_number}"
        case model.GRPCAction(port=number, service=service):
            return f"grpc <pod>:{number} {service}"

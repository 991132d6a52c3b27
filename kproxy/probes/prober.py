"""Runs readiness probes periodically. `watch` sets the pods; `statuses` returns their readiness.

A task for each probe sleeps, probes and sleeps again; core/readiness.py interprets the results.
Each probe has a random offset within its period, so that many probes do not run at the same
moment. The number of simultaneous probes is limited. Probes that timed out the last time have
a limit of their own, so that they do not delay the others. Probes whose responses take much CPU
time run one after the other, with pauses between them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from kproxy.intake.clients import within_files
from kproxy.limits import (
    PROBE_COMMANDS,
    PROBE_COMMANDS_SHARE,
    PROBE_CONNECTIONS,
    PROBE_CONNECTIONS_SHARE,
    PROBE_COSTLY,
    PROBE_COSTLY_SHARE,
    PROBE_COSTLY_SLOTS,
)
from kproxy.model import (
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    NamespacedName,
    Pod,
    Probe,
    TCPSocketAction,
    format_address,
)
from kproxy.probes.core.readiness import (
    ContainerReadiness,
    PodReadiness,
    ProbeOutcome,
    ProbeResult,
    identity,
    observe,
    pod_readiness,
    supported_probes,
    unsuccessful,
)
from kproxy.probes.network import NetworkProbes, http_url, socket_name
from kproxy.probes.wire import Allowance

FIRST_PROBES = 1.0
"""Seconds over which the first probes of pods are distributed that are not known to be ready."""
FORGETTING = 0.9
"""The part of a probe's CPU time that still counts after the next probe. So a costly one stays costly."""


class Runner(Protocol):
    """Runs commands in containers; `ExecRunner` is one."""

    def run(self, pod: Pod, container: str, command: Sequence[str]) -> Awaitable[ProbeResult]:
        """Run a command. The caller cancels it at the timeout."""


class Prober:
    """Probes pods in one event loop, from the first `watch` to `close`."""

    def __init__(
        self, exec_runner: Runner, changed: Callable[[], None], earlier: Mapping[str, bool] | None = None
    ) -> None:
        """`changed` is called in the loop when a pod becomes ready or not ready, and at its first failure.

        `earlier` is the readiness of pods by identity, from `results` of an earlier run. Such a pod starts
        with it.
        """
        self._runner = exec_runner
        self._changed = changed
        self._earlier = dict(earlier or {})
        self._watched: dict[NamespacedName, _WatchedPod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._network = NetworkProbes()
        self._slots = _new_slots()
        self._slots_after_timeout = _new_slots()
        self._costly_slots = asyncio.Semaphore(PROBE_COSTLY_SLOTS)

    def watch(
        self, pods: Iterable[Pod], is_protected: Callable[[NamespacedName], bool] = lambda _: False
    ) -> None:
        """Probe these pods from now on, and those of the earlier ones that are protected.

        A pod with the same identity keeps its state and its timing. A pod whose manifest cannot be read is
        protected; otherwise it would have to become ready again after the manifest is corrected.
        `statuses` contains the changes immediately; `changed` is not called for them.
        """
        wanted = {pod.name: pod for pod in pods if any(supported_probes(pod))}
        for name in [name for name in self._watched if name not in wanted and not is_protected(name)]:
            self._stop(name)
        for name, pod in wanted.items():
            watched = self._watched.get(name)
            if watched is not None and (watched.pod == pod or watched.identity == identity(pod)):
                watched.pod = pod
                watched.update()
            else:
                self._stop(name)
                self._start(pod)

    def statuses(self) -> dict[NamespacedName, PodReadiness]:
        """Return the readiness of all watched pods."""
        return {name: watched.readiness for name, watched in self._watched.items()}

    def results(self) -> dict[tuple[NamespacedName, str], bool]:
        """Return whether each pod is ready, by name and identity, to be saved for the next run."""
        return {(name, watched.identity): watched.readiness.ready for name, watched in self._watched.items()}

    async def close(self) -> None:
        """End all probes, and kill their commands."""
        for name in list(self._watched):
            self._stop(name)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._network.close()

    def _start(self, pod: Pod) -> None:
        own = identity(pod)
        earlier = self._earlier.pop(own, None)
        watched = self._watched[pod.name] = _WatchedPod(pod, own, ready=earlier is True)
        for container, probe in supported_probes(pod):
            delay = _first_delay(probe, earlier)
            task = asyncio.create_task(self._repeat(watched, container, probe, delay))
            watched.tasks.append(task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _stop(self, name: NamespacedName) -> None:
        if watched := self._watched.pop(name, None):
            for task in watched.tasks:
                task.cancel()

    async def _repeat(self, watched: _WatchedPod, container: str, probe: Probe, delay: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        # The second probe is at a random time, so that pods that were created together are probed apart.
        interval = probe.period * (0.5 + random.random())
        timed_out, cpu = False, 0.0
        while True:
            await asyncio.sleep(due - loop.time())
            allowance, costly = self._network.allowance(), cpu > PROBE_COSTLY
            async with self._slot(probe, timed_out, costly):
                result = await self._once(watched.pod, container, probe, allowance)
                if watched.add(container, probe, result):
                    self._changed()
                if costly:
                    await asyncio.sleep(allowance.cpu * PROBE_COSTLY_SLOTS / PROBE_COSTLY_SHARE)
            timed_out, cpu = result.timed_out, max(allowance.cpu, cpu * FORGETTING)
            due = max(due + interval, loop.time())
            interval = probe.period

    def _slot(self, probe: Probe, timed_out: bool, costly: bool) -> asyncio.Semaphore:
        if costly:
            return self._costly_slots
        return (self._slots_after_timeout if timed_out else self._slots)[type(probe.action)]

    async def _once(self, pod: Pod, container: str, probe: Probe, allowance: Allowance) -> ProbeResult:
        try:
            async with asyncio.timeout(probe.timeout):
                return await self._act(pod, container, probe, allowance)
        except TimeoutError:
            message = f"{_target(pod, probe)}: timed out after {probe.timeout}s"
            return ProbeResult(ProbeOutcome.FAILURE, message, timed_out=True)
        except Exception as error:  # an unexpected error must not end the task
            return unsuccessful(error, f"{_target(pod, probe)}: {type(error).__name__}: {error}")

    async def _act(self, pod: Pod, container: str, probe: Probe, allowance: Allowance) -> ProbeResult:
        match probe.action:
            case ExecAction(command=command):
                return await self._runner.run(pod, container, command)
            case HTTPGetAction() as action:
                return await self._network.http_get(action, _address(pod), allowance)
            case TCPSocketAction() as action:
                return await self._network.tcp_socket(action, _address(pod))
            case GRPCAction():
                raise NotImplementedError("gRPC")


class _WatchedPod:
    """A pod, the readiness of its containers, and the tasks that probe it."""

    def __init__(self, pod: Pod, own: str, ready: bool) -> None:
        self.pod = pod
        self.identity = own
        self.tasks: list[asyncio.Task[None]] = []
        self._containers = {name: ContainerReadiness(name, ready) for name, _ in supported_probes(pod)}
        self.update()

    def update(self) -> None:
        """Set the readiness of the pod from that of its containers."""
        self.readiness = pod_readiness(self.pod, self._containers.values())

    def add(self, container: str, probe: Probe, result: ProbeResult) -> bool:
        """Add a result. Returns whether the pod's readiness changed, or this is its first failure."""
        before, no_events = self.readiness.ready, not self._containers[container].events
        self._containers[container] = observe(self._containers[container], probe, result, time.time())
        self.update()
        is_first = no_events and result.outcome is ProbeOutcome.FAILURE and not before
        return is_first or self.readiness.ready is not before


def _new_slots() -> dict[type, asyncio.Semaphore]:
    """Return the slots of probes, and of those that timed out the last time: half of the files for each."""
    connections = asyncio.Semaphore(within_files(PROBE_CONNECTIONS, PROBE_CONNECTIONS_SHARE / 2))
    return {
        ExecAction: asyncio.Semaphore(within_files(PROBE_COMMANDS, PROBE_COMMANDS_SHARE / 2)),
        HTTPGetAction: connections,
        TCPSocketAction: connections,
    }


def _first_delay(probe: Probe, earlier: bool | None) -> float:
    """Return the seconds until the first probe. `earlier` is the pod's readiness in an earlier run.

    The first probe of a pod that was ready is not urgent: it takes place at any time of its period.
    """
    if earlier:
        return probe.period * random.random()
    delay = probe.initial_delay if earlier is None else 0
    return delay + FIRST_PROBES * random.random()


def _address(pod: Pod) -> str:
    """Return the pod's primary address, as the kubelet uses it; "" if it has none."""
    return format_address(pod.addresses[0]) if pod.addresses else ""


def _target(pod: Pod, probe: Probe) -> str:
    match probe.action:
        case ExecAction(command=command):
            return " ".join(command)
        case HTTPGetAction() as action:
            return f"Get {http_url(action, _address(pod))}"
        case TCPSocketAction(host=host, port=port):
            return socket_name(host or _address(pod), port)
        case GRPCAction(port=number):
            return f"grpc {number}"

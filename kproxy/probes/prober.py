"""Carries out readiness probes, on and on: who is probed is told by `watch`, what came of it by `statuses`.

A task for each probe sleeps, probes and sleeps; what a result means is decided in
readiness.py. So that a thousand probes are no burst, each has a moment of its own in its
period. So that nothing that hangs can hold up the others, probes at the same time are limited,
and those that hung the last time are counted apart from those that did not.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

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
    can_be_probed,
    identity,
    observe,
    pod_readiness,
)
from kproxy.probes.network import http_get, http_url, socket_name, tcp_socket

CONNECTIONS = 256
"""Connections at the same time."""
PROCESSES = 32
"""Commands at the same time."""
SOON = 1.0
"""Seconds over which the first probes of pods that nobody knows are spread."""


class Runner(Protocol):
    """Runs commands in containers; `ExecRunner` is one."""

    def run(self, pod: NamespacedName, container: str, command: Sequence[str]) -> Awaitable[ProbeResult]:
        """To be cancelled when it takes too long."""


class Prober:
    """Lives in one event loop, from the first `watch` to `close`."""

    def __init__(
        self, exec_runner: Runner, changed: Callable[[], None], known: Mapping[str, bool] | None = None
    ) -> None:
        """`changed` is called in the loop whenever a pod becomes ready or stops being so, and when it is
        known for the first time why one is not.

        `known` is what `remembered` returned in an earlier run: a pod of the same identity begins with it.
        """
        self._runner = exec_runner
        self._changed = changed
        self._known = dict(known or {})
        self._watched: dict[NamespacedName, _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = _slots()
        self._free_for_hung = _slots()

    def watch(
        self, pods: Iterable[Pod], is_protected: Callable[[NamespacedName], bool] = lambda _: False
    ) -> None:
        """Probe these pods from now on, and of those before them only the ones that are `is_protected`.

        A pod that is the same as before keeps its state and its pace. One whose manifest cannot be read is
        in doubt: were it forgotten, it would have to become ready anew when the mistake is corrected.
        `statuses` has every change that this makes at once; `changed` is not called for it.
        """
        wanted = {pod.name: pod for pod in pods if any(can_be_probed(pod))}
        for name in [name for name in self._watched if name not in wanted and not is_protected(name)]:
            self._forget(name)
        for name, pod in wanted.items():
            watched = self._watched.get(name)
            if watched is not None and (watched.pod == pod or watched.identity == identity(pod)):
                watched.pod = pod
                watched.judge()
            else:
                self._forget(name)
                self._begin(pod)

    def statuses(self) -> dict[NamespacedName, PodReadiness]:
        """Of every pod that is watched."""
        return {name: watched.readiness for name, watched in self._watched.items()}

    def remembered(self) -> dict[tuple[NamespacedName, str], bool]:
        """Whether each pod is ready, by name and identity: what to keep for the next run."""
        return {(name, watched.identity): watched.readiness.ready for name, watched in self._watched.items()}

    async def close(self) -> None:
        """End all probes; what was started is killed."""
        for name in list(self._watched):
            self._forget(name)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, pod: Pod) -> None:
        own = identity(pod)
        known = self._known.pop(own, None)
        watched = self._watched[pod.name] = _Watched(pod, own, ready=known is True)
        for container, probe in can_be_probed(pod):
            delay = _first(probe, known)
            task = asyncio.create_task(self._repeat(watched, container, probe, delay))
            watched.tasks.append(task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _forget(self, name: NamespacedName) -> None:
        if watched := self._watched.pop(name, None):
            for task in watched.tasks:
                task.cancel()

    async def _repeat(self, watched: _Watched, container: str, probe: Probe, delay: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        # Pods that came together part at their second probe.
        interval = probe.period * (0.5 + random.random())
        hung = False
        while True:
            await asyncio.sleep(due - loop.time())
            slots = self._free_for_hung if hung else self._free
            async with slots[type(probe.action)]:
                result = await self._once(watched.pod, container, probe)
            hung = result.hung
            if watched.take(container, probe, result):
                self._changed()
            due = max(due + interval, loop.time())
            interval = probe.period

    async def _once(self, pod: Pod, container: str, probe: Probe) -> ProbeResult:
        try:
            async with asyncio.timeout(probe.timeout):
                return await self._act(pod, container, probe)
        except TimeoutError:
            message = f"{_what(pod, probe)}: timed out after {probe.timeout}s"
            return ProbeResult(ProbeOutcome.FAILURE, message, hung=True)
        except Exception as error:  # whatever it is: the next probe has to come
            return ProbeResult(ProbeOutcome.FAILURE, f"{_what(pod, probe)}: {type(error).__name__}: {error}")

    async def _act(self, pod: Pod, container: str, probe: Probe) -> ProbeResult:
        match probe.action:
            case ExecAction(command=command):
                return await self._runner.run(pod.name, container, command)
            case HTTPGetAction() as action:
                return await http_get(action, _address(pod))
            case TCPSocketAction() as action:
                return await tcp_socket(action, _address(pod))
            case GRPCAction():
                raise NotImplementedError("gRPC")


class _Watched:
    """A pod, what is known of its containers, and the tasks that find it out."""

    def __init__(self, pod: Pod, own: str, ready: bool) -> None:
        self.pod = pod
        self.identity = own
        self.tasks: list[asyncio.Task[None]] = []
        self._containers = {name: ContainerReadiness(name, ready) for name, _ in can_be_probed(pod)}
        self.judge()

    def judge(self) -> None:
        """Say of the pod what follows from its containers."""
        self.readiness = pod_readiness(self.pod, self._containers.values())

    def take(self, container: str, probe: Probe, result: ProbeResult) -> bool:
        """Take a result in; whether the pod's readiness is another one now, or has a reason now."""
        before, silent = self.readiness.ready, not self._containers[container].events
        self._containers[container] = observe(self._containers[container], probe, result, time.time())
        self.judge()
        is_first = silent and result.outcome is ProbeOutcome.FAILURE and not before
        return is_first or self.readiness.ready is not before


def _slots() -> dict[type, asyncio.Semaphore]:
    connections = asyncio.Semaphore(CONNECTIONS)
    return {
        ExecAction: asyncio.Semaphore(PROCESSES),
        HTTPGetAction: connections,
        TCPSocketAction: connections,
    }


def _first(probe: Probe, known: bool | None) -> float:
    """Seconds until the first probe. Nobody waits for that of a pod which is known to be ready."""
    if known:
        return probe.period * random.random()
    delay = probe.initial_delay if known is None else 0
    return delay + SOON * random.random()


def _address(pod: Pod) -> str:
    """Its primary one, as the kubelet; a pod of the host's network has its node's."""
    return format_address(pod.addresses[0]) if pod.addresses else ""


def _what(pod: Pod, probe: Probe) -> str:
    match probe.action:
        case ExecAction(command=command):
            return " ".join(command)
        case HTTPGetAction() as action:
            return f"Get {http_url(action, _address(pod))}"
        case TCPSocketAction(host=host, port=port):
            return socket_name(host or _address(pod), port)
        case GRPCAction(port=number):
            return f"grpc {number}"

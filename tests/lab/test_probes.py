"""Readiness probes from a node to pods with their own network and files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import Family

from kproxy.model import Pod
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.exec import ExecRunner
from kproxy.probes.prober import Prober
from tests.unit.make import decoded, manifest, name

pytestmark = pytest.mark.lab

FAST = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60}


def pod(lab: Lab, own: str, action: dict[str, Any], family: Family = 4) -> Pod:
    """A pod of the lab, with a readinessProbe."""
    ports = [{"name": "http", "containerPort": 8080}]
    container = {"name": "web", "ports": ports, "readinessProbe": {**FAST, **action}}
    address = lab.pod(own).address(family)
    content = manifest("Pod", own, spec={"containers": [container]}, status={"podIP": address})
    result = decoded(json.dumps(content))
    assert result.problems == []
    return result.state.pods[0]


class Probing:
    """A prober on the node, and waits for its changes."""

    def __init__(self, prober: Prober, changed: asyncio.Event) -> None:
        self.prober = prober
        self._changed = changed

    async def until(self, own: str, ready: bool) -> None:
        """Wait until the readiness of a pod is `ready`."""
        async with asyncio.timeout(60):
            while self.prober.statuses()[name(own)].ready is not ready:
                await self._changed.wait()
                self._changed.clear()

    async def message(self, own: str) -> str:
        """Wait for an event of a pod. Returns the last message."""
        async with asyncio.timeout(60):
            while not (events := self.prober.statuses()[name(own)].containers[0].events):
                await asyncio.sleep(0.01)
        return events[-1].message


def probe(lab: Lab, template: str, pods: list[Pod], test: Callable[[Probing], Awaitable[None]]) -> None:
    """Probe these pods from node n1 while `test` runs."""

    async def main() -> None:
        changed = asyncio.Event()
        prober = Prober(ExecRunner(CommandTemplate(template)), changed.set)
        prober.watch(pods)
        try:
            await test(Probing(prober, changed))
        finally:
            await prober.close()

    lab.node("n1").inside(lambda: asyncio.run(main()))


def test_a_command_runs_in_the_network_of_its_pod(lab: Lab) -> None:
    first, second, third = (found.name for found in lab.topology.pods)
    command = {"exec": {"command": ["ip", "link", "show", "ready0"]}}
    prefix = lab.pod(first).netns.removesuffix(first)

    async def test(probing: Probing) -> None:
        link = ["ip", "link", "add", "ready0", "type", "veth", "peer", "name", "ready1"]
        await asyncio.to_thread(lab.pod(first).run, link, check=True)
        await probing.until(first, True)
        assert not probing.prober.statuses()[name(second)].ready
        await asyncio.to_thread(lab.pod(first).run, ["ip", "link", "del", "ready0"], check=True)
        await probing.until(first, False)
        assert await probing.message(first) == 'Readiness probe failed: Device "ready0" does not exist.'
        assert "Cannot open network namespace" in await probing.message("no-such-pod")

    container = {"name": "web", "readinessProbe": {**FAST, **command}}
    elsewhere = manifest("Pod", "no-such-pod", spec={"containers": [container]})
    pods = [pod(lab, own, command) for own in (first, second, third)] + list(
        decoded(json.dumps(elsewhere)).state.pods
    )
    probe(lab, f"ip netns exec {prefix}{{pod}}", pods, test)


def test_a_file_makes_a_pod_ready(lab: Lab) -> None:
    own = lab.topology.pods[0].name
    handle = lab.pod(own)
    assert handle.files
    template = f"nsenter --net=/run/netns/{handle.netns} --mount={handle.files.parent}/{{pod}} --"

    async def test(probing: Probing) -> None:
        event = "Readiness probe failed: ls: cannot access '/var/ready': No such file or directory"
        assert await probing.message(own) == event
        await asyncio.to_thread(handle.run, ["touch", "/var/ready"], check=True)
        await probing.until(own, True)
        await asyncio.to_thread(handle.run, ["rm", "/var/ready"], check=True)
        await probing.until(own, False)

    probe(lab, template, [pod(lab, own, {"exec": {"command": ["ls", "/var/ready"]}})], test)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("action", [{"httpGet": {"port": "http"}}, {"tcpSocket": {"port": 8080}}])
def test_a_server_is_probed_from_its_node(lab: Lab, family: Family, action: dict[str, Any]) -> None:
    first, second, _ = (found.name for found in lab.topology.pods)

    async def test(probing: Probing) -> None:
        await probing.until(first, True)
        await probing.until(second, True)
        await asyncio.to_thread(lab.stop_pod, first)
        await probing.until(first, False)
        assert (await probing.message(first)).endswith("connection refused")
        assert probing.prober.statuses()[name(second)].ready
        await asyncio.to_thread(lab.start_pod, first)
        await probing.until(first, True)

    probe(lab, "netns", [pod(lab, own, action, family) for own in (first, second)], test)

"""Runs the commands of exec probes in containers, with the API of their engine.

This is the only request of kproxy that changes something in an engine. A command that takes too long is
killed: an engine lets it run on, and with each probe there would be one more.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kproxy.limits import ENGINE_KILL_SECONDS
from kproxy.model import Pod
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult
from kproxy.probes.prober import Runner
from kproxy.sources.engines.client import Client, connect
from kproxy.sources.engines.engine import FAILURES, Engine, sentence


class EngineRunner:
    """Runs commands in the containers of engines, and leaves all other commands to another runner."""

    def __init__(self, engines: Sequence[Engine], otherwise: Runner) -> None:
        self._engines = engines
        self._otherwise = otherwise
        self._endings: set[asyncio.Task[None]] = set()

    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> ProbeResult:
        """Run a command. Exit status 0 is success; the message is the output. May be cancelled."""
        identifier = next((each.identifier for each in pod.containers if each.name == container), "")
        own = identifier.rpartition("//")[2]
        engine = next((each for each in self._engines if each.has(own)), None)
        if engine is None:
            return await self._otherwise.run(pod, container, command)
        try:
            async with connect(engine.socket) as client:
                return await self._run(client, engine.socket, own, command)
        except FAILURES as error:
            return ProbeResult(ProbeOutcome.FAILURE, sentence(error, engine.socket))

    async def _run(self, client: Client, socket: str, container: str, command: Sequence[str]) -> ProbeResult:
        process = await client.create_exec(container, command)
        try:
            output = await client.start_exec(process)
        except asyncio.CancelledError:
            ending = asyncio.create_task(_end(socket, container, process))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            raise
        status = (await client.inspect_exec(process)).exit_code
        text = output.decode(errors="replace")
        if status == 0:
            return ProbeResult(ProbeOutcome.SUCCESS, text)
        return ProbeResult(ProbeOutcome.FAILURE, text if text.strip() else f"exit status {status}")


async def _end(socket: str, container: str, process: str) -> None:
    """Kill a command that still runs. Without effect if its number is of another namespace."""
    with suppress(*FAILURES):
        async with asyncio.timeout(ENGINE_KILL_SECONDS), connect(socket) as client:
            found = await client.inspect_exec(process)
            if found.running and found.pid:
                kill_in(container, found.pid)


def kill_in(container: str, number: int) -> None:
    """Kill a process and those that it started, if they are in the control group of a container."""
    with suppress(OSError):
        handle = os.pidfd_open(number)
        try:
            if container not in Path(f"/proc/{number}/cgroup").read_text():
                return
            children = _children(number)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
        for child in children:
            kill_in(container, child)


def _children(number: int) -> list[int]:
    """Return the processes that a process started; [] if the kernel does not list them."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{number}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found

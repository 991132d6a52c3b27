"""Probes that run a command in a container (exec).

A template (core/command.py) defines how to run a command in a container. A command that is
cancelled is killed together with its process group.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from kproxy.limits import PROBE_OUTPUT
from kproxy.model import Pod
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult, unsuccessful

GRACE = 0.2
"""Seconds to wait for the last output of a command that ended, and for the end of a killed command."""


class ExecRunner:
    """Runs commands in containers, with a command template."""

    def __init__(self, template: CommandTemplate) -> None:
        self._template = template

    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> ProbeResult:
        """Run a command. Exit status 0 is success; the message is the output. May be cancelled."""
        on_host = pod.host_network and self._template.enters_network
        words = list(command) if on_host else self._template.words(pod.name, container, command)
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                _Process,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        )
        try:
            transport, process = await asyncio.shield(starting)
        except (OSError, ValueError) as error:  # ValueError: a null byte in a word
            reason = getattr(error, "strerror", None) or str(error)
            return unsuccessful(error, f"{words[0]}: {reason}")
        except asyncio.CancelledError:  # asyncio itself would kill the command, but not its child processes
            with suppress(OSError):
                await _end(*await starting)
            raise
        try:
            await asyncio.wait((process.exited,))  # unlike `await`, this does not cancel the future
            await asyncio.wait((process.output_ended,), timeout=GRACE)
            return _judge(transport.get_returncode() or 0, bytes(process.output))
        finally:
            await _end(transport, process)


async def _end(transport: asyncio.SubprocessTransport, process: _Process) -> None:
    """Kill the command with its process group if it still runs, and close the pipe of its output."""
    if transport.get_returncode() is None:
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await asyncio.wait((process.exited,), timeout=GRACE)
    # While the process runs, transport.close() might reap it, which is the task of asyncio's watcher.
    closing = transport if transport.get_returncode() is not None else transport.get_pipe_transport(1)
    if closing:
        closing.close()


def _judge(status: int, output: bytes) -> ProbeResult:
    text = output.decode(errors="replace")
    if status == 0:
        return ProbeResult(ProbeOutcome.SUCCESS, text)
    ended = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return ProbeResult(ProbeOutcome.FAILURE, text if text.strip() else ended)


class _Process(asyncio.SubprocessProtocol):
    """Collects output. The end of the process and the end of its output are separate events.

    Child processes that outlive the process may keep the pipe open.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = bytearray()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.output_ended: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.output += data[: PROBE_OUTPUT - len(self.output)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if not self.output_ended.done():
            self.output_ended.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

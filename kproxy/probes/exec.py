"""Probes that run a command in a container: exec.

A template (core/command.py) says how a command gets into a container. A command that is given
up is killed with all that it has started in its process group.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from kproxy.model import NamespacedName
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult

OUTPUT = 10 * 1024
"""Bytes of output that are kept; the rest is read and forgotten."""
GRACE = 0.2
"""Seconds for the last output of a command that ended, and for a killed one to be gone."""


class ExecRunner:
    """Runs commands in containers, by a template."""

    def __init__(self, template: CommandTemplate) -> None:
        self._template = template

    async def run(self, pod: NamespacedName, container: str, command: Sequence[str]) -> ProbeResult:
        """Exit status 0 is success; the message is the output. To give it up, cancel it."""
        words = self._template.words(pod, container, command)
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
        except OSError as error:
            return ProbeResult(ProbeOutcome.FAILURE, f"{words[0]}: {error.strerror}")
        except asyncio.CancelledError:  # asyncio itself would kill the command, but not what that has started
            with suppress(OSError):
                await _end(*await starting)
            raise
        try:
            await asyncio.wait((process.exited,))  # unlike await, it leaves the future be when cancelled
            await asyncio.wait((process.silent,), timeout=GRACE)
            return _judge(transport.get_returncode() or 0, bytes(process.output))
        finally:
            await _end(transport, process)


async def _end(transport: asyncio.SubprocessTransport, process: _Process) -> None:
    """Kill the command with its group, if it still runs, and let go of its output."""
    if transport.get_returncode() is None:
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await asyncio.wait((process.exited,), timeout=GRACE)
    # As long as it runs, transport.close() might reap it, and asyncio's watcher is to do that.
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
    """Collects output, and tells the end of the process from the end of its output.

    What the process has left behind may keep the pipe open for as long as it likes.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = bytearray()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.silent: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self.output += data[: OUTPUT - len(self.output)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if not self.silent.done():
            self.silent.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

"""Runs `kproxy doctor` for the status page, in a process of its own.

With many Services the doctor computes for seconds, so it must not share a process with the daemon. It runs
with low priority, only while the status page is looked at, and at most once in `LOOK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress

import msgspec

from kproxy.decode.text import from_json
from kproxy.limits import DOCTOR_BYTES, DOCTOR_SECONDS
from kproxy.picture.status import Finding, Findings

LOOK_SECONDS = 60.0
FIRST_SECONDS = 2.0
"""How long a page waits for the first findings."""
NICE = 10
"""Next to a process that uses all of a CPU, it still gets a tenth of it. Busy hosts need findings, too."""
UNSEEN = "cannot see"


class _Found(msgspec.Struct):
    id: str
    sureness: str
    subject: str
    what: str
    action: str


class _Answer(msgspec.Struct):
    findings: list[_Found]
    checked: int


class Doctor:
    """Keeps the last findings. Use it in the event loop's thread."""

    def __init__(self, state_dir: str) -> None:
        """`state_dir` is that of the running kproxy."""
        # -P: a folder kproxy in the working directory is not the program.
        python = sys.executable, "-P", "-m"
        self._command = *python, "kproxy", "doctor", "-o", "json", "--state-dir", state_dir
        self._last = Findings()
        self._due = 0.0
        """When the last findings are old (time.monotonic): the time of day may be set back at any time."""
        self._looking: asyncio.Task[None] | None = None

    async def findings(self) -> Findings:
        """Return the last findings. Starts to look again if they are old."""
        if self._looking is None and self._due <= time.monotonic():
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None and self._last.at is None:
            await asyncio.wait((self._looking,), timeout=FIRST_SECONDS)
        return self._last

    def close(self) -> None:
        """End the process."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        try:
            self._last = read_findings(await self._output(), time.time())
        except (OSError, ValueError) as error:  # TimeoutError, DecodeError
            reason = str(error) or f"it did not end in {DOCTOR_SECONDS:g} s"
            self._last = Findings(at=time.time(), failure=reason)
        finally:
            self._due = time.monotonic() + LOOK_SECONDS
            self._looking = None

    async def _output(self) -> bytes:
        """Run the command, and return what it prints. Raises OSError (TimeoutError), ValueError."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout
        try:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
            async with asyncio.timeout(DOCTOR_SECONDS):
                return await _read(process.stdout)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _read(stream: asyncio.StreamReader) -> bytes:
    output = bytearray()
    while data := await stream.read(1 << 16):
        output += data
        if len(output) > DOCTOR_BYTES:
            raise ValueError(f"it prints more than {DOCTOR_BYTES >> 20} MiB")
    return bytes(output)


def read_findings(output: bytes, now: float) -> Findings:
    """Read what `kproxy doctor -o json` prints. Raises ValueError."""
    if not output:
        raise ValueError("it printed nothing")
    answer = from_json(output, _Answer)
    rows = tuple(
        Finding(each.id, each.sureness, each.subject, each.what, each.action)
        for each in answer.findings
        if each.sureness != UNSEEN
    )
    return Findings(rows, len(answer.findings) - len(rows), answer.checked, now)

"""An HAProxy that another program starts, for example a unit of systemd, with kproxy's files.

    haproxy -W -S SOCKET -f STATE/gateway/current

It is a master with workers. kproxy lets it reload over the socket of the master, and sends commands to the
socket of the worker. If the master ends, the other program starts it again.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from kproxy.gateway.core.configuration import Configuration
from kproxy.gateway.core.files import Identity, control_socket, digest, files
from kproxy.gateway.folder import CURRENT, Folders
from kproxy.gateway.process import AbsentError, EndedError, Process, Program
from kproxy.gateway.runtime import Runtime
from kproxy.limits import GATEWAY_START_SECONDS
from kproxy.problems import KproxyError

PAUSE = 0.02
_FAILED = re.compile(r"\[failed: (\d+)\]")


class Existing:
    """Processes that another program starts. A `Launcher`."""

    def __init__(self, folders: Folders, master: Path) -> None:
        """`master`: the socket of the master."""
        self._folders = folders
        self._master = Runtime(master)
        self._desired = self._awaited = ""
        """Digests: of the last files, and of those with which the other program is to start HAProxy."""
        self.program = Program()

    def contents(self, desired: Configuration, folder: Path) -> dict[str, bytes]:
        """Return the files of a start in a folder. The other program decides about the user.

        Raises AbsentError if such files are there already: HAProxy may be reading them.
        """
        if (desired_digest := digest(desired)) == self._awaited:
            self._failures()
        self._desired = desired_digest
        return files(desired, Identity(), folder.name, f"{folder}/")

    def find(self, folder: Path) -> Process | None:
        """Return the worker that was started in a folder, if it runs."""
        runtime = Runtime(folder / control_socket(folder.name))
        try:
            return Process(int(runtime.information()["Pid"]), folder, runtime)
        except (KproxyError, KeyError, ValueError, ProcessLookupError):
            return None

    def start(self, folder: Path, before: Process | None) -> Process:
        """Let the master start a worker, in place of another one. Raises KproxyError, EndedError."""
        self._folders.point(folder)
        try:
            failures = self._failures()
        except AbsentError:
            self._awaited = self._desired
            raise
        self._awaited = ""
        self._master.ask("reload")
        end = time.monotonic() + GATEWAY_START_SECONDS
        while time.monotonic() < end:
            if process := self.find(folder):
                return process
            if self._has_failed(failures):
                break
            if self.program.ended.wait(PAUSE):
                raise EndedError
        if before:
            self._folders.point(before.folder)
        raise KproxyError("HAProxy did not reload. Its own log says why.")

    def _failures(self) -> int:
        """Return how many reloads failed. Raises AbsentError."""
        try:
            found = _FAILED.search(self._master.ask("show proc"))
        except KproxyError:
            start = f"haproxy -W -S {self._master.path} -f {self._folders.path / CURRENT}"
            raise AbsentError(f"HAProxy does not answer at {self._master.path}. Start it: {start}") from None
        return int(found[1]) if found else 0

    def _has_failed(self, before: int) -> bool:
        try:
            return self._failures() > before
        except KproxyError:  # the master is executed again
            return False

"""Starts, finds and stops HAProxy's processes.

HAProxy runs in the background and outlives kproxy, as the tables do. It is not a child: a pidfd tells when it
ends. A reload starts a second process, which takes over the listening sockets, and then tells the first one
to finish its connections. If the second one does not start, the first one is not told anything.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from select import select
from threading import Event
from typing import Protocol

from kproxy.gateway.core.configuration import Configuration
from kproxy.gateway.core.files import (
    PID,
    PROCESS,
    TEXT,
    Identity,
    complaint,
    control_socket,
    files,
    refused_objects,
)
from kproxy.gateway.folder import Folders
from kproxy.gateway.runtime import Runtime
from kproxy.limits import GATEWAY_START_SECONDS
from kproxy.printable import printable
from kproxy.problems import HostError, KproxyError

logger = logging.getLogger(__name__)
USER = "haproxy"
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
PAUSE = 0.1
"""Seconds after which a call that has not ended looks whether kproxy ends."""
NEEDED = (1 << 6) | (1 << 7) | (1 << 18)
"""CAP_SETGID, CAP_SETUID and CAP_SYS_CHROOT: to become another user in an empty folder."""

WHY_NOT = f"there is no user {USER}, or kproxy lacks CAP_SETUID, CAP_SETGID or CAP_SYS_CHROOT"
"""Why HAProxy does not become another user."""


def program() -> str:
    """Return the path of HAProxy. Raises HostError."""
    if found := shutil.which("haproxy", path=PATH):
        return found
    raise HostError("--gateway needs HAProxy.", "Install it: apt install haproxy")


def identity(folders: Folders) -> Identity:
    """Return whose rights HAProxy keeps: those of its own user, in an empty folder, if kproxy may do that."""
    if _capabilities() & NEEDED != NEEDED:
        return Identity()
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return Identity()
    return Identity(USER, str(folders.empty))


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


class ConfigurationError(KproxyError):
    """HAProxy does not start with a configuration, for example because a port is taken."""

    def __init__(self, message: str, objects: Mapping[str, str] | None = None) -> None:
        """`objects`: those whose directives it refuses, and why."""
        super().__init__(message)
        self.objects = objects or {}


class RefusedError(ConfigurationError):
    """HAProxy cannot use a configuration, whenever it is tried."""


class AbsentError(KproxyError):
    """HAProxy, which another program starts, does not run."""


class EndedError(Exception):
    """kproxy ends while HAProxy starts. Files stay as they are: it may be reading any of them."""


class Process:
    """A process of HAProxy that runs, or ran."""

    def __init__(self, pid: int, folder: Path, runtime: Runtime) -> None:
        """Raises ProcessLookupError if there is none."""
        self.pid, self.folder, self.runtime = pid, folder, runtime
        self.descriptor = os.pidfd_open(pid)
        """Readable when the process has ended."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not select([self.descriptor], [], [], 0)[0]

    @property
    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return bool(self.runtime.information())
        except KproxyError:
            return False

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
        select([self.descriptor], [], [], GATEWAY_START_SECONDS)

    def close(self) -> None:
        """Forget it. It is reaped if it was given to this process, as the first one of a container."""
        os.close(self.descriptor)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


class Program:
    """Calls of HAProxy's program, which end when kproxy does."""

    def __init__(self) -> None:
        self.ended = Event()
        """Set when kproxy ends. Then nothing waits for HAProxy."""

    def check(self, folder: Path) -> None:
        """Let HAProxy check the files of a folder. Raises RefusedError with what it says, and EndedError."""
        if output := self.call(folder, "-c"):
            objects = refused_objects(output, (folder / TEXT).read_text())
            raise RefusedError(f"HAProxy refuses its configuration: {_said(output, folder)}", objects)

    def call(self, folder: Path, *arguments: str) -> str:
        """Run HAProxy in a folder. Returns what it says if it fails, else "".

        Raises KproxyError, and EndedError if kproxy ends meanwhile.
        """
        command = [program(), *arguments[:1], "-C", str(folder), "-f", PROCESS, "-f", TEXT, *arguments[1:]]
        try:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                umask=0o077,
            ) as process:
                said = self._wait(process)
        except OSError as error:
            raise HostError(f"Cannot run {command[0]}: {error.strerror}.") from None
        if not process.returncode:
            return ""
        return said.decode(errors="replace") or f"status {process.returncode}"

    def _wait(self, process: subprocess.Popen[bytes]) -> bytes:
        """Return the output. A process that takes too long, or longer than kproxy, is killed."""
        end = time.monotonic() + GATEWAY_START_SECONDS
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=PAUSE)[0]
            if self.ended.is_set():
                process.kill()
                raise EndedError
            if time.monotonic() > end:
                process.kill()
                raise KproxyError(f"HAProxy did not start in {GATEWAY_START_SECONDS:g} s.")


class Launcher(Protocol):
    """How processes come into being."""

    program: Program

    def contents(self, desired: Configuration, folder: Path) -> dict[str, bytes]:
        """Return the files of a start in a folder."""

    def find(self, folder: Path) -> Process | None:
        """Return the process that was started in a folder, if it runs."""

    def start(self, folder: Path, before: Process | None) -> Process:
        """Start a process, in place of another one. Raises KproxyError; then the other one continues.

        Raises EndedError if kproxy ends meanwhile.
        """


class Own:
    """Processes that kproxy starts itself."""

    def __init__(self, folders: Folders) -> None:
        self.program = Program()
        self._identity = identity(folders)
        if not self._identity.user:
            logger.warning("HAProxy keeps the user of kproxy: %s", WHY_NOT)

    def contents(self, desired: Configuration, folder: Path) -> dict[str, bytes]:
        """Return the files of a start in a folder."""
        return files(desired, self._identity, folder.name)

    def find(self, folder: Path) -> Process | None:
        """Return the process that was started in a folder, if it runs."""
        try:
            pid = int((folder / PID).read_text())
            process = Process(pid, folder, Runtime(folder / control_socket(folder.name)))
        except (OSError, ValueError):
            return None
        if process.running and _is_of(pid, folder):
            return process
        process.close()
        return None

    def start(self, folder: Path, before: Process | None) -> Process:
        """Start a process, in place of another one. Raises KproxyError; then the other one continues.

        If the other one hangs, it is killed. Raises EndedError if kproxy ends meanwhile.
        """
        output = self.program.call(folder, "-D", "-p", PID, *_in_place_of(before))
        if output and before and not before.answers:
            logger.warning("HAProxy does not answer: process %d. Killing it.", before.pid)
            before.kill()
            output = self.program.call(folder, "-D", "-p", PID)
        if output:
            objects = refused_objects(output, (folder / TEXT).read_text())
            raise ConfigurationError(f"HAProxy does not start: {_said(output, folder)}", objects)
        if process := self.find(folder):
            return process
        raise KproxyError("HAProxy ended right after its start.")


def _in_place_of(before: Process | None) -> list[str]:
    """Return the flags for a process that takes over listening sockets, and lets the other one finish."""
    if before is None:
        return []
    path = before.runtime.path
    sockets = ["-x", f"../{before.folder.name}/{path.name}"] if path.exists() else []
    return [*sockets, "-sf", str(before.pid)]


def _is_of(pid: int, folder: Path) -> bool:
    """Whether the command line names the folder. Numbers of processes are used again."""
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _said(output: str, folder: Path) -> str:
    return printable(complaint(output, (folder / TEXT).read_text()))

"""The measured programs as processes, with their CPU time and memory; first of all kproxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from bench.daemon.kernel import PATIENCE
from bench.process import STIME, Failed, cpu_of, output, peak_of, ticks_of
from bench.samples import CLUSTER_CIDR

NODE, NODE_IP = "this-node", "192.0.2.1"
UNOWNED = "--no-table-owner"
METRICS = "http://127.0.0.1:10249/metrics"


class Subject(ABC):
    """A started program."""

    def __init__(self, process: subprocess.Popen[bytes], began: float, log: Path) -> None:
        self.process, self.pid, self._log = process, process.pid, log
        self.began = began
        """time.monotonic()"""

    def check_alive(self) -> None:
        """Raise Failed, with the end of its log, if it has ended."""
        if self.process.poll() is not None:
            end = self._log.read_text(errors="replace")[-2000:]
            raise Failed(f"{self.process.args!r} ended with {self.process.returncode}:\n{end}")

    @abstractmethod
    def ready(self) -> float:
        """Wait until everything is programmed. Returns the time (time.monotonic)."""

    def cpu(self) -> float:
        """Return its CPU time in seconds, without its child processes."""
        return cpu_of(self.pid)

    def kernel(self) -> float:
        """Return the part of its CPU time that the kernel used for it, in steps of 10 ms."""
        return ticks_of(self.pid)[STIME]

    def peak(self) -> int:
        """Return the peak resident memory in bytes."""
        return peak_of(self.pid)


class Kproxy(Subject):
    """A started `kproxy run`."""

    def __init__(
        self, process: subprocess.Popen[bytes], began: float, log: Path, notified: socket.socket
    ) -> None:
        """`notified` receives the messages for the service manager."""
        super().__init__(process, began, log)
        self._notified = notified
        notified.settimeout(PATIENCE)

    def ready(self) -> float:
        while not self._notified.recv(4096).startswith(b"READY=1"):
            pass
        return time.monotonic()

    def scrape(self) -> float:
        """Request the metrics. Returns the seconds until they have arrived."""
        began = time.monotonic()
        with urlopen(METRICS) as response:
            response.read()
        return time.monotonic() - began

    def check(self) -> None:
        """Request a full comparison."""
        os.kill(self.pid, signal.SIGHUP)


@contextmanager
def running(
    folder: Path, tree: Path | None = None, owner: bool = True, flags: Sequence[str] = ()
) -> Iterator[Kproxy]:
    """Start kproxy with additional flags, and stop it at the end. Its log is `folder`/log.

    `tree` is another source folder with its .venv, whose kproxy is started instead of this one's. Without
    `owner`, its tables can be deleted by other programs.
    """
    python = str(tree / ".venv/bin/python") if tree else sys.executable
    command = [python, "-m", "kproxy", "run"]
    if not owner and UNOWNED in output(*command, "--help", cwd=tree):
        command.append(UNOWNED)
    command += ["--kubeconfig", str(folder / "kubeconfig")]
    command += ["--state-dir", str(folder / "state"), "--cluster-cidr", CLUSTER_CIDR]
    command += ["--node-name", NODE, "--node-ip", NODE_IP, *flags]
    (folder / "notify").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, (folder / "log").open("a") as log:
        notified.bind(str(folder / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        began = time.monotonic()
        with subprocess.Popen(command, env=environment, stderr=log, cwd=tree) as process:
            try:
                yield Kproxy(process, began, folder / "log", notified)
            finally:
                process.terminate()
    if process.returncode:
        raise Failed(f"{' '.join(command)}: exit status {process.returncode}\n{(folder / 'log').read_text()}")

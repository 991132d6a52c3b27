"""Starts processes of kproxy without the start of Python: a server that has imported kproxy forks each one.

The suite starts kproxy more than a thousand times. The start of Python and the imports cost 0.2 s of CPU
each time, most of the time of such a process. Instead, each test process has one fork server, which imports
kproxy once. A forked process is in the network namespace of its node, with its own standard streams,
environment, signals and exit status. It runs `kproxy.cli.main`.

The fork server forks twice: the first child waits for the second, which is kproxy, and reports its exit
status. So the server itself never waits, and each process is reaped.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, NoReturn

from netns_lab import mntns, netns
from netns_lab.lab import Handle

ROOT = Path(__file__).parents[1]
SERVER = sys.executable, "-m", "tests.forkserver"
LIMIT = 1 << 20
"""The maximum size of a request in bytes: arguments and environment."""
PATIENCE = 60.0
"""Seconds until a command counts as stuck."""


class Forked:
    """A running kproxy, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], status: socket.socket) -> None:
        self.args = ["kproxy", *arguments]
        self.returncode: int | None = None
        self._status = status
        started, (self._pidfd,), *_ = socket.recv_fds(status, 64, 1)
        self.pid = int(started)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def poll(self) -> int | None:
        """Return the exit status (the negative signal number if killed), or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status. Raises TimeoutExpired if the process does not end in time."""
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                self.returncode = int(self._status.recv(64))
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._status.close()
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def popen(
    node: Handle,
    arguments: Sequence[str],
    *,
    stdin: IO[Any] | None = None,
    stdout: IO[Any],
    stderr: IO[Any],
) -> Forked:
    """Start `kproxy ARGUMENTS` on a node with these standard streams. The lab ends the process.

    Without `stdin`, standard input is empty.
    """
    request = {
        "netns": node.netns,
        "files": str(node.files) if node.files else None,
        "arguments": list(arguments),
        "environment": {**os.environ, **node.environment},
        "directory": str(Path.cwd()),
    }
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other, Path(os.devnull).open() as null:
        streams = [file.fileno() for file in (stdin or null, stdout, stderr)]
        socket.send_fds(_server(), [json.dumps(request).encode()], [*streams, other.fileno()])
    process = Forked(arguments, own)
    node.started.append(process)
    return process


def run(node: Handle, arguments: Sequence[str], *, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run `kproxy ARGUMENTS` on a node until it ends. Returns its exit status and output."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(input.encode())
        stdin.seek(0)
        process = popen(node, arguments, stdin=stdin, stdout=out, stderr=err)
        try:
            status = process.wait(PATIENCE)
        finally:
            process.kill()
            node.started.remove(process)
        return subprocess.CompletedProcess(process.args, status, _written(out), _written(err))


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@cache
def _server() -> socket.socket:
    """Return the fork server of this process. It ends when this socket closes or this process ends."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT)
    with other:
        process = subprocess.Popen(SERVER, stdin=other.fileno(), stdout=subprocess.DEVNULL, cwd=ROOT)

    def end() -> None:
        own.close()
        process.wait()

    atexit.register(end)
    return own


# --- in the fork server ---


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns the request in a child; None in the server, when the socket closes."""
    while True:
        data, fds, *_ = socket.recv_fds(requests, LIMIT, 4)
        if not data:
            return None
        if not os.fork():
            requests.detach()  # descriptor 0, which becomes kproxy's standard input
            if not (child := os.fork()):
                _set_streams(fds)
                request: dict[str, Any] = json.loads(data)
                return request
            _report(child, fds)
        for fd in fds:
            os.close(fd)
        _reap()


def _reap() -> None:
    """Reap the children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _report(child: int, fds: list[int]) -> None:
    """Report the child's pid, wait for the child, and report its exit status."""
    *streams, status = fds
    for fd in streams:
        os.close(fd)
    with socket.socket(fileno=status) as report:
        socket.send_fds(report, [str(child).encode()], [os.pidfd_open(child)])
        _, ended = os.waitpid(child, 0)
        with suppress(BrokenPipeError):  # the test process has ended
            report.send(str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


def _set_streams(fds: list[int]) -> None:
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    os.closerange(3, max(fds) + 1)


def become(request: dict[str, Any]) -> int:
    """Run kproxy as the request says. Returns the exit status."""
    from kproxy.cli import main

    netns.enter(request["netns"])
    if request["files"]:
        mntns.enter(Path(request["files"]))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["kproxy", *request["arguments"]]
    gc.disable()  # as kproxy/__main__.py does
    return main()


def leave(work: Callable[[], int]) -> NoReturn:
    """End this process with the status that `work` returns or raises.

    Like a process of `multiprocessing`, it joins threads, runs exit handlers and flushes streams. It does not
    deallocate all modules, which would cost more than everything else.
    """
    status: object = 1
    try:
        status = work()
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else 1)


def import_all() -> None:
    """Import every module of kproxy and its dependencies."""
    import pkgutil
    from importlib import import_module

    import kproxy

    for module in pkgutil.walk_packages(kproxy.__path__, "kproxy."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    gc.freeze()


if __name__ == "__main__":
    import_all()
    asked = serve(socket.socket(fileno=0))
    if asked:
        leave(partial(become, asked))

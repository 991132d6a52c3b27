"""The files that one EndpointSlice event passes are those that docs/architecture.md lists."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
from netns_lab.netns import in_fresh_namespace

import kproxy
from kproxy.cli import main
from kproxy.daemon import daemon
from kproxy.daemon.loop import Loop
from kproxy.daemon.refusals import RefusalWatch
from kproxy.kernel.netlink.socket import Netlink
from kproxy.sources.cluster.reflector import Reflector
from tests.apiserver.kubeconfig import write_kubeconfig
from tests.apiserver.server import ApiServer
from tests.support import PATIENCE
from tests.unit.make import service, slice_of

pytestmark = pytest.mark.lab

PACKAGE = Path(kproxy.__file__).parent
ROOT = PACKAGE.parent
FIRST_CHANGE = "+10.1.0.3"
"""What the log says of the change before the one that is traced."""
PAGE = (ROOT / "docs" / "architecture.md").read_text()
WAY = PAGE.partition("## The way of one EndpointSlice event")[2].partition("\n## ")[0]


class Logged(logging.Handler):
    """The messages of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.ready = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()
        if "kproxy is ready" in self.text:
            self.ready.set()


class Trace:
    """Collects the called files, in all threads, from an event's bytes until its commit."""

    def __init__(self, logged: Logged) -> None:
        self.files: set[str] = set()
        self.idle = threading.Event()
        """The loop waits for changes, after the round of which the log tells."""
        self.done = threading.Event()
        self._logged = logged
        self._begun = False
        self._reading: set[str] = set()
        """The files whose functions were called since a reflector last waited for bytes."""

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code is Loop._wait.__code__ and FIRST_CHANGE in self._logged.text:
            self.idle.set()
        if not self.idle.is_set() or self.done.is_set():
            return
        if event == "call" and code is Reflector._watch.__code__ and not self._begun:
            self._reading = set()
        if event == "call" and code.co_filename.startswith(f"{PACKAGE}/"):
            found = self.files if self._begun else self._reading
            found.add(code.co_filename.removeprefix(f"{PACKAGE}/"))
        if code is Reflector._apply.__code__ and not self._begun:
            self._begun = True
            self.files |= self._reading
        elif self._begun and event == "return" and code is Netlink.commit.__code__:
            self.done.set()


async def do_nothing(*_: object) -> None:
    """Stands for a task that has nothing to do."""
    await asyncio.sleep(3600)


def passed_files(folder: Path) -> set[str]:
    """Run kproxy in the main thread, change an EndpointSlice, and return the files that the event passed."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    logged = Logged()
    trace = Trace(logged)
    logging.getLogger("kproxy").addHandler(logged)
    vars(daemon)["return_memory"] = do_nothing  # it looks at the memory from time to time
    RefusalWatch.run = do_nothing  # type: ignore[method-assign, assignment]  # it reads counters in a thread of its own
    daemon.Daemon._watch_problems = do_nothing  # type: ignore[method-assign, assignment]  # it looks now and then
    daemon.Daemon._watch_tables = do_nothing  # type: ignore[method-assign, assignment]  # it hears of each commit
    with ApiServer() as api:
        api.create(service(clusterIP="10.96.0.10", clusterIPs=["10.96.0.10"], ipFamilies=["IPv4"]))
        api.create(slice_of("web", "10.1.0.1", "10.1.0.2"))

        def change() -> None:
            try:
                assert logged.ready.wait(PATIENCE)
                api.update(slice_of("web", "10.1.0.1", "10.1.0.3"))
                assert trace.idle.wait(PATIENCE)
                api.update(slice_of("web", "10.1.0.1", "10.1.0.4"))
                assert trace.done.wait(PATIENCE)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        changing = threading.Thread(target=change)
        changing.start()
        threading.setprofile(trace)
        sys.setprofile(trace)
        kubeconfig = write_kubeconfig(folder / "kubeconfig", api.url, {})
        flags = [*("--node-name", "n1"), *("--node-ip", "192.0.2.1"), *("--state-dir", str(folder / "state"))]
        assert main(["run", "--kubeconfig", str(kubeconfig), *flags]) == 0
        sys.setprofile(None)
        changing.join()
    return trace.files


def listed(text: str) -> list[str]:
    """Return the paths in a text. A path may be relative to the folder of the path before it."""
    found: list[str] = []
    for path in re.findall(r"`([\w/]+\.py)`", text):
        beside = Path(found[-1]).parent / path if found else Path(path)
        found.append(str(beside) if (PACKAGE / beside).exists() else path)
    return found


def test_the_page_lists_the_files_that_an_event_passes(tmp_path: Path) -> None:
    rows = [row for row in WAY.splitlines() if row.startswith("| ")]
    files = [path for row in rows for path in listed(row)]
    observers = listed(WAY.partition("tells the observers")[2].partition(")")[0])
    command = [sys.executable, "-m", "tests.stories.test_way", str(tmp_path)]
    done = in_fresh_namespace(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, text=True))
    assert done.returncode == 0, done.stderr
    passed = set(done.stdout.split())
    assert (passed - {*files, *observers}, {*files, *observers} - passed) == (set(), set())
    assert f"passes {len(files)} files" in WAY


if __name__ == "__main__":  # a process of its own, because signals arrive in the main thread
    print(*passed_files(Path(sys.argv[1])))

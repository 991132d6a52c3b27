"""`kproxy run` when something is in its way: it goes on, or it ends and says why; it never half lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests.support import PATIENCE, Running, child_of, eventually, service, slices, waits_for_child

pytestmark = pytest.mark.lab


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path) as running:
        running.write("web", service(), *slices(lab, ["pod-1"]))
        eventually(lambda: "default/web" in running.logged(), running.logged)
        yield running


def test_without_its_child_it_ends(running: Running) -> None:
    os.kill(child_of(running.process.pid), signal.SIGKILL)
    assert running.process.wait(PATIENCE) == 1
    assert running.logged().endswith("kproxy: kproxy's child process has died. Restart kproxy.\n")
    running.start()


def test_who_is_told_twice_to_end_does_not_wait(lab: Lab, running: Running) -> None:
    """A round that hangs, as its child does."""
    stopped = child_of(running.process.pid)
    os.kill(stopped, signal.SIGSTOP)
    try:
        running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
        eventually(lambda: "+10.244" in running.logged(), running.logged)
        running.process.send_signal(signal.SIGHUP)  # chains that it has not seen yet are to be compared
        eventually(lambda: waits_for_child(running.process.pid), running.logged)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(1)
        assert running.stop(signal.SIGTERM) == -signal.SIGTERM
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_who_fights_for_a_table_is_answered_ever_more_seldom(running: Running) -> None:
    """A program flushes a chain again and again. Each repair is one line of the log, after twice the time."""

    def listed() -> str:
        command = ["nft", "list", "chain", "ip", "kproxy", "services"]
        return str(running.kproxy.node.run(command, capture_output=True).stdout)

    def repaired(times: int) -> bool:
        running.kproxy.nft("flush chain ip kproxy services")
        return running.logged().count("rewritten: ip kproxy services") >= times

    right, begun = listed(), time.monotonic()
    eventually(lambda: repaired(5), running.logged)
    assert time.monotonic() - begun >= 0.5 + 1 + 2 + 4
    # A table that is gone as a whole does not wait: the next repair would be due in eight seconds.
    running.kproxy.nft("delete table ip kproxy")
    eventually(lambda: listed() == right, running.logged, patience=6)

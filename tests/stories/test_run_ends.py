"""`kproxy run` with obstacles: it continues, or it ends and reports why. It never stays half alive."""

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


def test_kproxy_ends_if_its_child_dies(running: Running) -> None:
    os.kill(child_of(running.process.pid), signal.SIGKILL)
    assert running.process.wait(PATIENCE) == 1
    assert running.logged().endswith("kproxy: kproxy's child process has died. Restart kproxy.\n")
    running.start()


def test_a_second_sigterm_ends_kproxy_immediately(lab: Lab, running: Running) -> None:
    """The round hangs, because the child process is stopped."""
    stopped = child_of(running.process.pid)
    os.kill(stopped, signal.SIGSTOP)
    try:
        running.write("web", service(), *slices(lab, ["pod-1", "pod-2"]))
        eventually(lambda: "+10.244" in running.logged(), running.logged)
        running.process.send_signal(signal.SIGHUP)  # kproxy compares chains that it has not read yet
        eventually(lambda: waits_for_child(running.process.pid), running.logged)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(1)
        assert running.stop(signal.SIGTERM) == -signal.SIGTERM
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_repeated_damage_is_repaired_with_increasing_delays(running: Running) -> None:
    """Another program flushes a chain repeatedly. The delay before a repair doubles; each is logged once."""

    def listed() -> str:
        command = ["nft", "list", "chain", "ip", "kproxy", "services"]
        return str(running.kproxy.node.run(command, capture_output=True).stdout)

    def repaired(times: int) -> bool:
        running.kproxy.nft("flush chain ip kproxy services")
        return running.logged().count("rewritten: ip kproxy services") >= times

    right, begun = listed(), time.monotonic()
    eventually(lambda: repaired(5), running.logged)
    assert time.monotonic() - begun >= 0.5 + 1 + 2 + 4
    # A deleted table is restored without the delay. The next repair would be due in eight seconds.
    running.kproxy.nft("delete table ip kproxy")
    eventually(lambda: listed() == right, running.logged, patience=6)

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

from tests.support import EDITABLE, Running, eventually, open_for_reader, service, slices

pytestmark = pytest.mark.lab


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path, EDITABLE) as running:
        running.write("web", service(), *slices(lab, ["pod-1"]))
        eventually(lambda: "default/web" in running.logged(), running.logged)
        yield running


def test_a_second_sigterm_ends_kproxy_immediately(running: Running, tmp_path: Path) -> None:
    """The first round hangs before it compares the table."""
    fifo = tmp_path / "fifo"
    running.stop()
    os.mkfifo(fifo)
    running.program = "tests.waiting", str(fifo)
    running.start(wait=False)
    with open_for_reader(fifo):
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(1)
        assert running.stop(signal.SIGTERM) == -signal.SIGTERM


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

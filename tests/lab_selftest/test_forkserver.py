"""A forked kproxy behaves like a started one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests import forkserver
from tests.support import Running, service

pytestmark = pytest.mark.lab
COMMANDS = {
    "output": (["compile", "-f", "-", "--node-ip", "192.0.2.1"], 0),
    "an error": (["compile", "-f", "no-such-file"], 1),
    "usage": (["no-such-verb"], 2),
    "a refusal": (["sync", "-f", "-", "--state-dir", "/proc/no-such-directory"], 1),
}


@pytest.mark.parametrize(("arguments", "status"), COMMANDS.values(), ids=COMMANDS.keys())
def test_a_forked_command_equals_a_started_one(lab: Lab, arguments: list[str], status: int) -> None:
    node, text = lab.node("n1"), str(service()).replace("'", '"')
    started = node.run([sys.executable, "-m", "kproxy", *arguments], input=text, capture_output=True)
    forked = forkserver.run(node, arguments, input=text)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        started.returncode,
        started.stdout,
        started.stderr,
    )
    assert started.returncode == status


def test_a_daemon_is_a_separate_process(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    node = lab.node("n1")
    with (
        Running(node, tmp_path / "first") as running,
        Running(lab.client("outside"), tmp_path / "second") as other,
    ):
        assert Path(f"/proc/{running.process.pid}/ns/net").stat().st_ino == node.inside(
            lambda: Path("/proc/thread-self/ns/net").stat().st_ino
        )
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.01)
        running.process.kill()
        assert running.process.wait(60) == -signal.SIGKILL
        assert other.process.poll() is None
        assert other.stop() == 0


def test_the_lab_kills_the_daemon(lab: Lab, tmp_path: Path) -> None:
    with Lab(lab.topology) as mine:
        running = Running(mine.node("n1"), tmp_path)
        running.start()
    assert running.process.wait(60) == -signal.SIGKILL

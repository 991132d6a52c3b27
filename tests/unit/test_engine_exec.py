"""The end of a command in a container that takes too long."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kproxy.sources.engines.exec import kill_in


def test_only_processes_of_the_container_are_killed() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()  # the child runs
        group = Path(f"/proc/{process.pid}/cgroup").read_text()
        kill_in(f"not in {group}", process.pid)
        assert process.poll() is None
        kill_in(group.strip(), process.pid)
        assert process.wait(30) == -9
        assert process.stdout.read() == b""  # its child has ended, too, which had the pipe
    kill_in(group, process.pid)  # it is gone

"""`kill -9` during allocation and saving, 200 times: no allocation is lost, duplicated or changed.

The test kills a child process that runs the steps of a sync before it accesses the kernel: lock, decode,
load, allocate, save. These are fast, so there can be many runs; test_kill.py kills fewer, complete syncs.
This file is also a program, which forks these children: it is small and has no threads.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from kproxy.controlplane.allocate import Allocated, allocate
from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ranges import Ranges, parse_pool
from kproxy.decode import Document, decode
from kproxy.model import Service
from kproxy.state.store import Store

KILLS = 200
SERVICES = 60
RANGES = Ranges(
    (ip_network("10.96.0.0/23"), ip_network("fd00:96::/119")),
    (30000, 30999),
    parse_pool("198.51.100.1-198.51.100.60,2001:db8:100::/122"),
)


def manifest(number: int, step: int) -> dict[str, Any]:
    """A Service. One in four requests all its values, and one in five has another type in each step."""
    kind = ("ClusterIP", "NodePort", "LoadBalancer")[(number + (step if number % 5 == 0 else 0)) % 3]
    port: dict[str, Any] = {"port": 80}
    spec: dict[str, Any] = {"type": kind, "ports": [port], "ipFamilyPolicy": "RequireDualStack"}
    if kind == "LoadBalancer":
        spec["externalTrafficPolicy"] = "Local" if number % 2 else "Cluster"
    if number % 4 == 0:  # in the part of each range that is reserved for requests
        low = number // 4
        spec["clusterIPs"] = [f"10.96.0.{1 + low}", f"fd00:96::{1 + low:x}"]
        port["nodePort"] = 30000 + low
        if kind == "LoadBalancer":
            spec["loadBalancerIP"] = f"198.51.100.{45 + low}"
    elif number % 7 == 0 and number % 2:
        spec["healthCheckNodePort"] = 30020 + number // 14
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"svc-{number}"}, "spec": spec}


def services(step: int) -> list[Service]:
    """About two thirds of all Services, different ones in each step."""
    chance = random.Random(step)
    numbers = [number for number in range(SERVICES) if chance.random() < 0.65]
    decoded = decode(Document("step.yaml", manifest(number, step)) for number in numbers)
    assert decoded.problems == []
    return list(decoded.state.services.values())


def allocated(step: int, past: Allocations) -> Allocated:
    return allocate(services(step), past, RANGES, lambda _: False)


def sync(folder: Path, step: int) -> None:
    """Run the steps of a sync before it accesses the kernel."""
    store = Store(folder)
    with store.lock("sync", print):
        past = store.load()
        store.save(past, allocated(step, past).allocations)


def fork_and_kill(folder: Path, step: int, delay: float) -> tuple[bool, float]:
    """Fork a child that runs a step; kill it after `delay`. Returns whether it was killed, and its time."""
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b"!")
        try:
            sync(folder, step)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.read(ready, 1)
    start = time.monotonic()
    if delay >= 0:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(ready)
    os.close(begun)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise SystemExit(1)
    return os.WIFSIGNALED(status), time.monotonic() - start


class Forker:
    """This file as a process."""

    def __init__(self, folder: Path) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tests.stories.test_kill_allocation", str(folder)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def do(self, step: int, delay: float = -1) -> tuple[bool, float]:
        """Call `fork_and_kill` in the process. Without a delay nothing is killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(step, delay, file=self.process.stdin, flush=True)
        killed, seconds = self.process.stdout.readline().split()
        return killed == "True", float(seconds)

    def close(self) -> None:
        self.process.communicate()


def check(folder: Path, before: Allocations, step: int) -> Allocations:
    """Check that a killed step was saved completely or not at all. Returns the saved allocations."""
    after = Store(folder).load()
    with sqlite3.connect(folder / "allocations.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(set(after.held.values())) == len(after.held)
    assert not set(after.held.values()) & set(after.released)
    present = {service.name for service in services(step)}
    needed = allocated(step, before).allocations.held.keys()
    for claim, resource in before.held.items():
        if claim.service in present and claim in needed:
            assert after.held[claim] == resource
    return after


def test_kill_at_random_moments(tmp_path: Path) -> None:
    """The range of delays adapts, so that three in ten kills come after the save."""
    chance, step = random.Random(11), 0
    forker = Forker(tmp_path)
    try:
        window = max(forker.do(step)[1], forker.do(step := step + 1)[1])
        killed = saved = journals = 0
        before = Store(tmp_path).load()
        while killed < KILLS:
            step += 1
            expected = allocated(step, before)
            # No part of the pool is reserved for requests: a requested address may be allocated already.
            assert {problem.field for problem in expected.problems} <= {"spec.loadBalancerIP"}
            was_killed, _ = forker.do(step, chance.uniform(0, window))
            killed += was_killed
            journals += (tmp_path / "allocations.sqlite-journal").exists()
            after = check(tmp_path, before, step)
            assert after in (before, expected.allocations)
            saved += after != before
            window *= 1.1 if after == before else 0.8
            before = after
        print(f"{step} runs, {killed} killed, {saved} saved, {journals} killed during a save")
        assert saved > KILLS // 10
        assert journals > 0
        forker.do(step + 1)
        assert Store(tmp_path).load() == allocated(step + 1, before).allocations
    finally:
        forker.close()


def main(folder: Path) -> None:
    """Run the commands from standard input."""
    for line in sys.stdin:
        step, delay = line.split()
        print(*fork_and_kill(folder, int(step), float(delay)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The kernel refuses one Service: `sync` and `run` program all others, report it, and keep its rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, many

from tests.forkserver import ROOT
from tests.support import (
    SERVICE_IP,
    Kproxy,
    Manifest,
    Process,
    Running,
    changes,
    eventually,
    service,
    slices,
)

pytestmark = pytest.mark.lab

QUARANTINED = (
    "Service default/web: quarantined: the kernel refused it, and what was programmed for it before stays"
)
OTHERS = {"a": ("10.96.10.21", "pod-2"), "z": ("10.96.10.22", "pod-3")}
NAMING = pytest.mark.parametrize(
    "environment", [{}, {"KPROXY_TEST_UNNAMED": "1"}], ids=["the kernel names it", "without names"]
)


def refusing(file: Path, arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "tests.refusing", str(file), *arguments]


def options(environment: dict[str, str]) -> dict[str, Any]:
    return {"env": {**os.environ, **environment}, "cwd": ROOT}


def manifests(lab: Lab, pod: str) -> list[Manifest]:
    """Service `web` with one pod in both families, and two IPv4 Services with other pods."""
    found = [service(), *slices(lab, [pod])]
    for name, (address, other) in OTHERS.items():
        found.append(service(name, families=(4,), cluster_ips={4: address}))
        found += slices(lab, [other], name=name)[:1]
    return found


def other_services_answer(lab: Lab) -> bool:
    client = lab.client("outside")
    return all(http_get(client, address, 80, timeout=0.5).pod == pod for address, pod in OTHERS.values())


@NAMING
def test_a_sync_programs_all_others(
    lab: Lab, kproxy: Kproxy, tmp_path: Path, environment: dict[str, str]
) -> None:
    client, file = lab.client("outside"), tmp_path / "refused"

    def sync(pod: str) -> subprocess.CompletedProcess[str]:
        command = refusing(file, kproxy.arguments("sync"))
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(lab, pod)})
        return kproxy.node.run(command, input=text, capture_output=True, **options(environment))

    # 1. The kernel refuses the IPv4 frontend of `web`. Everything else is programmed.
    file.write_text(SERVICE_IP[4])
    done = sync("pod-1")
    assert done.returncode == 1, done.stderr
    assert f"kproxy: {QUARANTINED}\n" in done.stderr
    assert ("bisection" in done.stderr) is bool(environment)
    assert "3 services, 4 frontends, 1 quarantined: " in done.stdout
    assert len(changes(done.stdout, "+")) == 3
    assert other_services_answer(lab)
    assert http_get(client, SERVICE_IP[6], 80).pod == "pod-1"
    assert http_get(client, SERVICE_IP[4], 80, timeout=0.3).outcome is not Outcome.ANSWERED

    # 2. The kernel accepts everything, and then refuses a change: the previous endpoint stays.
    file.unlink()
    done = sync("pod-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1] for line in changes(done.stdout, "+")] == ["default/web"]
    file.write_text(SERVICE_IP[4])
    done = sync("pod-2")
    assert done.returncode == 1
    assert f"kproxy: {QUARANTINED}\n" in done.stderr
    assert set(many(client, SERVICE_IP[4], 80, 5)) == {"pod-1"}
    assert set(many(client, SERVICE_IP[6], 80, 5)) == {"pod-2"}


class Refused(Running):
    """`kproxy run` on a kernel that refuses the addresses in a file."""

    def __init__(self, lab: Lab, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(lab.node("n1"), folder)
        self.file = folder / "refused"
        self._environment = environment

    def launch(self, log: IO[str]) -> Process:
        command = refusing(self.file, self.arguments())
        return self.kproxy.node.popen(command, stdout=log, stderr=log, **options(self._environment))


@NAMING
def test_a_daemon_programs_all_others_and_retries(
    lab: Lab, tmp_path: Path, environment: dict[str, str]
) -> None:
    client, refused = lab.client("outside"), Refused(lab, tmp_path, environment)
    refused.file.write_text(SERVICE_IP[4])
    refused.write("all", *manifests(lab, "pod-1"))
    with refused as running:
        eventually(lambda: QUARANTINED in running.logged(), running.logged)
        assert "3 services, 4 frontends, 1 quarantined: " in running.logged()
        assert other_services_answer(lab)
        assert http_get(client, SERVICE_IP[6], 80).pod == "pod-1"
        assert http_get(client, SERVICE_IP[4], 80, timeout=0.3).outcome is not Outcome.ANSWERED
        assert QUARANTINED.partition(": ")[2] in running.view("describe", "svc", "web")
        refused.file.unlink()
        eventually(lambda: f"solved: {QUARANTINED}" in running.logged(), running.logged)
        assert http_get(client, SERVICE_IP[4], 80).pod == "pod-1"

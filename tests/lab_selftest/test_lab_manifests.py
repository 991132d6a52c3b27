"""A lab that follows manifests, with the command netns-lab: up, exec, scale, delete, apply, down."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from netns_lab import cli, registry
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get
from netns_lab.topology import single

pytestmark = pytest.mark.lab

MANIFESTS = """
apiVersion: v1
kind: ReplicationController
metadata: {name: kubia}
spec:
  replicas: 2
  selector: {app: kubia}
  template:
    metadata: {labels: {app: kubia}}
    spec:
      containers:
        - {name: kubia, image: luksa/kubia, ports: [{containerPort: 8080}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: ill}, spec: {containers: [{image: luksa/kubia-unhealthy}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: dnsutils, namespace: tools}
spec: {containers: [{image: tutum/dnsutils, env: [{name: MINE, value: "1"}]}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: external-service}
subsets: [{addresses: [{ip: 13.250.94.254}], ports: [{port: 80}]}]
"""
Command = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kubia.yaml").write_text(MANIFESTS)
    return tmp_path


@pytest.fixture
def lab(folder: Path) -> Iterator[str]:
    """The name of a lab that follows the folder."""
    name = f"f{secrets.token_hex(4)}"
    surroundings = ["--pod-environment", "echo OF={pod}", "--pod-resolv-conf", "echo search {namespace}.test"]
    assert cli.run(["up", "--name", name, "--manifests", str(folder), *surroundings]) == 0
    yield name
    registry.remove(name)
    assert list(registry.RUN.glob(f"{name}*")) == []


@pytest.fixture
def command(lab: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command of netns-lab that changes the lab. Returns the lines that it prints."""

    def run(verb: str, *words: str) -> list[str]:
        assert cli.run([verb, "--lab", lab, *words]) == 0
        return capsys.readouterr().out.splitlines()

    capsys.readouterr()
    return run


def kubia(lab: str) -> list[str]:
    return [pod.name for pod in registry.load(lab).topology.pods if pod.name.startswith("kubia-")]


def objects(lab: str) -> list[dict[str, Any]]:
    """The objects that a program reads in addition to the manifests."""
    items: list[dict[str, Any]] = json.loads((registry.load(lab).objects() / "objects.json").read_text())[
        "items"
    ]
    return items


def inside(lab: str, host: str, *words: str) -> str:
    """Return the output of `netns-lab exec`."""
    line = [sys.executable, "-m", "netns_lab", "exec", lab, host, "--", *words]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_pods_start_with_what_they_get(lab: str) -> None:
    one, _ = kubia(lab)
    with Lab.attached(lab) as running:
        pod, dnsutils = running.pod(one), running.pod("dnsutils")
        assert http_get(dnsutils, pod.address(4), 8080).body == f"You've hit {one}\n"
        assert http_get(pod, "13.250.94.254", 80).pod == "external-1"
        assert http_get(pod, dnsutils.address(4), 8080).outcome is Outcome.REFUSED
        replies = [http_get(pod, running.pod("ill").address(4), 8080) for _ in range(6)]
        assert [reply.status for reply in replies] == [200] * 5 + [500]
        assert dnsutils.environment == {"OF": "dnsutils", "MINE": "1"}
        assert pod.environment == {"OF": one}
    assert inside(lab, "dnsutils", "cat", "/etc/resolv.conf") == "search tools.test\n"
    assert inside(lab, one, "sh", "-c", "echo $OF; ls /var") == f"{one}\nrun\ntmp\n"
    assert Path("/etc/resolv.conf").read_text() != "search tools.test\n"
    named = [each["metadata"]["name"] for each in objects(lab)]
    assert sorted(named) == sorted(["n1", *kubia(lab), "ill", "dnsutils"])


def test_a_deleted_pod_is_made_anew(lab: str, command: Command) -> None:
    old, stays = kubia(lab)
    removed, started = command("delete", "pod", old)
    assert removed == f"pod {old} is removed"
    assert kubia(lab)[0] == stays
    new = kubia(lab)[1]
    assert (started, new != old) == (f"pod {new} is started", True)
    assert inside(lab, new, "printenv", "OF") == f"{new}\n"
    # A Pod without a workload has its name again.
    assert command("delete", "pod/dnsutils") == ["pod dnsutils is removed", "pod dnsutils is started"]


def test_scaling_changes_the_manifest(lab: str, command: Command, folder: Path) -> None:
    first = kubia(lab)
    assert len(command("scale", "rc/kubia", "4")) == 2
    assert (kubia(lab)[:2], len(kubia(lab))) == (first, 4)
    assert (folder / "kubia.yaml").read_text() == MANIFESTS.replace("replicas: 2", "replicas: 4")
    assert len(command("scale", "replicationcontrollers/kubia", "1")) == 3
    assert kubia(lab) == first[:1]
    # A change by hand.
    (folder / "kubia.yaml").write_text(MANIFESTS)
    assert len(command("apply")) == 1
    assert command("apply") == ["nothing to change"]


def test_an_error_changes_nothing(lab: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = registry.load(lab)
    (folder / "broken.yaml").write_text("kind: [")
    for words, message in (
        (["delete", "pod", "missing"], "no pod 'missing'"),
        (["delete", "pod"], "delete needs pod NAME..."),
        (["scale", "rc/missing", "1"], "broken.yaml: "),
        (["scale", "ds/kubia", "1"], "'ds' is not a kind with replicas: rc, rs, deploy, sts"),
        (["apply"], "broken.yaml: "),
    ):
        assert cli.run([words[0], "--lab", lab, *words[1:]]) == 1
        assert message in capsys.readouterr().err
    (folder / "broken.yaml").unlink()
    assert cli.run(["scale", "--lab", lab, "rc/missing", "1"]) == 1
    assert "no ReplicationController 'missing' in the manifests" in capsys.readouterr().err
    assert registry.load(lab) == before


def test_a_lab_of_a_process_cannot_be_changed_by_another(capsys: pytest.CaptureFixture[str]) -> None:
    with Lab(single(1)) as owned:
        assert cli.run(["apply", "--lab", owned.id]) == 1
        assert f"the lab {owned.id!r} belongs to a process" in capsys.readouterr().err

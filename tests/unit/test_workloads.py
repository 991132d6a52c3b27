"""Workloads: what is said of the pods that they would make, by every command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kproxy.cli import main
from kproxy.controlplane.ledger import NOTHING
from kproxy.controlplane.settle import settle
from kproxy.controlplane.workloads import NEEDED
from kproxy.decode import Document, decode
from tests.unit.make import NODE, RANGES, manifest, service
from tests.unit.test_decode import slice_

LABELS = {"app": "web"}


def workload(kind: str = "Deployment", version: str = "apps/v1", own_name: str = "web", **rest: Any) -> Any:
    labels, metadata = rest.pop("labels", LABELS), rest.pop("metadata", {})
    spec = {"template": {"metadata": {"labels": labels}, "spec": {"containers": []}}, **rest}
    return manifest(kind, own_name, apiVersion=version, spec=spec, metadata=metadata)


def said(*objects: Any) -> str:
    found = decode([Document("f", one) for one in objects])
    assert found.problems == []
    return "".join(settle(found, NOTHING, RANGES, NODE).notes)


def pod(labels: dict[str, str] = LABELS, **metadata: Any) -> Any:
    return manifest("Pod", "a", metadata={"labels": labels, **metadata})


RC = "ReplicationController default/x"
EXPRESSIONS = {
    "matchLabels": LABELS,
    "matchExpressions": [
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "tier", "operator": "NotIn", "values": ["b", "a"]},
    ],
}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (workload(replicas=3), "D wants 3 pods with app=web"),
        (workload(), "D wants 1 pod with app=web"),
        (workload(version="extensions/v1beta1"), "D wants 1 pod with app=web"),
        (workload("ReplicaSet", replicas=2), "ReplicaSet default/web wants 2 pods with app=web"),
        (workload("StatefulSet"), "StatefulSet default/web wants 1 pod with app=web"),
        (workload("DaemonSet"), "DaemonSet default/web wants 1 pod with app=web"),
        (workload(RC.split()[0], "v1", own_name="x"), f"{RC} wants 1 pod with app=web"),
        (workload(labels=None), "D wants 1 pod with no labels"),
        (workload(labels={"app": None}), "D wants 1 pod with app="),
        (workload(labels={"a": "x" * 1000}), f"D wants 1 pod with a={'x' * 98}..."),
        (workload(selector=EXPRESSIONS), "D wants 1 pod with app=web,!old,tier notin (a,b)"),
    ],
)  # fmt: skip
def test_what_a_workload_would_make(made: Any, expected: str) -> None:
    expected = re.sub("^D ", "Deployment default/web ", expected)
    assert said(made) == f"{expected}, and 0 exist. {NEEDED}"


def test_several_workloads_are_one_sentence() -> None:
    names = ("a", "b", "c", "d", "e")
    named = "; ".join(
        f"Deployment default/{name} wants 1 pod with app=web, and 0 exist" for name in names[:3]
    )
    made = said(*(workload(own_name=name) for name in names))
    assert made == f"{named}; 2 more workloads want pods. {NEEDED}"


WANTS_3 = "wants 3 pods with app=web, and 0 exist."
EVERY = (
    "compile --strict",
    "get svc",
    "get svc -o json",
    "describe svc",
    "dns zone",
    "explain node web:80",
)


@pytest.mark.parametrize("verb", EVERY)
def test_commands_say_it_and_do_not_fail(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [workload(replicas=3), service(selector=LABELS), pod({"app": "other"}, name="web")]
    (tmp_path / "in.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    flags = ["-f", str(tmp_path), "--state-dir", str(tmp_path / "state"), "--node-ip", "192.0.2.1"]
    assert main([*verb.split(), *flags]) == 0
    assert capsys.readouterr().err == f"kproxy: Deployment default/web {WANTS_3} {NEEDED}\n"


def test_doctor_names_workloads_as_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [workload(replicas=3), service(selector=LABELS)]
    (tmp_path / "in.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    assert main(["doctor", "-f", str(tmp_path), "--state-dir", "/nonexistent", "--node-ip", "192.0.2.1"]) == 1
    assert f"Deployment default/web {WANTS_3} {NEEDED}" in " ".join(capsys.readouterr().out.split())


def test_input_of_workloads_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.json").write_text(json.dumps(workload()))
    assert main(["compile", "-f", str(tmp_path)]) == 2
    wants = "Deployment default/web wants 1 pod with app=web, and 0 exist."
    told = f"only objects of other kinds: 1 Deployment. {wants} {NEEDED}.\n"
    assert capsys.readouterr().err.endswith(told)


OWNED = {"ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}]}


@pytest.mark.parametrize(
    "objects",
    [
        (workload(replicas=0),),
        (workload("ReplicaSet", metadata=OWNED),),
        (workload("Deployment", "apps.kruise.io/v1"), workload("Rollout", "argoproj.io/v1alpha1")),
        (workload("Job", "batch/v1"), workload("CronJob", "batch/v1")),
        (workload(replicas=-1),),
        (workload(replicas=2**31),),
        (workload(replicas="3"),),
        (manifest("Deployment", "Not a name", apiVersion="apps/v1"),),
        (manifest("Deployment", apiVersion="apps/v1", spec=[1]),),
        (workload(), pod()),
        (workload(selector=EXPRESSIONS), pod({**LABELS, "tier": "c"})),
        (workload(), pod({**LABELS, "pod-template-hash": "1"})),
        (workload(), service(selector=LABELS), slice_()),
    ],
)
def test_when_nothing_is_said(objects: tuple[Any, ...]) -> None:
    assert said(*objects) == ""


@pytest.mark.parametrize(
    "objects",
    [
        (workload(), pod({"app": "other"})),
        (workload(), pod(deletionTimestamp="2026-01-01T00:00:00Z")),
        (workload(replicas=2), pod()),
        (workload(selector=EXPRESSIONS), pod({**LABELS, "tier": "b"})),
        (workload(), pod(namespace="other")),
        (workload(), service(selector=LABELS)),
        (workload(), service("b", selector=LABELS), service(selector=LABELS), slice_()),
        (workload(), service(selector={"app": "other"}), slice_()),
        (workload(), service(), slice_()),
    ],
)
def test_pods_and_slices_of_others_do_not_matter(objects: tuple[Any, ...]) -> None:
    assert said(*objects) != ""

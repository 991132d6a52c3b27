"""The sentences on standard error about held objects, and about kinds that are not followed."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from pathlib import Path

import pytest

from kproxy.cli import main
from kproxy.problems import Problem
from kproxy.show.complaints import complaints
from kproxy.show.snapshot import Snapshot
from kproxy.sources.core.inventory import Inventory
from tests.unit.make import NODE, decoded, name
from tests.unit.test_channel import serving

PROBLEMS = [Problem("a", "", "", "not JSON"), Problem("b", "Service default/b", "spec", "is wrong")]


def holding(held: dict[str, str]) -> Snapshot:
    return Snapshot(Inventory({}, {}, held={name(own): why for own, why in held.items()}), [], PROBLEMS, NODE)


@pytest.mark.parametrize(
    ("held", "described", "sentences"),
    [
        ({}, (), []),
        ({"a": "x cannot be read"}, (), ["held: x cannot be read (Service default/a)"]),
        ({"b": "x", "a": "x"}, (), ["held: x (Service default/a, default/b)"]),
        (dict.fromkeys("abcde", "x"), (), ["held: x (Service default/a, default/b, default/c and 2 more)"]),
        ({"b": "y", "a": "x"}, (), ["held: x (Service default/a)", "held: y (Service default/b)"]),
        ({"b": "y", "a": "x"}, ("Service default/a",), ["held: y (Service default/b)"]),
        ({"b": "y", "a": "x"}, ("Endpoints default/b",), ["held: x (Service default/a)"]),
        ({"a": "x"}, ("Pod default/a",), ["held: x (Service default/a)"]),
    ],
)  # fmt: skip
def test_each_reason_is_printed_once(
    held: dict[str, str], described: tuple[str, ...], sentences: list[str]
) -> None:
    said = ["a: not JSON", "b: Service default/b: spec: is wrong"]
    assert list(complaints(holding(held), described)) == [*said, *sentences]


def test_problems_of_described_objects_are_not_printed() -> None:
    assert list(complaints(holding({}), ["Service default/b"])) == ["a: not JSON"]


# --- a source that does not follow all kinds ---

OBJECTS = """
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
"""
PODS, INGRESSES, BOTH, WORKLOADS = (
    f"kproxy does not follow {kinds}; ask kubectl\n"
    for kinds in (
        "Pods",
        "Ingresses",
        "Ingresses, Pods",
        "Pods, Replicationcontrollers, Daemonsets, Deployments, Replicasets, Statefulsets",
    )
)
ENV = "kproxy: Pod default/a not found: kproxy does not follow Pods. Ask kubectl: kubectl exec -n default a -- env\n"
UNKNOWN = "endpoints not followed (headless)"


@pytest.mark.parametrize(
    ("command", "status", "out", "err"),
    [
        ("get pods", 1, "", PODS),
        ("get pod a -o yaml", 1, "", PODS),
        ("get po -A", 1, "", PODS),
        ("get ing,po", 1, "", BOTH),
        ("get all -o name", 1, "service/db\nservice/web\n", WORKLOADS),
        ("get svc,po -o name", 1, "service/db\nservice/web\n", PODS),
        ("describe pod a", 1, "", PODS),
        ("describe ing", 1, "", INGRESSES),
        ("env a", 1, "", ENV),
        ("get ep db", 0, f"NAME   ENDPOINTS                           AGE\ndb     {UNKNOWN}   <unknown>\n", ""),
        ("get ep web", 0, "NAME   ENDPOINTS       AGE\nweb    10.0.0.1:8080   <unknown>\n", ""),
    ],
)  # fmt: skip
def test_commands_name_kinds_that_are_not_followed(
    command: str, status: int, out: str, err: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (asked(command, tmp_path), *capsys.readouterr()) == (status, out, err)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("describe svc db", f"Endpoints:                {UNKNOWN}"),
        ("describe ep db", f"  {UNKNOWN}"),
        ("get ep db -o yaml", f"    kproxy.io/endpoints: {UNKNOWN}"),
    ],
)
def test_manifests_mark_endpoints_that_are_not_followed(
    command: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(command, tmp_path) == 0
    assert line in capsys.readouterr().out.splitlines()


def asked(command: str, folder: Path) -> object:
    """Run a command on the snapshot of a kproxy that follows a cluster. Returns the exit status."""
    state = decoded(OBJECTS).state
    kinds = frozenset({"Service", "Endpoints", "EndpointSlice", "Node"})
    snapshot = Snapshot(Inventory(state.services, state.slices, followed=kinds, headless=False), [], [], NODE)
    return serving(folder, lambda: snapshot, lambda: main([*command.split(), "--state-dir", str(folder)]))

"""Workloads as `get` and `describe` show them: their pods are counted among those that exist."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kproxy.cli import main
from kproxy.model import WORKLOADS
from tests.cases import cases

Show = Callable[[str], tuple[str, str]]
LABELS = {"app": "web"}
TEMPLATE = """
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {disk: ssd}
      containers: [{name: main, image: example/web, ports: [{containerPort: 8080}]}]
"""
PODS = """
---
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web}}, status: {podIP: 10.0.0.1}}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: web}}
status: {phase: Pending, podIP: 10.0.0.2, conditions: [{type: Ready, status: "False"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ends, labels: {app: web}, deletionTimestamp: "2026-01-01T00:00:00Z"}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {disk: ssd}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
"""


def written(kind: str, name: str = "web", spec: str = "replicas: 3") -> str:
    version = "apps/v1" if WORKLOADS[kind][0] else "v1"
    return f"---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {spec}{TEMPLATE}"


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    """Return a function that runs a command on workloads of all kinds: its output and its errors."""
    text = "".join(written(kind, spec="" if kind == "DaemonSet" else "replicas: 3") for kind in WORKLOADS)
    (tmp_path / "in.yaml").write_text(text + PODS)

    def shown(command: str) -> tuple[str, str]:
        flags = ["-f", str(tmp_path), "--state-dir", str(tmp_path / "state"), "--node-name", "n1"]
        assert main([*command.split(), *flags, "--node-ip", "192.0.2.1"]) == 0
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return shown


@cases(
    """
    command                       headings                                                      row
    deploy                        READY UP-TO-DATE AVAILABLE AGE                                1/3 2 1 <unknown>
    rs                            DESIRED CURRENT READY AGE                                     3 2 1 <unknown>
    rc                            DESIRED CURRENT READY AGE                                     3 2 1 <unknown>
    sts                           READY AGE                                                     1/3 <unknown>
    ds                            DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE  1 2 1 2 1 disk=ssd <unknown>
    deployments.apps web -o wide  READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR     1/3 2 1 <unknown> main example/web app=web
    sts -o wide                   READY AGE CONTAINERS IMAGES                                   1/3 <unknown> main example/web
    """
)
def test_kubectls_columns(show: Show, command: str, headings: str, row: str) -> None:
    lines = show(f"get {command}")[0].splitlines()
    assert [line.split() for line in lines] == [["NAME", *headings.split()], ["web", *row.split()]]


def test_all_are_pods_services_and_workloads_in_kubectls_order(show: Show) -> None:
    names = [line.split("/")[0] for line in show("get all -o name")[0].splitlines()]
    pods = ["pod", "pod", "pod", "replicationcontroller", "service"]
    assert names == [*pods, "daemonset.apps", "deployment.apps", "replicaset.apps", "statefulset.apps"]


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_manifest_is_read_as_it_is_printed(kind: str, show: Show, tmp_path: Path) -> None:
    first = show(f"get {kind} web -o yaml")[0]
    spec = yaml.safe_load(first)["spec"]
    selector = spec["selector"] if kind == "ReplicationController" else spec["selector"]["matchLabels"]
    assert selector == LABELS == spec["template"]["metadata"]["labels"]
    (tmp_path / "in.yaml").write_text(first + PODS)
    assert show(f"get {kind} web -o yaml")[0] == first


def test_expressions_of_a_selector(show: Show, tmp_path: Path) -> None:
    expressions = "{key: app, operator: In, values: [web, api]}, {key: old, operator: DoesNotExist}"
    spec = f"selector: {{matchExpressions: [{expressions}]}}"
    (tmp_path / "in.yaml").write_text(written("Deployment", spec=spec) + PODS)
    assert "app in (api,web),!old" in show("get deploy -o wide")[0]
    first = show("get deploy web -o yaml")[0]
    (tmp_path / "in.yaml").write_text(first + PODS)
    assert show("get deploy web -o yaml")[0] == first


def test_a_description_names_the_pods_and_how_many_are_missing(show: Show) -> None:
    out, _ = show("describe rc web")
    assert "Replicas:     2 current / 3 desired\n" in out
    assert "Pods Status:  1 Running / 1 Waiting / 0 Succeeded / 0 Failed\nServices:     web\n" in out
    assert "Pods:\n  a  10.0.0.1  ready\n  b  10.0.0.2  not ready\n" in out
    assert "  ReplicationController default/web wants 3 pods with app=web, and 2 exist\n" in out
    assert "3 desired | 2 updated | 2 total | 1 available | 2 unavailable\n" in show("describe deploy/web")[0]
    assert show("describe ds")[0].endswith("Problems:\n  <none>\n")
    assert "2 total\n" in show("describe sts")[0]


WRONG = {
    'replicas: "3"': 'spec.replicas: expected a number, got "3": without quotes',
    "replicas: -1": "spec.replicas: expected int >= 0",
    "selector: {matchLabels: {app: db}}":
        "spec.selector: does not match the labels of its template (app=web)",
    "selector: {matchExpressions: [{key: app, operator: is}]}":
        "spec.selector.matchExpressions[0].operator: 'is' is not one of In, NotIn, Exists, DoesNotExist",
    "selector: {matchExpressions: [{key: app, operator: In}]}":
        "spec.selector.matchExpressions[0].values: is missing",
    "selector: {matchExpressions: [{key: app, operator: Exists, values: [a]}]}":
        "spec.selector.matchExpressions[0].values: must be empty",
}  # fmt: skip


@pytest.mark.parametrize("spec", WRONG)
def test_an_invalid_workload_is_a_warning(spec: str, show: Show, tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_text(written("Deployment", spec=spec) + written("ReplicaSet", "rs") + PODS)
    out, err = show("get deploy,rs -o name")
    assert out == "replicaset.apps/rs\n"
    where = f"kproxy: warning: {tmp_path}/in.yaml: Deployment default/web: "
    assert f"{where}{WRONG[spec]}; it is not shown\n" in err


def test_of_two_workloads_with_one_name_the_first_is_shown(show: Show, tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_text(written("Deployment") + written("Deployment", spec="") + PODS)
    out, err = show("get deploy")
    assert out.count("web") == 1
    assert "Deployment default/web: metadata.name: is a duplicate; the object in" in err


def test_a_port_of_a_template_that_is_wrong(show: Show, tmp_path: Path) -> None:
    text = written("Deployment").replace("8080", "99999")
    (tmp_path / "in.yaml").write_text(text + PODS)
    assert (
        "spec.template.spec.containers[0].ports[0].containerPort: 99999 is not a port" in show("get all")[1]
    )

"""Input without objects, and warnings: exit statuses and sentences of the verbs."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kproxy.cli import main
from tests.unit.make import manifest, service

WEB = json.dumps(service(clusterIP="10.96.0.1"))
POD = json.dumps(manifest("Pod", "web-1", status={"podIP": "10.0.0.1"}))
SLIP = json.dumps(service(clusterIP="10.96.0.1", selectr={"app": "web"}))
NOTHING = json.dumps({"apiVersion": "v1", "kind": "List", "items": []})
CONFIG_MAP = json.dumps(manifest("ConfigMap"))
REFUSED = ". Nothing was changed. --allow-empty accepts this, which may remove all Services."
FLAGS = "--state-dir /nonexistent --node-ip 192.0.2.1 --node-name n1"


class Files:
    """A folder with files, and standard input."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder / "in"
        self.folder.mkdir()
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def run(self, verb: str, files: dict[str, str], text: str | None, flags: str) -> tuple[int, str, str]:
        """Run a verb. Returns status, output, and errors with PATH for the folder."""
        for name, content in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(content)
        paths = ["-f", str(self.folder)] if files is not NO_FOLDER else []
        if text is not None:
            stdin = SimpleNamespace(buffer=io.BytesIO(text.encode()))
            self.monkeypatch.setattr(sys, "stdin", stdin)
            paths += ["-f", "-"]
        status = main([*verb.split(), *paths, *FLAGS.split(), *flags.split()])
        out, err = self.capsys.readouterr()
        return status, out, err.replace(str(self.folder), "PATH")


@pytest.fixture(name="files")
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Files:
    return Files(tmp_path, monkeypatch, capsys)


NO_FOLDER: dict[str, str] = {}


@pytest.mark.parametrize(
    ("content", "text", "flags", "status", "err"),
    [
        ({}, None, "", 2, f"kproxy: no objects in PATH{REFUSED}\n"),
        ({}, None, "--allow-empty", 0, ""),
        ({"a.txt": WEB}, None, "", 2, f"kproxy: no objects in PATH{REFUSED}\n"),
        ({"a.yaml": ""}, None, "", 2, f"kproxy: no objects in PATH{REFUSED}\n"),
        ({"a.yaml": "# nothing\n---\n"}, None, "", 2, f"kproxy: no objects in PATH{REFUSED}\n"),
        ({"a.yaml": NOTHING}, None, "", 2, f"kproxy: no objects in PATH{REFUSED}\n"),
        ({"a.yaml": NOTHING}, None, "--allow-empty", 0, ""),
        ({"a.yaml": CONFIG_MAP}, None, "", 2, f"kproxy: no objects that kproxy uses in PATH{REFUSED} There are only objects of other kinds: 1 ConfigMap.\n"),
        ({"a.yaml": CONFIG_MAP, "b.yaml": POD}, None, "", 0, ""),
        ({"sub/a.yaml": WEB}, None, "", 2, f"kproxy: no objects in PATH{REFUSED} There are manifests in subfolders: -R reads them.\n"),
        ({"sub/a.yaml": WEB}, None, "-R", 0, ""),
        ({"sub/a.yaml": WEB}, None, "--recursive", 0, ""),
        ({"a.yaml": "a: ["}, None, "", 1, "kproxy: PATH/a.yaml: line 2: not YAML: did not find expected node content\n"),
        (NO_FOLDER, "", "", 2, f"kproxy: no objects in standard input{REFUSED}\n"),
        (NO_FOLDER, "", "--allow-empty", 0, ""),
        (NO_FOLDER, NOTHING, "", 2, f"kproxy: no objects in standard input{REFUSED}\n"),
        ({"a.yaml": WEB}, "", "", 2, f"kproxy: no objects in standard input{REFUSED}\n"),
        ({"a.yaml": WEB, "b.yaml": CONFIG_MAP, "sub/c.yaml": WEB}, "", "", 2, f"kproxy: no objects in standard input{REFUSED}\n"),
        ({"a.yaml": WEB}, NOTHING, "", 0, ""),
    ],
)  # fmt: skip
def test_input_without_objects(
    content: dict[str, str], text: str | None, flags: str, status: int, err: str, files: Files
) -> None:
    found, out, complaints = files.run("compile", content, text, flags)
    assert (found, complaints) == (status, err)
    assert bool(out) is (status != 2)


UNKNOWN = (
    "kproxy: warning: PATH/a.yaml: Service default/web: spec.selectr: unknown field. Did you mean selector?\n"
)


@pytest.mark.parametrize(
    ("verb", "content", "flags", "status", "err"),
    [
        ("compile", {"a.yaml": SLIP}, "", 0, UNKNOWN),
        ("compile", {"a.yaml": SLIP}, "--strict", 1, UNKNOWN),
        ("compile", {"a.yaml": WEB}, "--strict", 0, ""),
        ("get svc", {"a.yaml": SLIP}, "", 0, UNKNOWN),
        ("get svc", {"a.yaml": SLIP}, "--strict", 1, UNKNOWN),
        ("get svc", {"a.yaml": WEB}, "--strict", 0, ""),
        ("get svc", {}, "", 0, "kproxy: warning: no objects in PATH\nNo services found in namespace default.\n"),
        ("get svc", {}, "--strict", 1, "kproxy: warning: no objects in PATH\nNo services found in namespace default.\n"),
        ("describe po web-1", {"a.yaml": SLIP, "b.yaml": POD}, "", 0, UNKNOWN),
        ("describe svc web", {"a.yaml": SLIP}, "--strict", 1, ""),
        ("env web-1", {"a.yaml": SLIP, "b.yaml": POD}, "", 0, UNKNOWN),
        ("env web-1", {"a.yaml": SLIP, "b.yaml": POD}, "--strict", 1, UNKNOWN),
        ("graph", {"a.yaml": SLIP}, "", 0, UNKNOWN),
        ("graph", {"a.yaml": SLIP}, "--strict", 1, UNKNOWN),
        (
            "compile --service-cidr 10.96.0.0/16 --cluster-cidr 10.0.0.0/8", {"a.yaml": WEB}, "", 0,
            "kproxy: warning: --cluster-cidr 10.0.0.0/8 and --service-cidr 10.96.0.0/16 overlap: packets to a pod's address in --service-cidr are dropped\n",
        ),
    ],
)  # fmt: skip
def test_warnings(
    verb: str, content: dict[str, str], flags: str, status: int, err: str, files: Files
) -> None:
    found, _, complaints = files.run(verb, content, None, flags)
    assert (found, complaints) == (status, err)


def test_a_description_contains_the_warnings_about_its_object(files: Files) -> None:
    _, out, _ = files.run("describe svc web", {"a.yaml": SLIP}, None, "")
    assert "spec.selectr: unknown field. Did you mean selector?" in out


@pytest.mark.parametrize(
    ("spec", "flags", "present", "problem"),
    [
        ({"clusterIP": "172.20.3.4"}, "", "172.20.3.4 . tcp . 80", ""),
        ({"clusterIP": "172.20.3.4"}, "--service-node-port-range 1-2", "172.20.3.4 . tcp . 80", ""),
        ({"clusterIP": "172.20.3.4"}, "--service-cidr 10.96.0.0/12", "", "spec.clusterIP: 172.20.3.4 is not in --service-cidr 10.96.0.0/12"),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 8080}]}, "", "192.0.2.1 . tcp . 8080", ""),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 8080}]}, "--service-cidr 10.96.0.0/12", "192.0.2.1 . tcp . 8080", ""),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 8080}]}, "--service-node-port-range 30000-32767", "", "spec.ports[0].nodePort: 8080/tcp is not in --service-node-port-range 30000-32767"),
    ],
)  # fmt: skip
def test_requests_outside_a_range(
    spec: dict[str, Any], flags: str, present: str, problem: str, files: Files
) -> None:
    """A range restricts what a Service requests only where it was set."""
    status, out, err = files.run("compile", {"a.yaml": json.dumps(service(**spec))}, None, flags)
    assert status == (1 if problem else 0)
    assert problem in err
    assert present in out

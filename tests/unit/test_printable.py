"""What other parties write is escaped where it is shown: tables, descriptions, messages and the log."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kproxy.cli import main
from kproxy.limits import MESSAGE_CHARACTERS, PROBLEMS_LOGGED
from kproxy.observe.log import LogFormatter, Reporter
from kproxy.printable import one_line, printable
from kproxy.problems import Problem
from tests.unit.make import manifest

EVIL = "\x1b[31mred\x1b]0;t\x07\nFAKE\r\x85\u2028\u202eright\u200b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web", "web"),
        ("Grüße, 日本 \\n", "Grüße, 日本 \\n"),
        ("\n\r\t\0", "\\n\\r\\t\\x00"),
        ("\x1b[31m\x7f\x9b", "\\x1b[31m\\x7f\\x9b"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\u202e\u2066\u200b\ufeff", "\\u202e\\u2066\\u200b\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("x\udcff", "x\\udcff"),
    ],
)
def test_characters_that_cannot_be_seen_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_message_has_a_limited_length() -> None:
    assert one_line("x" * (MESSAGE_CHARACTERS + 7)) == f"{'x' * MESSAGE_CHARACTERS}... (7 more characters)"


OBJECTS = [
    manifest(
        "Service",
        metadata={
            "name": "web",
            "labels": {"x": "evil"},
            "annotations": {"a": "evil"},
            "creationTimestamp": "evil",
        },
        spec={
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.77",
            "selector": {"app": "web", "y": "evil"},
            "externalName": "evil",
            "trafficDistribution": "evil",
            "ports": [{"port": 80}],
        },
        status={"loadBalancer": {"ingress": [{"hostname": "evil"}]}},
    ),
    manifest("Service", metadata={"name": "ext"}, spec={"type": "ExternalName", "externalName": "evil"}),
    manifest(
        "EndpointSlice",
        metadata={"name": "web-1", "labels": {"kubernetes.io/service-name": "web", "z": "evil"}},
        addressType="IPv4",
        ports=[{"name": "evil", "port": 8080}],
        endpoints=[
            {
                "addresses": ["10.1.1.1"],
                "nodeName": "evil",
                "hints": {"forZones": [{"name": "evil"}]},
                "targetRef": {"kind": "Pod", "name": "evil"},
            }
        ],
    ),
    manifest(
        "Pod",
        metadata={"name": "web-1", "labels": {"app": "web", "y": "evil"}, "deletionTimestamp": "evil"},
        spec={
            "nodeName": "evil",
            "containers": [
                {"name": "c", "image": "evil", "readinessProbe": {"exec": {"command": ["evil"]}}},
            ],
        },
        status={"podIP": "10.1.1.2", "phase": "evil"},
    ),
    manifest(
        "Ingress",
        metadata={"name": "ing"},
        spec={
            "ingressClassName": "evil",
            "tls": [{"hosts": ["evil"], "secretName": "evil"}],
            "rules": [
                {
                    "host": "evil",
                    "http": {
                        "paths": [
                            {
                                "path": "/evil",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "web", "port": {"name": "evil"}}},
                            }
                        ]
                    },
                }
            ],
        },
    ),
    manifest(
        "Node",
        metadata={"name": "n1", "labels": {"node-role.kubernetes.io/evil": "evil"}},
        spec={"taints": [{"key": "evil", "effect": "evil"}]},
        status={
            "nodeInfo": {"kernelVersion": "evil", "osImage": "evil"},
            "addresses": [{"type": "evil", "address": "evil"}],
        },
    ),
    manifest("Service", metadata={"name": "bad"}, spec={"type": "evil", "ports": [{"port": 80}]}),
    manifest("evil kind", metadata={"name": "other"}),
]


def flags(tmp_path: Path, text: str) -> list[str]:
    """The flags of a command that reads a text as manifests."""
    (tmp_path / "in.json").write_text(text)
    node = ["--node-ip", "192.0.2.1", "--node-name", "n1"]
    return ["-f", str(tmp_path / "in.json"), "--state-dir", str(tmp_path / "state"), *node]


def show(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *words: str) -> tuple[str, str]:
    """What a command prints of the objects, with one text in all strings."""
    objects = {"apiVersion": "v1", "kind": "List", "items": OBJECTS}
    written = json.dumps(objects).replace("evil", json.dumps(text)[1:-1])
    main([*words, *flags(tmp_path, written)])
    done = capsys.readouterr()
    return done.out, done.err


@pytest.mark.parametrize(
    "words",
    [
        "get svc,ep,endpointslices,po,ing,no",
        "get svc,ep,endpointslices,po,ing,no -o wide --show-labels -A",
        "get svc -o custom-columns=NAME:.metadata.name,X:.metadata.labels",
        "describe svc",
        "describe ep",
        "describe endpointslices",
        "describe po",
        "describe ing",
        "describe no",
        "get svc nothing",
    ],
)
def test_no_text_of_an_object_reaches_a_terminal(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in show(tmp_path, capsys, EVIL, *words.split()):
        assert printable(EVIL)[:20] in text or not text or words == "describe ep"
        assert all(line.isprintable() for line in text.split("\n"))
        assert not re.search(r"^ {0,6}FAKE", text, re.MULTILINE)


def test_a_file_name_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\nFAKE\x1b[31m.yaml").write_text("[")
    assert main(["get", "svc", "-f", str(tmp_path), "--node-ip", "192.0.2.1"]) == 1
    assert "a\\nFAKE\\x1b[31m.yaml: line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments"), [("json", ["-o", "json"]), ("yaml", ["-o", "yaml"]), ("jsonpath", [])]
)
def test_documents_have_the_text_itself(
    name: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    load: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load}
    form = arguments or ["-o", "jsonpath={.metadata.labels.x}"]
    out, _ = show(tmp_path, capsys, EVIL, "get", "svc", "web", *form)
    assert (load[name](out)["metadata"]["labels"]["x"] if name in load else out) == EVIL


def test_a_record_of_the_log_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.warning("%s", f"a{EVIL}")
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == [f"WARNING {printable(f'a{EVIL}')}", "ERROR failed"]
    assert all(line.startswith("  ") and line.isprintable() for line in lines[2:])


def test_many_problems_are_not_all_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reporter = Reporter()
    reporter.problems([Problem("f", f"Service default/s{n}", "", "bad") for n in range(PROBLEMS_LOGGED + 5)])
    reporter.problems([])
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2 * PROBLEMS_LOGGED + 2
    assert messages[PROBLEMS_LOGGED] == "and 5 more, which `kproxy get` prints"
    assert messages[-1] == "solved: 5 more"


def test_a_terminal_that_lacks_a_character_shows_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ascii_stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", ascii_stream)
    text = json.dumps(manifest("Service", metadata={"labels": {"x": "é"}}, spec={"ports": [{"port": 1}]}))
    assert main(["get", "svc", "--show-labels", *flags(tmp_path, text)]) == 0
    assert b"x=\\xe9" in ascii_stream.buffer.getvalue()

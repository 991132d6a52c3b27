"""How `get --watch` shows objects as they change, in each form."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from kproxy.model import Pod
from kproxy.show.changes import Changes
from kproxy.show.forms import Form, Style, form_of
from kproxy.show.kinds import KINDS
from tests.unit.make import decoded, manifest

PODS = KINDS["pods"]


def pod(own: str, phase: str = "Running") -> Pod:
    text = json.dumps(manifest("Pod", own, metadata={"labels": {"app": own}}, status={"phase": phase}))
    (found,) = decoded(text).state.pods
    return found


def form(output: str, **style: bool) -> Form:
    return form_of(output, Style(**style), lambda value: yaml.safe_dump(value, sort_keys=False))


def shown(output: str, *changes: list[Pod], **style: bool) -> list[str]:
    """The lines that come of changes, one after the other."""
    made = form(output, **style)
    return "".join(made.changed(PODS, items, lambda _: "1s") for items in changes).splitlines()


A, B, LONG = pod("a"), pod("b", "Pending"), pod("quite-long")
NAME = "custom-columns=NAME:.metadata.name,P:.status.phase"


@pytest.mark.parametrize(
    ("output", "style", "changes", "lines"),
    [
        ("", {}, [[]], []),
        ("", {}, [[A], [B]], ["NAME   READY   STATUS    RESTARTS    AGE", "a      True    Running   <unknown>   1s", "b      True    Pending   <unknown>   1s"]),
        ("", {"headings": False}, [[], [A]], ["a   True   Running   <unknown>   1s"]),
        ("", {"namespaces": True, "labels": True}, [[A]], ["NAMESPACE   NAME   READY   STATUS    RESTARTS    AGE   LABELS", "default     a      True    Running   <unknown>   1s    app=a"]),
        ("name", {}, [[A], [B, A]], ["pod/a", "pod/b", "pod/a"]),
        ("jsonpath={.metadata.name}.", {}, [[A], [B, A]], ["a.b.a."]),
        (NAME, {}, [[], [A]], ["NAME   P", "a      Running"]),
        (NAME, {"headings": False}, [[A], [LONG], [A]], ["a     Running", "quite-long   Running", "a            Running"]),
    ],
)  # fmt: skip
def test_changes(output: str, style: dict[str, bool], changes: list[list[Pod]], lines: list[str]) -> None:
    assert shown(output, *changes, **style) == lines


def test_columns_stay_as_wide_as_they_were() -> None:
    lines = shown("", [LONG], [A])
    assert [line.index("True") for line in lines[1:]] == [len("quite-long   ")] * 2


def test_documents() -> None:
    text = "\n".join(shown("yaml", [A], [B]))
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(text)] == ["a", "b"]
    decoder, rest = json.JSONDecoder(), "\n".join(shown("json", [A, B]))
    first, end = decoder.raw_decode(rest)
    assert [first["kind"], decoder.decode(rest[end:].strip())["metadata"]["name"]] == ["Pod", "b"]


def test_what_changed() -> None:
    changes = Changes(PODS)
    steps: list[tuple[list[Any], list[Any]]] = [
        ([A, B], [A, B]),
        ([pod("a"), B], []),
        ([pod("a", "Pending"), B, LONG], [pod("a", "Pending"), LONG]),
        ([LONG], [pod("a", "Pending"), B]),
        ([A, LONG], [A]),
        ([], [A, LONG]),
        ([], []),
    ]
    for items, changed in steps:
        assert changes.of(items) == changed

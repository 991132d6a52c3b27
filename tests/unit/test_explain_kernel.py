"""What `explain` says of a kernel's table that differs from the desired one, without a kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kproxy.cli import settings_from
from kproxy.cli.question import Asked, ask
from kproxy.explain.answer import Answer, answer
from kproxy.explain.behind import behind
from kproxy.explain.rules import OwnRules
from kproxy.explain.views import Kernel, as_json, text
from kproxy.table.layout import AffinityKey, PackedSocket, SetName, pack_socket
from tests.unit.make import service, slice_of

SOCKET = PackedSocket(pack_socket(bytes([10, 1, 0, 2]), 8080))
HANDLE = 5
"""The handle of the first rule of each chain."""


def asked(folder: Path, *addresses: str) -> Asked:
    """Return the question where a connection to a Service with these endpoints goes."""
    folder.mkdir()
    objects = [service(clusterIP="10.96.0.10"), slice_of("web", *addresses)]
    (folder / "web.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": objects}))
    flags = [
        "-f",
        str(folder),
        "--state-dir",
        str(folder / "state"),
        "--node-name",
        "n1",
        "--node-ip",
        "192.0.2.1",
    ]
    words = ["10.244.0.9", "web"]
    return ask(settings_from(["explain", *words, *flags]), words, kernel=False)


def answered(folder: Path, *addresses: str) -> Answer:
    """Return what happens to a connection to a Service with these endpoints."""
    found = asked(folder, *addresses)
    return answer(found.table, found.question, found.snapshot)


def kernel_of(found: Answer, lacks: str = "", remembered: bool = False) -> Kernel:
    """Return a kernel whose table does what `found` says. A rule of the chain `lacks` is missing."""
    rules = OwnRules(found.table, (step.chain for step in found.steps))
    handles = {
        chain.name: range(HANDLE, HANDLE + len(chain.rules) - (chain.name == lacks))
        for chain in rules.skeleton.chains
    }
    affinity = {AffinityKey(b""): SOCKET} if remembered else {}
    return Kernel(found, behind(found, handles), handles, affinity, 90 if remembered else None)


@pytest.mark.parametrize(
    ("kernel", "lacks", "lines", "differences"),
    [
        (("10.1.0.1", "10.1.0.2"), "", ["The kernel's table does the same."], []),
        (
            ("10.1.0.1", "10.1.0.3"),
            "",
            [
                "The kernel's table differs:",
                "desired",
                "endpoint 10.1.0.2:8080   50.0%, the source stays   not used",
                "endpoint 10.1.0.3:8080   not used                  50.0%, the source stays",
                "With the kernel's table:",
            ],
            ["endpoint 10.1.0.2:8080", "endpoint 10.1.0.3:8080"],
        ),
        (
            (),
            "",
            ["result", "no endpoint"],
            [
                *("result", "endpoint 10.1.0.1:8080", "endpoint 10.1.0.2:8080"),
                *("chain lb-4", "chain draw-2", "chain draw-4"),
            ],
        ),
        (("10.1.0.1", "10.1.0.2"), "prerouting", ["chain prerouting", "rules"], ["chain prerouting"]),
    ],
)
def test_what_differs_in_the_kernel(
    tmp_path: Path, kernel: tuple[str, ...], lacks: str, lines: list[str], differences: list[str]
) -> None:
    desired = answered(tmp_path / "desired", "10.1.0.1", "10.1.0.2")
    found = kernel_of(answered(tmp_path / "kernel", *kernel), lacks)
    said = text(desired, None, found)
    for line in lines:
        assert line in said
    shown: dict[str, Any] = json.loads(as_json(desired, None, found))["kernel"]
    assert (shown["same"], [each["what"] for each in shown["differences"]]) == (not differences, differences)


def test_a_chain_that_finds_empty_slots_drops(tmp_path: Path) -> None:
    found = asked(tmp_path / "desired", "10.1.0.1", "10.1.0.2")
    table = found.table._replace(elements={**found.table.elements, SetName.ENDPOINTS_TCP: {}})
    between = answer(table, found.question, found.snapshot)
    steps = [(step.chain, step.sentence) for step in between.steps]
    assert steps[-2:] == [
        ("lb-4", "one of 4 slots is drawn at random, again if it is empty"),
        ("lb-4", "the slots of the frontend are empty: the packet is dropped"),
    ]
    assert [str(each.rule) for each in behind(between)[-2:]] == ["jump draw-4", "drop"]


def test_the_affinity_entry_and_its_time(tmp_path: Path) -> None:
    desired = answered(tmp_path / "desired", "10.1.0.1", "10.1.0.2")
    found = kernel_of(desired, remembered=True)
    assert "The client has an affinity entry: 10.1.0.2:8080, for 90s." in text(desired, None, found)
    shown = json.loads(as_json(desired, None, found))["kernel"]
    assert (shown["affinity"], shown["affinityExpiresSeconds"]) == ("10.1.0.2:8080", 90)


def test_rules_have_their_handles(tmp_path: Path) -> None:
    desired = answered(tmp_path / "desired", "10.1.0.1")
    kernel = kernel_of(desired)
    details = behind(desired, kernel.handles)
    assert f"# handle {HANDLE}" in text(desired, details, kernel)

"""The status that is written: what kproxy says, next to what others said, with the times of conditions."""

from __future__ import annotations

# ruff: noqa: E501  (a row of a table is a line)
from typing import Any

import pytest

from kproxy.gateway.core.written import merged_status
from kproxy.gatewayapi import CONTROLLER

OLD, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
FOREIGN = {"type": "example.com/Checked", "status": "True"}


def condition(
    kind: str = "Accepted", status: str = "True", time: str = "", generation: int = 1
) -> dict[str, Any]:
    found = {"type": kind, "status": status, "reason": "R", "message": "", "observedGeneration": generation}
    return found | ({"lastTransitionTime": time} if time else {})


def entry(controller: str, *conditions: dict[str, Any], name: str = "edge") -> dict[str, Any]:
    return {"controllerName": controller, "parentRef": {"name": name}, "conditions": list(conditions)}


ROWS = [
    ("new", "GatewayClass", {}, {"conditions": [condition()]}, {"conditions": [condition(time=NOW)]}),
    ("the same", "GatewayClass", {"conditions": [condition(time=OLD)]}, {"conditions": [condition()]}, {"conditions": [condition(time=OLD)]}),
    ("another generation", "GatewayClass", {"conditions": [condition(time=OLD)]}, {"conditions": [condition(generation=2)]}, {"conditions": [condition(time=OLD, generation=2)]}),
    ("another status", "GatewayClass", {"conditions": [condition(time=OLD)]}, {"conditions": [condition(status="False")]}, {"conditions": [condition(status="False", time=NOW)]}),
    ("a condition of another controller", "GatewayClass", {"conditions": [FOREIGN, condition(time=OLD)], "more": 1}, {"conditions": [condition()]}, {"conditions": [FOREIGN, condition(time=OLD)], "more": 1}),
    ("conditions of a wrong type", "GatewayClass", {"conditions": "x"}, {"conditions": [condition()]}, {"conditions": [condition(time=NOW)]}),
    ("listeners", "Gateway",
     {"listeners": [{"name": "a", "conditions": [condition(time=OLD)]}, {"name": "gone"}]},
     {"conditions": [condition()], "listeners": [{"name": "a", "conditions": [condition()]}, {"name": "b", "conditions": [condition()]}]},
     {"conditions": [condition(time=NOW)], "listeners": [{"name": "a", "conditions": [condition(time=OLD)]}, {"name": "b", "conditions": [condition(time=NOW)]}]}),
    ("entries of other controllers", "TCPRoute",
     {"parents": [entry("x"), entry(CONTROLLER, condition(time=OLD)), entry(CONTROLLER, name="gone")]},
     {"parents": [entry(CONTROLLER, condition())]},
     {"parents": [entry("x"), entry(CONTROLLER, condition(time=OLD))]}),
    ("no entry any more", "UDPRoute", {"parents": [entry("x"), entry(CONTROLLER)]}, {"parents": []}, {"parents": [entry("x")]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "current", "own", "merged"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_status_is_merged(kind: str, current: Any, own: Any, merged: Any) -> None:
    assert merged_status(kind, current, own, NOW) == merged
    assert merged_status(kind, merged, own, "later") == merged

"""The status of an object of the Gateway API as it is to be written: what kproxy says, and what others said.

Other controllers write the same objects: conditions of types of their own, and entries of routes for their
Gateways. These stay. The time of a condition changes only if its status does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kproxy.gatewayapi import CONTROLLER

Fields = Mapping[str, Any]


def merged_status(kind: str, current: Fields, own: Fields, now: str) -> dict[str, Any]:
    """Return the new status of an object with the status `current`. `own` is what `status_of` returns.

    `now` is the present time, in RFC 3339. The result equals `current` if nothing changed.
    """
    if kind.endswith("Route"):
        return {**current, "parents": _parents(_list(current, "parents"), own.get("parents", ()), now)}
    merged = {**current, **own, "conditions": _conditions(current, own, now)}
    if kind == "Gateway":
        before = {each.get("name"): each for each in _list(current, "listeners")}
        merged["listeners"] = [
            {**each, "conditions": _conditions(before.get(each["name"], {}), each, now)}
            for each in own["listeners"]
        ]
    return merged


def _list(fields: Fields, key: str) -> Sequence[Fields]:
    """Return a list of objects. Whatever else a server sends counts as none."""
    found = fields.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _parents(current: Sequence[Fields], own: Iterable[Fields], now: str) -> list[Fields]:
    """Return the entries of others, and then kproxy's."""
    others = [each for each in current if each.get("controllerName") != CONTROLLER]
    before = [each for each in current if each.get("controllerName") == CONTROLLER]
    return [*others, *({**each, "conditions": _conditions(_same(before, each), each, now)} for each in own)]


def _same(before: Iterable[Fields], entry: Fields) -> Fields:
    return next((each for each in before if each.get("parentRef") == entry["parentRef"]), {})


def _conditions(current: Fields, own: Fields, now: str) -> list[dict[str, Any]]:
    """Return the conditions in the order of `current`, and then new ones."""
    before = {each.get("type"): each for each in _list(current, "conditions")}
    desired = {each["type"]: each for each in own["conditions"]}
    kept = [{**each, **_timed(each, desired.get(kind, {}), now)} for kind, each in before.items()]
    return kept + [
        {**each, "lastTransitionTime": now} for kind, each in desired.items() if kind not in before
    ]


def _timed(before: Fields, own: Fields, now: str) -> Fields:
    same = not own or before.get("status") == own["status"]
    return own if same else {**own, "lastTransitionTime": now}

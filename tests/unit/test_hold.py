"""Services and endpoints that remain in use while they cannot be read, and the reason shown for it."""

# ruff: noqa: E501  (a step of a story is a line)

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from kproxy.controlplane.hold import InUse, changed, hold
from kproxy.controlplane.ledger import NOTHING
from kproxy.controlplane.settle import settle
from kproxy.decode import Decoded, decode
from kproxy.model import format_address
from kproxy.problems import Problem
from kproxy.sources.documents import parse
from tests.unit.make import NODE, RANGES, manifest, name, service

Files = dict[str, Any]
"""By file name: an object, or the text of a file."""


def read(files: Files) -> Decoded:
    found: list[Any] = []
    for own, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        found += parse(own, text.encode())
    unread = [item for item in found if isinstance(item, Problem)]
    decoded = decode(item for item in found if not isinstance(item, Problem))
    decoded.unreadable.everything += unread
    return replace(decoded, problems=unread + decoded.problems)


def pod(own: str, address: str, *ports: int, ready: bool = True) -> dict[str, Any]:
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": str(ready)}]}
    containers = [{"ports": [{"name": "http", "containerPort": port} for port in ports]}]
    labels = {"labels": {"app": "web"}}
    return manifest("Pod", own, metadata=labels, status=status, spec={"containers": containers})


def endpoints(*addresses: str) -> dict[str, Any]:
    return manifest("Endpoints", subsets=[{"addresses": [{"ip": address} for address in addresses]}])


class Step(NamedTuple):
    """Files that change, and what is in use afterwards."""

    files: Files
    slices: list[tuple[str, set[str]]]
    """The slices of `web` that are not empty: name and addresses."""
    held: dict[str, str] = {}  # noqa: RUF012


WEB = service(selector={"app": "web"}, clusterIP="10.96.0.10")
NAMED = service(selector={"app": "web"}, ports=[{"port": 80, "targetPort": "http"}])
ONE, TWO = pod("a", "10.0.0.1"), pod("b", "10.0.0.2")
BROKEN = "{"
STORIES: dict[str, Sequence[Step]] = {
    "a service": [
        Step({"web": WEB, "a": ONE}, [("web-0", {"10.0.0.1"})]),
        Step({"web": BROKEN}, [("web-0", {"10.0.0.1"})], {"web": "web cannot be read"}),
        Step({"web": WEB}, [("web-0", {"10.0.0.1"})]),
        Step({"web": ""}, []),
    ],
    "an endpoint": [
        Step({"web": WEB, "a": ONE, "b": TWO}, [("web-0", {"10.0.0.1", "10.0.0.2"})]),
        Step({"a": BROKEN}, [("web-0", {"10.0.0.1", "10.0.0.2"})], {"web": "a cannot be read"}),
        Step({"b": pod("b", "10.0.0.9")}, [("web-0", {"10.0.0.1", "10.0.0.2", "10.0.0.9"})], {"web": "a cannot be read"}),
        Step({"a": ""}, [("web-0", {"10.0.0.9"})]),
    ],
    "an endpoint that is not ready": [
        Step({"web": WEB, "a": ONE}, [("web-0", {"10.0.0.1"})]),
        Step({"a": pod("a", "10.0.0.1", ready=False), "x": BROKEN}, [("web-0", {"10.0.0.1"})]),
    ],
    "an endpoint with a port of its own": [
        Step({"web": NAMED, "a": pod("a", "10.0.0.1", 81), "b": pod("b", "10.0.0.2", 82)}, [("web-0", {"10.0.0.1"}), ("web-1", {"10.0.0.2"})]),
        Step({"a": BROKEN}, [("web-0", {"10.0.0.2"}), ("web-0-1", {"10.0.0.1"})], {"web": "a cannot be read"}),
        Step({"b": BROKEN}, [("web-0", {"10.0.0.2"}), ("web-0-1", {"10.0.0.1"})], {"web": "a, b cannot be read"}),
    ],
    "Endpoints": [
        Step({"web": service(), "ep": endpoints("10.0.0.1", "fd00::1")}, [("web", {"10.0.0.1"}), ("web", {"fd00::1"})]),
        Step({"ep": BROKEN}, [("web", {"10.0.0.1"}), ("web", {"fd00::1"})], {"web": "ep cannot be read"}),
    ],
    "an invalid object": [
        Step({"web": WEB, "a": ONE}, [("web-0", {"10.0.0.1"})]),
        Step({"web": service(ports=[{"port": 0}])}, [("web-0", {"10.0.0.1"})], {"web": "web: Service default/web cannot be read"}),
        Step({"web": WEB, "a": manifest("Pod", "a", status={"podIP": 1})}, [("web-0", {"10.0.0.1"})], {"web": "a: Pod default/a cannot be read"}),
    ],
    "many files": [
        Step({"web": WEB, "a": ONE}, [("web-0", {"10.0.0.1"})]),
        Step({"a": "", "q": BROKEN, "r": BROKEN, "s": BROKEN, "t": BROKEN}, [("web-0", {"10.0.0.1"})], {"web": "q, r, s and 1 more cannot be read"}),
        Step({"web": BROKEN}, [("web-0", {"10.0.0.1"})], {"web": "web cannot be read"}),
    ],
    "a refused service": [
        Step({"web": WEB, "a": ONE}, [("web-0", {"10.0.0.1"})]),
        Step({"web": service(clusterIP="172.16.0.1")}, [("web-0", {"10.0.0.1"})], {"web": "spec.clusterIP: 172.16.0.1 is not in --service-cidr 10.96.0.0/16"}),
    ],
    "a service that was never read": [Step({"a": ONE, "web": BROKEN}, [])],
}  # fmt: skip


@pytest.mark.parametrize("steps", STORIES.values(), ids=STORIES)
def test_held_services_and_endpoints(steps: Sequence[Step]) -> None:
    files: Files = {}
    in_use, past = InUse({}, {}), NOTHING
    for step in steps:
        files.update(step.files)
        decoded = read({own: content for own, content in files.items() if content})
        settled = settle(decoded, past, RANGES, NODE)
        in_use, past = hold(in_use, settled), settled.allocations
        assert in_use.held == {name(own): why for own, why in step.held.items()}
        slices = in_use.slices.get(name("web"), ())
        found = [(s.name, {format_address(e.address) for e in s.endpoints}) for s in slices if s.endpoints]
        assert found == step.slices
        assert hold(in_use, settled) == in_use


def test_changed() -> None:
    first = hold(InUse({}, {}), settle(read({"web": WEB, "a": ONE}), NOTHING, RANGES, NODE))
    assert changed(InUse({}, {}), first) == {name("web")}
    assert changed(first, first) == set()
    more = hold(first, settle(read({"web": WEB, "a": ONE, "b": TWO}), NOTHING, RANGES, NODE))
    assert changed(first, more) == {name("web")}
    none = hold(first, settle(read({"a": ONE}), NOTHING, RANGES, NODE))
    assert (changed(first, none), none.services) == ({name("web")}, {})


def test_a_service_is_complete_once_it_was_read_completely() -> None:
    half = hold(InUse({}, {}), settle(read({"web": WEB, "a": BROKEN}), NOTHING, RANGES, NODE))
    assert (set(half.services), set(half.complete)) == ({name("web")}, set())
    whole = hold(half, settle(read({"web": WEB, "a": ONE}), NOTHING, RANGES, NODE))
    assert set(whole.complete) == {name("web")}
    again = hold(whole, settle(read({"web": WEB, "a": BROKEN}), NOTHING, RANGES, NODE))
    assert set(again.complete) == {name("web")}

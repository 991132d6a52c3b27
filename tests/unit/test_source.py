"""Files of manifests as a source: what it says of the pods that it cannot probe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from kproxy.model import NamespacedName
from kproxy.standalone.ranges import Ranges
from kproxy.standalone.readiness import Outcome, Result
from kproxy.standalone.source import Manifests
from kproxy.standalone.store import Store
from tests.unit.make import NODE, manifest, name


class Passing:
    async def run(self, pod: NamespacedName, container: str, command: Sequence[str]) -> Result:
        return Result(Outcome.SUCCESS)


def pod(own: str, action: dict[str, Any], node: str) -> dict[str, Any]:
    containers = [{"name": "web", "readinessProbe": action}]
    return manifest("Pod", own, spec={"containers": containers, "nodeName": node})


def test_probes_that_are_not_made_are_reported_and_those_of_other_nodes_are_not(tmp_path: Path) -> None:
    grpc, command = {"grpc": {"port": 9000}}, {"exec": {"command": ["ls"]}}
    pods = [pod("a", grpc, "n1"), pod("b", grpc, "n2"), pod("c", command, ""), pod("d", command, "n2")]
    file = tmp_path / "pods.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    store = Store(tmp_path / "state")

    async def take() -> Manifests:
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = Manifests([str(file)], store, ranges, lambda _: NODE, Passing())
        await source.take()
        return source

    with store.lock("run"):
        source = asyncio.run(take())
    problem = "containers[web].readinessProbe.grpc: is not supported: this container counts as ready"
    assert source.problems() == []
    assert [str(found) for found in source.warnings()] == [f"{file}: Pod default/a: {problem}"]
    assert set(source.statuses()) == {name("c")}
    assert [found.ready for found in source.state.pods] == [True, True, False, True]

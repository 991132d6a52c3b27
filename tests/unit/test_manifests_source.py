"""Files of manifests as a source: unsupported probes, unreadable files, and reading only when needed."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from kproxy.controlplane.ledger import Allocations
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import Settled, Settler
from kproxy.decode import Decoded
from kproxy.model import NamespacedName, Node, Pod, format_address
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult
from kproxy.problems import StateError
from kproxy.sources import folder
from kproxy.sources.followed import FollowedManifests
from kproxy.state.store import Store
from tests.unit.make import NODE, manifest, name, service


class Passing:
    async def run(self, pod: Pod, container: str, command: Sequence[str]) -> ProbeResult:
        return ProbeResult(ProbeOutcome.SUCCESS)


def pod(own: str, action: dict[str, Any], node: str) -> dict[str, Any]:
    containers = [{"name": "web", "readinessProbe": action}]
    return manifest("Pod", own, spec={"containers": containers, "nodeName": node})


def test_unsupported_probes_of_this_node_are_reported(tmp_path: Path) -> None:
    grpc, command = {"grpc": {"port": 9000}}, {"exec": {"command": ["ls"]}}
    pods = [pod("a", grpc, "n1"), pod("b", grpc, "n2"), pod("c", command, ""), pod("d", command, "n2")]
    file = tmp_path / "pods.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    store = Store(tmp_path / "state")

    async def take() -> FollowedManifests:
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = FollowedManifests([str(file)], store, ranges, lambda _: NODE, Passing())
        await source.take()
        return source

    with store.lock("run", print):
        source = asyncio.run(take())
    problem = "containers[web].readinessProbe.grpc: is not supported; the container counts as ready"
    assert source.problems() == []
    assert [str(found) for found in source.warnings()] == [f"{file}: Pod default/a: {problem}"]
    assert set(source.statuses()) == {name("c")}
    assert [found.ready for found in source.state.pods] == [True, True, False, True]


# --- unreadable files ---


def with_files(tmp_path: Path, steps: Sequence[dict[str, str]]) -> list[tuple[set[str], set[str], bool]]:
    """Take a folder after each step: endpoints of `web`, Services, whether the tables may contain more.

    A step writes files; "-" deletes one.
    """
    store, folder = Store(tmp_path / "state"), tmp_path / "manifests"
    folder.mkdir()

    async def play() -> list[tuple[set[str], set[str], bool]]:
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = FollowedManifests([str(folder)], store, ranges, lambda _: NODE, Passing())
        found = []
        for step in steps:
            for own, text in step.items():
                if own == "replace":
                    folder.rename(tmp_path / "before")
                    folder.mkdir()
                elif text == "-":
                    (folder / own).unlink()
                else:
                    (folder / own).write_text(text)
            source._unread.append(None)
            await source.take()
            endpoints = (e for s in source.slices(name("web")) for e in s.endpoints if e.ready)
            names = {own.name for own in source.names()}
            found.append(
                ({format_address(e.address) for e in endpoints}, names, source.protected(name("web")))
            )
        return found

    with store.lock("run", print):
        return asyncio.run(play())


def web_pod(own: str, address: str, ready: bool = True) -> str:
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": str(ready)}]}
    return json.dumps(manifest("Pod", own, metadata={"labels": {"app": "web"}}, status=status))


WEB, MORE = (json.dumps(service(own, selector={"app": own})) for own in ("web", "more"))
EMPTY = json.dumps({"apiVersion": "v1", "kind": "List", "items": []})
ONE, TWO = web_pod("a", "10.0.0.1"), web_pod("b", "10.0.0.2")


def test_unreadable_objects_stay_and_readable_changes_apply(tmp_path: Path) -> None:
    both = {"10.0.0.1", "10.0.0.2"}
    assert with_files(
        tmp_path,
        [
            {"web.json": WEB, "a.json": ONE, "b.json": TWO},
            {"a.json": ONE[:-1]},
            {"more.json": MORE, "c.json": web_pod("c", "10.0.0.3")},
            {"b.json": web_pod("b", "10.0.0.2", ready=False)},
            {"web.json": WEB[:-1]},
            {"web.json": WEB, "a.json": EMPTY, "b.json": TWO},
            {"web.json": EMPTY},
        ],
    ) == [
        (both, {"web"}, False),
        (both, {"web"}, False),
        ({*both, "10.0.0.3"}, {"web", "more"}, False),
        ({"10.0.0.1", "10.0.0.3"}, {"web", "more"}, False),
        ({"10.0.0.1", "10.0.0.3"}, {"web", "more"}, False),
        ({"10.0.0.2", "10.0.0.3"}, {"web", "more"}, False),
        (set(), {"more"}, False),
    ]


def test_a_service_that_was_never_read_completely_may_have_more_elements(tmp_path: Path) -> None:
    assert with_files(
        tmp_path,
        [{"web.json": WEB, "a.json": ONE, "b.json": TWO[:-1]}, {"b.json": TWO}, {"b.json": TWO[:-1]}],
    ) == [
        ({"10.0.0.1"}, {"web"}, True),
        ({"10.0.0.1", "10.0.0.2"}, {"web"}, False),
        ({"10.0.0.1", "10.0.0.2"}, {"web"}, False),
    ]


OTHER = json.dumps(manifest("ConfigMap"))
Taken = tuple[set[str], set[str], bool]
SERVED: Taken = (set(), {"web"}, False)
GONE: Taken = (set(), set(), False)
UNKNOWN: Taken = (set(), set(), True)
FILLED: Taken = (set(), {"more"}, False)


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        pytest.param([{"web.json": WEB}, {"web.json": "-"}], [SERVED, GONE], id="its files are deleted"),
        pytest.param([{"web.json": WEB}, {"web.json": EMPTY}], [SERVED, GONE], id="an empty List"),
        pytest.param([{"web.json": WEB, "b.json": OTHER}, {"web.json": "-"}], [SERVED, GONE], id="another kind is left"),
        pytest.param([{"web.json": WEB}, {"web.json": ""}], [SERVED, SERVED], id="a file is empty"),
        pytest.param([{"web.json": WEB}, {"replace": ""}], [SERVED, SERVED], id="another folder, as if unmounted"),
        pytest.param([{"web.json": WEB}, {"replace": ""}, {"more.json": MORE}], [SERVED, SERVED, FILLED], id="another folder, then filled"),
        pytest.param([{}, {"web.json": WEB}], [UNKNOWN, SERVED], id="empty from the beginning"),
        pytest.param([{"a.json": OTHER}, {"web.json": WEB}], [UNKNOWN, SERVED], id="only another kind"),
    ],
)  # fmt: skip
def test_a_folder_without_objects(
    steps: list[dict[str, str]], found: list[tuple[set[str], set[str], bool]], tmp_path: Path
) -> None:
    """It removes services only if its files were deleted while it was followed."""
    assert with_files(tmp_path, steps) == found


def test_files_that_cannot_be_watched_are_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(folder, "Inotify", too_many)
    monkeypatch.setattr(folder, "POLL", 0.01)

    async def looks() -> int:
        count = 0
        async for _ in folder.changes([str(tmp_path)]):
            count += 1
            if count == 3:
                break
        return count

    assert asyncio.run(looks()) == 3


def test_changes_in_subfolders_are_noticed_on_request(tmp_path: Path) -> None:
    below = tmp_path / "sub" / "deeper"
    below.mkdir(parents=True)

    async def notice() -> None:
        async with asyncio.timeout(30):
            found = folder.changes([str(tmp_path)], recursive=True)
            await anext(found)
            (below / "web.json").write_text("{}")
            await anext(found)
            (below / "new").mkdir()
            await anext(found)
            (below / "new" / "web.json").write_text("{}")
            await anext(found)
            await found.aclose()

    asyncio.run(notice())


def test_refresh_reads_a_file_again(tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    file.write_text(json.dumps(service("web", clusterIP="10.96.0.10")))
    store = Store(tmp_path / "state")

    async def taken() -> list[set[NamespacedName]]:
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = FollowedManifests([str(tmp_path)], store, ranges, lambda _: NODE, Passing())
        found = [set(await source.take())]
        file.write_text(json.dumps(service("web", clusterIP="10.96.0.11")))
        found.append(set(await source.take()))  # without a notification
        source.refresh()
        return [*found, set(await source.take())]

    with store.lock("run", print):
        assert asyncio.run(taken()) == [{name("web")}, set(), {name("web")}]


def test_nothing_is_computed_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.json").write_text(json.dumps(service("web", clusterIP="10.96.0.10")))
    store, nodes, settled = Store(tmp_path / "state"), [NODE, NODE, Node("n2"), Node("n2")], list[Node]()
    settle = Settler.settle

    def counted(self: Settler, decoded: Decoded, past: Allocations, ranges: Ranges, node: Node) -> Settled:
        settled.append(node)
        if len(settled) == 2:
            raise StateError("full")
        return settle(self, decoded, past, ranges, node)

    monkeypatch.setattr(Settler, "settle", counted)

    async def take_all() -> None:
        ranges = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
        source = FollowedManifests([str(tmp_path)], store, ranges, lambda _: nodes.pop(0), Passing())
        assert await source.take() == {name("web")}
        assert source.revision == 1
        assert not await source.take()
        assert source.revision == 1
        with pytest.raises(StateError):
            await source.take()
        assert not await source.take()
        assert source.revision == 2  # another node: the inventory may be different

    with store.lock("run", print):
        asyncio.run(take_all())
    assert [node.name for node in settled] == ["n1", "n2", "n2"]


# --- workloads ---


def test_workloads_are_logged_when_they_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deployment = json.dumps(manifest("Deployment", apiVersion="apps/v1"))
    steps = [{"web.json": WEB, "d.json": deployment}, {"web.json": f"{WEB}\n"}, {"d.json": "-"}]
    with caplog.at_level(logging.INFO):
        with_files(tmp_path, steps)
    logged = [message for message in caplog.messages if "starts no pods" in message]
    assert [message.partition(" wants")[0] for message in logged] == ["Deployment default/web"]

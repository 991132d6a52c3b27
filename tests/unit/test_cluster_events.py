"""Pages and lines of the API server -> changes."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
import pytest

from kproxy.decode import Document, decode
from kproxy.model import ClusterNode, EndpointSlice
from kproxy.sources.cluster.core import events
from kproxy.sources.cluster.core.events import (
    SERVICES,
    SLICES,
    UNNAMED,
    ApiResource,
    GarbageError,
    Lines,
    ObjectChange,
    node_resource,
    read_line,
    read_page,
    read_status,
)
from tests.unit.cluster import api_node, api_service, api_slice, change, event, line
from tests.unit.make import name

NODE = node_resource("n1")


def page(*items: Any, **metadata: Any) -> bytes:
    return msgspec.json.encode({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})


def test_a_page_gives_each_object_and_where_to_go_on() -> None:
    metadata, changes = read_page(SERVICES, page(api_service("a"), api_service("b"), **{"continue": "token"}))
    assert metadata.continue_ == "token"
    assert [change.key for change in changes] == [name("a"), name("b")]
    assert all(change.model is not None for change in changes)


def test_the_last_page_says_from_where_to_watch() -> None:
    metadata, changes = read_page(SERVICES, page(resourceVersion="17"))
    assert (metadata.continue_, metadata.resource_version, changes) == (None, "17", [])


@pytest.mark.parametrize(
    ("resource", "content"),
    [
        (SERVICES, api_service("web", 7, type="NodePort", ports=[{"port": 80, "nodePort": 30000}])),
        (SLICES, api_slice("web-1", "web", 7, "10.0.0.1", "10.0.0.2")),
        (NODE, api_node("n1", "here")),
    ],
)
def test_an_object_is_what_it_would_be_in_a_manifest(resource: ApiResource, content: dict[str, Any]) -> None:
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, **content}
    state = decode([Document(events.SOURCE, whole)]).state
    expected: list[Any] = [*state.services.values(), *chain(*state.slices.values()), *state.nodes.values()]
    assert [change(resource, "ADDED", content).model] == expected


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED"])
def test_an_event_has_its_objects_version(type_: str) -> None:
    assert event(SERVICES, type_, api_service("web", 42)).version == "42"


def test_a_deleted_object_is_its_name_only_however_broken() -> None:
    found = event(SERVICES, "DELETED", api_service("web", 43, ports="nonsense"))
    assert found.version == "43"
    assert found.change == ObjectChange(SERVICES.kind, name("web"), None)


def test_a_bookmark_is_a_version() -> None:
    found = event(SERVICES, "BOOKMARK", {"kind": "Service", "metadata": {"resourceVersion": "44"}})
    assert found == ("44", None, None)


def test_an_error_is_a_status() -> None:
    found = event(SERVICES, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
    assert found.status is not None
    assert (found.status.code, found.status.reason) == (410, "Expired")


def test_an_object_that_is_wrong_is_named_and_the_others_on_the_page_are_not_affected() -> None:
    wrong = api_service("wrong", ports=[{"port": 0}])
    _, (first, second) = read_page(SERVICES, page(wrong, api_service("right")))
    assert first.key == name("wrong")
    assert first.undecodable is not None
    expected = "cluster: Service default/wrong: spec.ports[0].port: 0 is not a port (1-65535)"
    assert str(first.undecodable) == expected
    assert first.undecodable.unreadable.services.keys() == {name("wrong")}
    assert second.model is not None


@pytest.mark.parametrize("metadata", [{}, {"name": 1}, {"name": ""}])
def test_an_object_whose_name_cannot_be_said_is_still_reported(metadata: dict[str, Any]) -> None:
    found = change(SERVICES, "ADDED", {"metadata": metadata, "spec": {}})
    assert found.key == UNNAMED
    assert found.undecodable is not None


def test_an_object_whose_metadata_are_wrong_has_a_name_nevertheless() -> None:
    wrong = api_slice("web-1", "web", 9, metadata={"labels": 5})
    assert change(SLICES, "ADDED", wrong).key == name("web-1")
    assert event(SLICES, "DELETED", wrong)[:2] == ("9", ObjectChange(SLICES.kind, name("web-1"), None))


def test_a_slice_of_no_service_is_of_no_use() -> None:
    found = change(SLICES, "ADDED", api_slice("loose", None))
    assert (found.key, found.model, found.undecodable) == (name("loose"), None, None)


def test_a_slice_says_what_triggered_it() -> None:
    when = "2026-11-22T10:00:00Z"
    metadata = {"annotations": {events.TRIGGER: when}}
    assert change(SLICES, "ADDED", api_slice("web-1", "web", 1, metadata=metadata)).trigger == when
    assert change(SLICES, "ADDED", api_slice()).trigger == ""


def test_the_node_is_asked_for_by_name() -> None:
    assert NODE.selector == {"fieldSelector": "metadata.name=n1"}
    model = change(NODE, "ADDED", api_node("n1", "here")).model
    assert isinstance(model, ClusterNode)
    assert (model.name, model.zone) == ("n1", "here")


def test_annotations_are_not_kept() -> None:
    metadata = {"annotations": {"note": "x"}}
    model = change(SLICES, "ADDED", api_slice("web-1", "web", 1, metadata=metadata)).model
    assert isinstance(model, EndpointSlice)
    assert model.annotations == ""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"<html>",
        b"[]",
        b"\xff\xfe",
        line("ADDED", api_service())[:-5],
        b"[" * 100_000,
        line("RENAMED", api_service()),
        line("BOOKMARK", 5),
        line("DELETED", {}),
        line("ERROR", "no"),
    ],
)
def test_a_line_that_is_no_event_is_garbage(text: bytes) -> None:
    with pytest.raises(GarbageError):
        read_line(SERVICES, text)


@pytest.mark.parametrize("text", [b"", b"{}", page(api_service())[:-2], b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_list_is_garbage(text: bytes) -> None:
    with pytest.raises(GarbageError):
        read_page(SERVICES, text)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000])
def test_a_status_that_is_none_says_nothing(text: bytes) -> None:
    assert read_status(text).code is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_put_together_however_they_arrive(size: int) -> None:
    text = b"first\n\nsecond\nthird, which is longer\nno end"
    lines = Lines()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    found = [line for piece in pieces for line in lines.feed(piece)]
    assert found == [b"first", b"second", b"third, which is longer"]


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST_LINE", 10)
    lines = Lines()
    assert list(lines.feed(b"12345")) == []
    with pytest.raises(GarbageError):
        list(lines.feed(b"678901"))


def test_one_object_alone_is_asked_for_by_its_name() -> None:
    assert SERVICES.alone(name("web")) == (
        "/api/v1/namespaces/default/services",
        {**SERVICES.selector, "fieldSelector": "metadata.name=web"},
    )
    assert SLICES.alone(name("web"))[0] == "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    assert NODE.alone(name("n1")) == (NODE.path, NODE.selector)


def test_an_object_has_a_version_until_it_is_gone() -> None:
    assert change(SERVICES, "ADDED", api_service("web", 7)).version == "7"
    assert change(SERVICES, "MODIFIED", api_service("web", 8, ports="nonsense")).version == "8"
    assert change(SERVICES, "DELETED", api_service("web", 9)).version == ""

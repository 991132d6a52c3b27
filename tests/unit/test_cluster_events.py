"""Decoding of list pages and watch lines to changes."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
import pytest

from kproxy.decode import Document, decode
from kproxy.model import ClusterNode, EndpointSlice
from kproxy.problems import InvalidResponseError
from kproxy.settings.text import CONTENT_TYPES
from kproxy.sources.cluster.core import events, formats
from kproxy.sources.cluster.core.events import END_OF_LIST, UNNAMED, Event, ObjectChange
from kproxy.sources.cluster.core.formats import (
    JSON,
    PROTOBUF,
    Json,
    Lines,
    ProtobufFormat,
    accepted,
    format_of,
)
from kproxy.sources.cluster.core.resources import (
    GATEWAY_API,
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    ApiResource,
    node_resource,
)
from tests.unit.cluster import api_node, api_service, api_slice, change, event, line
from tests.unit.make import name

NODE = node_resource("n1")


def page(*items: Any, **metadata: Any) -> bytes:
    return msgspec.json.encode(
        {"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items}
    )


def test_a_page_has_objects_and_a_continue_token() -> None:
    metadata, changes = Json().read_page(
        SERVICES, page(api_service("a"), api_service("b"), **{"continue": "token"})
    )
    assert metadata.continue_ == "token"
    found = [(change.key, change.model is not None) for change in changes]
    assert found == [(name("a"), True), (name("b"), True)]


def test_the_formats_are_those_of_the_flag() -> None:
    assert CONTENT_TYPES == (PROTOBUF, JSON)


@pytest.mark.parametrize(
    ("resource", "wanted", "header"),
    [
        (SERVICES, PROTOBUF, "application/vnd.kubernetes.protobuf,application/json"),
        (SERVICES, JSON, "application/json"),
        *((resource, PROTOBUF, "application/json") for resource in GATEWAY_API),
    ],
)
def test_custom_resources_are_requested_in_json(resource: ApiResource, wanted: str, header: str) -> None:
    assert accepted(resource, wanted) == header


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/vnd.kubernetes.protobuf", ProtobufFormat),
        ("Application/vnd.kubernetes.protobuf ;stream=watch", ProtobufFormat),
        ("application/json", Json),
        ("text/html", Json),
        ("", Json),
        (None, Json),
    ],
)
def test_the_format_of_a_response(content_type: str | None, kind: type) -> None:
    assert type(format_of(content_type)) is kind


def test_the_last_page_has_a_resource_version() -> None:
    metadata, changes = Json().read_page(SERVICES, page(resourceVersion="17"))
    assert (metadata.continue_, metadata.resource_version, list(changes)) == (None, "17", [])


@pytest.mark.parametrize(
    ("resource", "content"),
    [
        (SERVICES, api_service("web", 7, type="NodePort", ports=[{"port": 80, "nodePort": 30000}])),
        (SLICES, api_slice("web-1", "web", 7, "10.0.0.1", "10.0.0.2")),
        (NODE, api_node("n1", "here")),
    ],
)
def test_an_object_is_decoded_as_in_a_manifest(resource: ApiResource, content: dict[str, Any]) -> None:
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, **content}
    state = decode([Document(events.SOURCE, whole)]).state
    expected: list[Any] = [*state.services.values(), *chain(*state.slices.values()), *state.nodes.values()]
    assert [change(resource, "ADDED", content).model] == expected


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED"])
def test_an_event_has_its_objects_version(type_: str) -> None:
    assert event(SERVICES, type_, api_service("web", 42)).version == "42"


def test_of_a_deleted_object_only_the_name_is_decoded() -> None:
    found = event(SERVICES, "DELETED", api_service("web", 43, ports="nonsense"))
    assert found.version == "43"
    assert found.change == ObjectChange(SERVICES.kind, name("web"), None)


@pytest.mark.parametrize(
    ("annotations", "ends_list"),
    [(None, False), ({}, False), ({END_OF_LIST: "true"}, True), ({END_OF_LIST: "false"}, False)],
)
def test_a_bookmark_has_a_version_and_may_end_a_list(annotations: Any, ends_list: bool) -> None:
    metadata = {"resourceVersion": "44", "annotations": annotations}
    found = event(SERVICES, "BOOKMARK", {"kind": "Service", "metadata": metadata})
    assert found == Event("44", ends_list=ends_list)


def test_an_error_has_a_status() -> None:
    found = event(SERVICES, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
    assert found.status is not None
    assert (found.status.code, found.status.reason) == (410, "Expired")


def test_an_invalid_object_does_not_affect_others_on_the_page() -> None:
    invalid = api_service("invalid", ports=[{"port": 0}])
    _, (first, second) = Json().read_page(SERVICES, page(invalid, api_service("valid")))
    assert first.key == name("invalid")
    assert first.undecodable is not None
    expected = "cluster: Service default/invalid: spec.ports[0].port: 0 is not a port (1-65535)"
    assert str(first.undecodable) == expected
    assert first.undecodable.unreadable.services.keys() == {name("invalid")}
    assert second.model is not None


@pytest.mark.parametrize("metadata", [{}, {"name": 1}, {"name": ""}])
def test_an_object_without_a_valid_name_is_reported(metadata: dict[str, Any]) -> None:
    found = change(SERVICES, "ADDED", {"metadata": metadata, "spec": {}})
    assert found.key == UNNAMED
    assert found.undecodable is not None


def test_an_object_with_invalid_metadata_has_a_name() -> None:
    invalid = api_slice("web-1", "web", 9, metadata={"labels": 5})
    assert change(SLICES, "ADDED", invalid).key == name("web-1")
    assert event(SLICES, "DELETED", invalid)[:2] == ("9", ObjectChange(SLICES.kind, name("web-1"), None))


def test_a_slice_without_a_service_is_not_used() -> None:
    found = change(SLICES, "ADDED", api_slice("loose", None))
    assert (found.key, found.model, found.undecodable) == (name("loose"), None, None)


def test_a_slice_has_the_time_of_its_trigger() -> None:
    when = "2026-11-22T10:00:00Z"
    metadata = {"annotations": {events.TRIGGER: when}}
    assert change(SLICES, "ADDED", api_slice("web-1", "web", 1, metadata=metadata)).trigger == when
    assert change(SLICES, "ADDED", api_slice()).trigger == ""


def test_the_node_is_requested_by_name() -> None:
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
def test_a_line_that_is_not_an_event_is_an_error(text: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        Json().read_event(SERVICES, text)


@pytest.mark.parametrize("text", [b"", b"{}", page(api_service())[:-2], b"\xff", b"[" * 100_000])
def test_a_response_that_is_not_a_list_is_an_error(text: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        Json().read_page(SERVICES, text)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000])
def test_an_invalid_status_is_read_as_an_empty_one(text: bytes) -> None:
    assert Json().read_status(text).code is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_assembled_from_pieces_of_any_size(size: int) -> None:
    text = b"first\n\nsecond\nthird, which is longer\nno end"
    lines = Lines()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    found = [line for piece in pieces for line in lines.feed(piece)]
    assert found == [b"first", b"second", b"third, which is longer"]


def test_a_line_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "API_OBJECT", 9)
    monkeypatch.setattr(formats, "EVENT_OVERHEAD", 1)
    lines = Lines()
    assert list(lines.feed(b"12345")) == []
    with pytest.raises(InvalidResponseError):
        list(lines.feed(b"678901"))


def test_a_single_object_is_requested_by_name() -> None:
    assert SERVICES.single(name("web")) == (
        "/api/v1/namespaces/default/services",
        {**SERVICES.selector, "fieldSelector": "metadata.name=web"},
    )
    assert SERVICE_CIDRS.single(name("kubernetes")) == (
        "/apis/networking.k8s.io/v1/servicecidrs",
        {"fieldSelector": "metadata.name=kubernetes"},
    )
    assert SLICES.single(name("web"))[0] == "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    assert NODE.single(name("n1")) == (NODE.path, NODE.selector)


def test_an_object_has_a_version_until_it_is_deleted() -> None:
    assert change(SERVICES, "ADDED", api_service("web", 7)).version == "7"
    assert change(SERVICES, "MODIFIED", api_service("web", 8, ports="nonsense")).version == "8"
    assert change(SERVICES, "DELETED", api_service("web", 9)).version == ""

"""A server that sends objects of another kind than was requested: an error, and none of them is used."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kproxy.problems import InvalidResponseError
from kproxy.sources.cluster.core.formats import Format, Json, ProtobufFormat
from kproxy.sources.cluster.core.resources import GATEWAY_API, SERVICES, ApiResource
from tests.apiserver import protobuf
from tests.unit.cluster import api_node, api_service

SERVICE, LIST = {"kind": "Service", "apiVersion": "v1"}, {"kind": "ServiceList", "apiVersion": "v1"}
ROUTES = GATEWAY_API[2]
ROUTE = {
    "metadata": {"name": "web", "resourceVersion": "1"},
    "spec": {"rules": [{"backendRefs": [{"name": "a", "port": 1}]}]},
}
FORMATS = {"JSON": Json, "protobuf": ProtobufFormat}


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]()


def event(form: Format, type_: str, content: Any) -> bytes:
    line = msgspec.json.encode({"type": type_, "object": content})
    return line if isinstance(form, Json) else protobuf.event(line)[4:]


def page(form: Format, about: dict[str, str], *items: Any) -> bytes:
    body = msgspec.json.encode({**about, "metadata": {"resourceVersion": "1"}, "items": items})
    return body if isinstance(form, Json) else protobuf.response(body)


def about(kind: str, version: str = "v1") -> dict[str, str]:
    return {"kind": kind, "apiVersion": version}


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
def test_an_event_about_another_kind_is_an_error(form: Format, type_: str) -> None:
    data = event(form, type_, {**about("Node"), **api_node("n1")})
    with pytest.raises(InvalidResponseError, match="expected Service of v1, got Node of v1"):
        form.read_event(SERVICES, data)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (about("NodeList"), "NodeList of v1"),
        (about("ServiceList", "v2"), "ServiceList of v2"),
    ],
)
def test_a_list_of_another_kind_is_an_error(form: Format, wrong: dict[str, str], got: str) -> None:
    with pytest.raises(InvalidResponseError, match=f"expected ServiceList of v1, got {got}"):
        form.read_page(SERVICES, page(form, wrong))


def test_a_status_instead_of_a_list_is_an_error() -> None:
    body = msgspec.json.encode({**about("Status"), "metadata": {}, "status": "Failure"})
    with pytest.raises(InvalidResponseError, match="expected ServiceList of v1, got Status of v1"):
        Json().read_page(SERVICES, body)


def test_a_long_name_of_a_kind_is_cut(form: Format) -> None:
    data = page(form, about("NodeList", "v" * 100_000))
    with pytest.raises(InvalidResponseError) as error:
        form.read_page(SERVICES, data)
    assert len(str(error.value)) < 1_000


def test_an_error_has_a_status(form: Format) -> None:
    data = event(form, "ERROR", {**about("Status"), "code": 410, "message": "gone"})
    found = form.read_event(SERVICES, data)
    assert found.status
    assert found.status.code == 410


def test_what_was_requested_is_read(form: Format) -> None:
    assert form.read_event(SERVICES, event(form, "ADDED", {**SERVICE, **api_service()})).change
    _, changes = form.read_page(SERVICES, page(form, LIST, api_service()))
    assert [each.undecodable for each in changes] == [None]


@pytest.mark.parametrize(
    ("resource", "content"),
    [
        (SERVICES, api_service()),  # without kind and version, as in a list
        (SERVICES, {**api_service(), **SERVICE}),
        (ROUTES, {"apiVersion": ROUTES.api_version, "kind": ROUTES.kind, **ROUTE}),
        (ROUTES, {**ROUTE, "kind": ROUTES.kind}),
    ],
)
def test_kind_and_version_may_be_anywhere_in_json_or_absent(resource: ApiResource, content: Any) -> None:
    change = Json().read_event(resource, event(Json(), "ADDED", content)).change
    assert change
    assert change.undecodable is None


def test_kind_and_version_may_be_absent_in_protobuf() -> None:
    form = ProtobufFormat()
    data = event(form, "ADDED", {**about("", ""), **api_service()} | {"kind": "Service"})
    known = event(form, "ADDED", {**SERVICE, **api_service()})
    assert len(data) < len(known)
    assert form.read_event(SERVICES, data).change == form.read_event(SERVICES, known).change


def test_an_object_whose_kind_is_unknown_because_it_is_invalid_is_a_problem_of_this_object() -> None:
    change = (
        Json().read_event(SERVICES, event(Json(), "ADDED", {**api_service(), "kind": 5, "spec": 5})).change
    )
    assert change
    assert change.undecodable

"""An object has the same meaning in protobuf as in JSON, and any bytes are an object or an error of kproxy's.

The numbers of the fields in the encoder of the tests are written down independently of kproxy's. A real API
server is compared in tests/apiserver/test_formats.py.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.decode import wire
from kproxy.decode.protobuf import NUMBERS, SHARED, SHORT, Protobuf, event, opened
from kproxy.decode.text import from_json
from kproxy.limits import OBJECT_NOTES
from kproxy.model import Service
from kproxy.problems import InvalidResponseError, LimitError
from kproxy.sources.cluster.core.events import Event
from kproxy.sources.cluster.core.formats import Frames, Json, ProtobufFormat
from kproxy.sources.cluster.core.resources import (
    GATEWAY_API,
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    ApiResource,
    node_resource,
)
from tests.apiserver import protobuf

NODES = node_resource("n1")
WIRE: dict[str, Any] = {
    "Service": wire.Service,
    "EndpointSlice": wire.EndpointSlice,
    "Node": wire.Node,
    "ServiceCIDR": wire.ServiceCIDR,
}
RESOURCES = (SERVICES, SLICES, NODES, SERVICE_CIDRS)
TEXTS = st.sampled_from(
    [
        *(
            "a",
            "web",
            "default",
            "10.96.0.1",
            "10.0.0.7",
            "fd00::1",
            "10.0.0.0/8",
            "None",
            "nonsense",
            "x" * 300,
        ),
        *(
            "ClusterIP",
            "NodePort",
            "LoadBalancer",
            "ExternalName",
            "ClientIP",
            "Local",
            "Cluster",
            "VIP",
            "Proxy",
        ),
        *("TCP", "UDP", "IPv4", "IPv6", "FQDN", "SingleStack", "PreferDualStack", "Pod", "Ready", "True"),
    ]
)
KEYS = st.sampled_from(
    [
        *("kubernetes.io/service-name", "service.kubernetes.io/headless", "app", "kproxy.io/weights"),
        *("endpoints.kubernetes.io/last-change-trigger-time", "service.kubernetes.io/service-proxy-name"),
    ]
)
NUMBERS_IN_JSON = st.sampled_from([0, 1, 80, 30000, 65535, 65536, -1, 2**31 - 1, -(2**31)])
REQUIRED = {
    *("metadata", "name", "spec", "addressType", "port", "type", "status", "address", "targetPort"),
}
"""Fields that objects of a server always have, if a server has fields with these names."""
LISTS = {
    *("ports", "externalIPs", "loadBalancerSourceRanges", "clusterIPs", "ipFamilies", "ingress", "endpoints"),
    *("addresses", "forZones", "forNodes", "podCIDRs", "taints", "conditions", "cidrs", "ownerReferences"),
    *("finalizers", "causes"),
}


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    "time": st.sampled_from(["2026-01-05T09:30:00Z"]),
    "int or string": st.one_of(TEXTS, NUMBERS_IN_JSON),
    str: TEXTS,
    int: NUMBERS_IN_JSON,
    bool: st.booleans(),
    dict: st.dictionaries(KEYS, TEXTS),
}


def value(name: str, kind: Any, owner: str) -> st.SearchStrategy[Any]:
    """Return values of a field of the double's tables."""
    found: st.SearchStrategy[Any] = message(kind, name) if isinstance(kind, dict) else VALUES[kind]
    return st.lists(found, max_size=3) if is_list(name, owner) else found


def is_list(name: str, owner: str) -> bool:
    """Whether a field of a field `owner` is a list."""
    return name in LISTS and not (name == "conditions" and owner == "endpoints")


def message(fields: dict[str, Any], owner: str = "") -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some fields of a table."""
    values: dict[str, st.SearchStrategy[Any]] = {
        name: value(name, kind, owner) for name, (_, kind) in fields.items()
    }
    required = {name: each for name, each in values.items() if name in REQUIRED}
    optional = {name: each for name, each in values.items() if name not in REQUIRED}
    found: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(required, optional=optional)
    return found


OBJECTS: st.SearchStrategy[tuple[ApiResource, dict[str, Any]]] = st.one_of(
    [st.tuples(st.sampled_from([resource]), message(protobuf.KINDS[resource.kind])) for resource in RESOURCES]
)


def full(fields: dict[str, Any], owner: str = "") -> dict[str, Any]:
    """Return an object with all fields of a table."""
    found = {}
    for name, (_, kind) in fields.items():
        each = full(kind, name) if isinstance(kind, dict) else FULL.get(kind, f"a {name}")
        found[name] = [each] if is_list(name, owner) else each
    return found


FULL: dict[Any, Any] = {
    "time": "2026-01-05T09:30:00Z",
    "int or string": 81,
    int: 80,
    bool: True,
    dict: {"app": "web"},
}


def frame_of(resource: ApiResource, content: dict[str, Any]) -> bytes:
    """Return an event in protobuf, without its length."""
    known = {"kind": resource.kind, "apiVersion": resource.api_version, **content}
    return protobuf.event(msgspec.json.encode({"type": "ADDED", "object": known}))[4:]


def meaning(found: Any) -> Any:
    """Return a value without what is absent, or empty, which has the same meaning."""
    if isinstance(found, list):
        return [meaning(each) for each in found]
    if isinstance(found, dict):
        known = {name: meaning(each) for name, each in found.items()}
        return {name: each for name, each in known.items() if each not in (None, "", [], {})}
    return found


def compare(resource: ApiResource, content: dict[str, Any]) -> None:
    """Check that an object is the same in both formats, and what it means."""
    kind, frame = WIRE[resource.kind], frame_of(resource, content)
    in_json = from_json(msgspec.json.encode(content), kind)
    in_protobuf = opened(event(frame)[1]).convert(kind)
    assert meaning(msgspec.to_builtins(in_protobuf)) == meaning(msgspec.to_builtins(in_json))
    line = msgspec.json.encode({"type": "ADDED", "object": content})
    change, other = (
        Json().read_event(resource, line).change,
        ProtobufFormat().read_event(resource, frame).change,
    )
    assert change
    assert other
    assert str(other.undecodable) == str(change.undecodable)
    assert other._replace(undecodable=None, size=0) == change._replace(undecodable=None, size=0)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_all_fields_are_the_same_in_both_formats(resource: ApiResource) -> None:
    compare(resource, full(protobuf.KINDS[resource.kind]))


@given(OBJECTS)
def test_an_object_is_the_same_in_both_formats(found: tuple[ApiResource, dict[str, Any]]) -> None:
    compare(*found)


@pytest.mark.parametrize(
    "status",
    [
        {
            "message": "try later",
            "reason": "TooManyRequests",
            "details": {"retryAfterSeconds": 7},
            "code": 429,
        },
        {"message": "", "details": {"kind": "services", "causes": [{"reason": "a", "message": "b"}]}},
    ],
)
def test_a_status_is_the_same_in_both_formats(status: dict[str, Any]) -> None:
    text = msgspec.json.encode({"kind": "Status", "apiVersion": "v1", **status})
    found, other = Json().read_status(text), ProtobufFormat().read_status(protobuf.response(text))
    assert meaning(msgspec.to_builtins(other)) == meaning(msgspec.to_builtins(found))


@given(OBJECTS, st.data())
def test_any_bytes_are_an_event_or_an_error(
    found: tuple[ApiResource, dict[str, Any]], data: st.DataObject
) -> None:
    resource, content = found
    frame = bytearray(frame_of(resource, content))
    for place in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(frame)))
    for part in (bytes(frame), bytes(frame[:end])):
        try:
            ProtobufFormat().read_event(resource, part)
        except InvalidResponseError:
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page_or_an_error(data: bytes) -> None:
    for body in (data, b"k8s\0" + data):
        ProtobufFormat().read_status(body)
        try:
            _, changes = ProtobufFormat().read_page(SERVICES, body)
            list(changes)
        except InvalidResponseError:
            continue


@given(st.lists(st.binary(max_size=50)), st.integers(1, 20))
def test_a_watch_is_split_into_events(frames: list[bytes], size: int) -> None:
    stream = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    splitter = Frames()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [frame for piece in pieces for frame in splitter.feed(piece)] == frames


def test_an_event_that_is_too_long_is_an_error() -> None:
    with pytest.raises(LimitError, match="a watch event is longer than 4 MiB"):
        list(Frames().feed(b"\0\x50\0\0"))


def test_a_page_of_many_items_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kproxy.sources.cluster.core.formats.API_VALUES", 2)
    items = {"kind": "ServiceList", "apiVersion": "v1", "metadata": {}, "items": [{}, {}, {}]}
    with pytest.raises(LimitError, match="more than 2 values"):
        ProtobufFormat().read_page(SERVICES, protobuf.response(msgspec.json.encode(items)))


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_the_fields_without_numbers_are_the_last_ones(kind: Any) -> None:
    numbers = NUMBERS[kind]
    assert set(kind.__struct_fields__[: len(numbers)]) == set(numbers)
    assert all(default is None for default in kind.__struct_defaults__[len(numbers) :])


# Hostile values. `field` encodes one: a message is the bytes of its fields.

field = protobuf._field
SPEC = field(3, "10.96.0.1") + field(1, field(3, 80))
NOT_UTF8 = b"a\xffb"


def service(metadata: bytes = b"", spec: bytes = b"", rest: bytes = b"") -> bytes:
    """Return a valid Service, with more fields."""
    identity = field(1, "web") + field(3, "default") + field(6, "7")
    return field(1, identity + metadata) + field(2, SPEC + spec) + rest


def read(content: bytes, type_: str | bytes = "MODIFIED", resource: ApiResource = SERVICES) -> Event:
    """Return an event with this content."""
    around = field(1, b"k8s\0" + field(2, content))
    return ProtobufFormat().read_event(resource, field(1, type_) + field(2, around))


@pytest.mark.parametrize(
    "content",
    [
        service(field(5, NOT_UTF8)),
        service(field(11, field(1, "app") + field(2, NOT_UTF8))),
        service(field(11, field(1, NOT_UTF8) + field(2, "web"))),
        service(field(12, field(1, "a") + field(2, NOT_UTF8))),
        *(service(spec=field(number, NOT_UTF8)) for number in (3, 4, 5, 7, 8, 9, 10, 11, 17, 18, 19, 21)),
        service(spec=field(2, field(1, "app") + field(2, NOT_UTF8))),
        service(spec=field(1, field(1, NOT_UTF8) + field(3, 81))),
        service(spec=field(1, field(4, field(1, 1) + field(3, NOT_UTF8)) + field(3, 81))),
        service(rest=field(3, field(1, field(1, field(1, NOT_UTF8))))),
    ],
)
def test_an_object_with_text_that_is_not_utf8_is_a_problem_that_names_it(content: bytes) -> None:
    change = read(content).change
    assert change
    assert (change.key, change.version) == (("default", "web"), "7")
    assert change.undecodable
    assert change.undecodable.problem.object == "Service default/web"
    assert "bad UTF-8" in change.undecodable.problem.message


@pytest.mark.parametrize("number", [1, 3, 6])
def test_an_object_whose_name_or_version_is_not_utf8_has_neither(number: int) -> None:
    content = service(field(number, NOT_UTF8))
    event = read(content)
    assert event.change
    assert (event.change.key, event.version) == (("", ""), "")
    for type_ in ("DELETED", "BOOKMARK") if number == 6 else ("DELETED",):
        with pytest.raises(InvalidResponseError):
            read(content, type_)


@pytest.mark.parametrize("content", [field(3, NOT_UTF8), field(4, NOT_UTF8)])
def test_a_status_with_text_that_is_not_utf8_is_none(content: bytes) -> None:
    assert ProtobufFormat().read_status(b"k8s\0" + field(2, content)) == wire.Status()
    with pytest.raises(InvalidResponseError):
        read(content, "ERROR")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-(1 << 63) + 1, "0001-01-01T00:00:00Z"),
        (-62135596801, "0001-01-01T00:00:00Z"),
        (-62135596800, "0001-01-01T00:00:00Z"),
        (-62135596799, "0001-01-01T00:00:01Z"),
        (0, "1970-01-01T00:00:00Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
        (253402300800, "9999-12-31T23:59:59Z"),
        ((1 << 63) - 1, "9999-12-31T23:59:59Z"),
    ],
)
def test_any_time_is_a_text_in_the_order_of_time(seconds: int, expected: str) -> None:
    change = read(service(field(8, field(1, seconds)) + field(9, field(1, seconds)))).change
    assert change
    assert isinstance(change.model, Service)
    assert change.model.origin.created == expected


@pytest.mark.parametrize("resource", GATEWAY_API, ids=lambda resource: resource.kind)
def test_protobuf_of_a_kind_that_has_none_is_a_problem(resource: ApiResource) -> None:
    change = read(service(), resource=resource).change
    assert change
    assert change.undecodable
    assert change.undecodable.problem.message == "is protobuf, which kproxy does not read for this kind"


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Yield a function that returns the memory of Python's objects made in the block: now, and its peak."""
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


def test_the_items_of_a_page_are_copied_one_by_one() -> None:
    items = [service(rest=field(99, b"x" * 50_000))] * 100
    body = bytearray(
        b"k8s\0" + field(2, field(1, field(2, "9")) + b"".join(field(2, each) for each in items))
    )
    ProtobufFormat().read_page(SERVICES, body)
    with traced() as memory:
        metadata, changes = ProtobufFormat().read_page(SERVICES, body)
        assert (metadata.resource_version, len([each.model for each in changes])) == ("9", 100)
        assert memory()[1] < 1.5 * len(body)


@pytest.mark.parametrize("kind", sorted(SHARED, key=str), ids=lambda kind: kind.__name__)
def test_a_message_that_is_kept_has_at_most_2_kb(kind: Any) -> None:
    def largest(number: int) -> bytes:
        """Return the longest message that is kept, with as many small fields as possible."""
        item = field(1, "")
        list_ = item * ((SHORT - 8) // len(item)) + field(15, number)
        return field(1, list_) if kind is wire.ObjectStatus else list_

    messages = [largest(number) for number in range(50)]
    assert len(messages[0]) <= SHORT
    Protobuf(largest(127)).convert(kind)
    with traced() as memory:
        found = [Protobuf(each).convert(kind) for each in messages]
        assert memory()[0] / len(found) < 2_500


def test_the_warnings_about_many_tiny_parts_are_counted() -> None:
    labels = field(11, field(1, "kubernetes.io/service-name") + field(2, "web"))
    metadata = field(1, field(1, "web-1") + field(3, "default") + labels)
    change = read(metadata + field(4, "IPv4") + field(2, "") * 1_234, resource=SLICES).change
    assert change
    assert len(change.warnings) == OBJECT_NOTES + 1
    assert str(change.warnings[0]).startswith("cluster: EndpointSlice default/web-1: endpoints[0]")
    assert str(change.warnings[-1]) == "cluster: EndpointSlice default/web-1: there are 1,224 more warnings"

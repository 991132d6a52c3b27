"""A list or a map of an object has a limit in each format. So no object blocks the event loop for long."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import Meta, Raw, Struct

from kproxy.decode import gatewaywire, wire
from kproxy.decode.objects import UndecodableError, decode_object
from kproxy.decode.service import WEIGHTS
from kproxy.limits import OBJECT_ITEMS, OBJECT_NOTES, OBJECT_VALUES
from kproxy.sources.cluster.core.events import Content, ObjectChange, change_of
from kproxy.sources.cluster.core.resources import SERVICES
from tests.large_objects import LARGE, Large
from tests.unit.make import name

UNLIMITED = {"Page.items", "Head.items", "LoadedHead.items"}
"""The items of lists of objects, which have other limits."""
FORMATS = {"json": Large.json, "protobuf": Large.protobuf}
IN_BOTH = [(each, form) for each in LARGE for form in FORMATS if form == "json" or each.resource.has_protobuf]
IN_MANIFESTS = [each for each in LARGE if each.kind != "ServiceCIDR"]
IDS = [f"{each.kind}.{each.field}-{form}" for each, form in IN_BOTH]


def lists(type_: Any, limited: bool = False) -> list[bool]:
    """Whether each list or map in a type has the limit."""
    if get_origin(type_) is Annotated:
        return lists(get_args(type_)[0], Meta(max_length=OBJECT_ITEMS) in type_.__metadata__)
    found = [limited] if type_ in (list, dict) or get_origin(type_) in (list, dict) else []
    return found + [each for part in get_args(type_) for each in lists(part)]


def test_each_list_and_map_of_an_object_has_a_limit() -> None:
    found = {
        f"{name}.{field}": lists(type_)
        for module in (wire, gatewaywire)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Struct)
        for field, type_ in get_type_hints(kind, include_extras=True).items()
    }
    assert {place for place, limited in found.items() if not all(limited)} == UNLIMITED
    assert sum(map(len, found.values())) > 80


@pytest.mark.parametrize(("large", "form"), IN_BOTH, ids=IDS)
def test_too_many_items_are_a_problem_that_names_the_object_and_the_field(large: Large, form: str) -> None:
    change = change_of(large.resource, FORMATS[form](large, OBJECT_ITEMS + 1))
    assert change.undecodable
    assert change.key.name == "web"
    problem = change.undecodable.problem
    assert problem.object == f"{large.kind} default/web"
    assert re.sub(r"\[\d+\]", "", problem.field) == large.field
    assert problem.message == f"has more than {OBJECT_ITEMS:,} items"


@pytest.mark.parametrize("loads", [Raw, msgspec.json.decode], ids=["JSON", "loaded from YAML"])
@pytest.mark.parametrize("large", IN_MANIFESTS, ids=[f"{each.kind}.{each.field}" for each in IN_MANIFESTS])
def test_manifests_have_the_same_limit(large: Large, loads: Callable[[bytes], Any]) -> None:
    content = loads(bytes(large.json(OBJECT_ITEMS + 1)))  # type: ignore[arg-type]
    meta = wire.TypeMeta(large.kind, large.resource.api_version)
    with pytest.raises(UndecodableError, match=f"has more than {OBJECT_ITEMS:,} items"):
        decode_object("f", meta, content, manifest=True)


@pytest.mark.parametrize(("large", "form"), IN_BOTH, ids=IDS)
def test_as_many_items_as_allowed_are_read(large: Large, form: str) -> None:
    change = change_of(large.resource, FORMATS[form](large, OBJECT_ITEMS))
    assert "items" not in str(change.undecodable or "")
    assert len(change.warnings) <= 2 * OBJECT_NOTES + 1


def service(**fields: Any) -> ObjectChange:
    metadata = {"name": "web", **fields.pop("metadata", {})}
    spec = {"type": "LoadBalancer", "clusterIP": "10.96.0.1", **fields}
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    content: Content = Raw(msgspec.json.encode({"metadata": metadata, "spec": spec, "status": status}))
    return change_of(SERVICES, content)


def test_an_annotation_with_too_many_weights_is_ignored() -> None:
    text = ",".join(["a=2"] * (OBJECT_ITEMS + 1))
    found = service(metadata={"annotations": {WEIGHTS: text}}, ports=[{"port": 80}])
    assert str(found.warnings[0]).endswith(f"has more than {OBJECT_ITEMS:,} entries: ignored")
    assert not found.model.weights  # type: ignore[union-attr]


def with_values(items: int, **metadata: Any) -> Raw:
    """Return an EndpointSlice with so many items in a list that kproxy does not read: two values each."""
    labels = {"kubernetes.io/service-name": "web"}
    about = {"name": "web-1", "namespace": "apps", "labels": labels, **metadata}
    return Raw(msgspec.json.encode({"metadata": about, "addressType": "IPv4", "unread": [{}] * items}))


@pytest.mark.parametrize("manifest", [False, True])
def test_an_object_with_too_many_values_is_a_problem(manifest: bool) -> None:
    meta = wire.TypeMeta("EndpointSlice", "discovery.k8s.io/v1")
    with pytest.raises(UndecodableError) as raised:
        decode_object("f", meta, with_values(OBJECT_VALUES // 2 + 1), manifest=manifest)
    assert str(raised.value) == f"f: EndpointSlice apps/web-1: has more than {OBJECT_VALUES:,} values"
    assert list(raised.value.unreadable.services) == [name("apps/web")]
    assert decode_object("f", meta, with_values(OBJECT_VALUES // 2 - 20), manifest=manifest)


def test_an_object_with_too_many_values_and_without_a_name_may_belong_to_any_service() -> None:
    meta = wire.TypeMeta("EndpointSlice", "discovery.k8s.io/v1")
    with pytest.raises(UndecodableError) as raised:
        decode_object("f", meta, with_values(OBJECT_VALUES, name=5))
    assert raised.value.unreadable.everything


def test_a_long_text_is_not_many_values() -> None:
    found = service(metadata={"annotations": {"a": "," * (OBJECT_VALUES - 100)}}, ports=[{"port": 80}])
    assert found.model

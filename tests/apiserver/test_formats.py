"""Protobuf: lists, watches and errors contain the same as in JSON. For the double or a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, takewhile
from typing import Any

import pytest

from kproxy.sources.cluster.core.events import Event, ObjectChange
from kproxy.sources.cluster.core.formats import JSON, PROTOBUF, accepted, format_of
from kproxy.sources.cluster.core.resources import (
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    ApiResource,
    node_resource,
)
from kproxy.sources.cluster.core.streamed import QUERY
from tests.apiserver.client import Answer
from tests.apiserver.objects import node
from tests.apiserver.own import Own, done

RICH: dict[str, Any] = {
    "type": "LoadBalancer",
    "selector": {"app": "web"},
    "ports": [
        {
            "name": "http",
            "port": 80,
            "targetPort": "web",
            "protocol": "TCP",
            "appProtocol": "h2c",
        },
        {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
    ],
    "externalIPs": ["198.51.100.7"],
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    "loadBalancerSourceRanges": ["203.0.113.0/24"],
    "loadBalancerClass": "example.com/internal",
    "allocateLoadBalancerNodePorts": False,
    "externalTrafficPolicy": "Cluster",
    "internalTrafficPolicy": "Local",
    "trafficDistribution": "PreferClose",
    "publishNotReadyAddresses": True,
}
ENDPOINTS: list[dict[str, Any]] = [
    {
        "addresses": ["10.244.1.2"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-0"},
        "hostname": "web-0",
        "zone": "a",
        "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}, {"name": "n2"}]},
    },
    {"addresses": ["10.244.1.3"], "conditions": {"ready": False}},
    {"addresses": ["10.244.1.4"]},
]

INGRESS = [{"ip": "192.0.2.9", "ipMode": "Proxy"}, {"ip": "192.0.2.10"}, {"hostname": "lb.example.com"}]


@pytest.fixture
def rich(own: Own) -> Own:
    """A namespace with objects that have many fields."""
    headless = own.service("headless")
    headless["spec"] |= {"clusterIP": "None"}
    external = own.service("external")
    external["spec"] = {"type": "ExternalName", "externalName": "example.com"}
    web, slice_ = own.service("web"), own.slice("web-1")
    web["spec"] = RICH
    web["metadata"]["annotations"] = {"kproxy.io/weights": "web-0=3"}
    slice_["endpoints"] = ENDPOINTS
    own.create(own.service("plain"), headless, external, web, slice_)
    done(own.client.patch(web, {"status": {"loadBalancer": {"ingress": INGRESS}}}, "/status"))
    return own


@contextmanager
def accepting(own: Own, resource: ApiResource, wanted: str) -> Iterator[None]:
    """Send the header Accept in the block."""
    own.client.headers["Accept"] = accepted(resource, wanted)
    try:
        yield
    finally:
        del own.client.headers["Accept"]


def ask(own: Own, resource: ApiResource, wanted: str, path: str = "", **query: Any) -> Answer:
    """Request a list of the namespace, or another path, in a format. It must arrive in that format."""
    group, _, plural = resource.path.rpartition("/")
    below = f"{group}/namespaces/{own.namespace}/{plural}" if resource.namespaced else resource.path
    with accepting(own, resource, wanted):
        answer = own.client.get(path or below, **query)
    assert answer.headers["content-type"].partition(";")[0] == wanted
    return answer


def listed(own: Own, resource: ApiResource, wanted: str) -> tuple[str, list[ObjectChange]]:
    """Return the version and the objects of a list."""
    answer = ask(own, resource, wanted, **resource.selector)
    metadata, changes = format_of(answer.headers["content-type"]).read_page(resource, answer.body)
    return metadata.resource_version or "", [change._replace(size=0) for change in changes]


@pytest.mark.parametrize("resource", [SERVICES, SLICES], ids=lambda resource: resource.kind)
def test_a_list_is_the_same(rich: Own, resource: ApiResource) -> None:
    version, found = listed(rich, resource, PROTOBUF)
    assert found
    assert all(change.model for change in found)
    assert int(version)
    assert found == listed(rich, resource, JSON)[1]


def test_a_node_is_the_same(own: Own) -> None:
    name = own.namespace
    own.create(node(name, {"topology.kubernetes.io/zone": "a"}))
    _, found = listed(own, node_resource(name), PROTOBUF)
    assert [change.key.name for change in found] == [name]
    assert found == listed(own, node_resource(name), JSON)[1]


def test_the_ranges_of_cluster_ips_are_the_same(own: Own) -> None:
    assert listed(own, SERVICE_CIDRS, PROTOBUF)[1] == listed(own, SERVICE_CIDRS, JSON)[1]


def test_a_list_has_pages(rich: Own) -> None:
    answer = ask(rich, SERVICES, PROTOBUF, limit=3)
    metadata, changes = format_of(PROTOBUF).read_page(SERVICES, answer.body)
    names = [change.key.name for change in changes]
    rest: dict[str, Any] = {"limit": 3, "continue": metadata.continue_}
    more = ask(rich, SERVICES, PROTOBUF, **rest)
    metadata, changes = format_of(PROTOBUF).read_page(SERVICES, more.body)
    assert [*names, *(change.key.name for change in changes)] == ["external", "headless", "plain", "web"]
    assert not metadata.continue_


def test_an_error_is_the_same(own: Own) -> None:
    answers = [ask(own, SERVICES, wanted, f"{own.services}/other") for wanted in (PROTOBUF, JSON)]
    found, other = (format_of(each.headers["content-type"]).read_status(each.body) for each in answers)
    assert found.message == 'services "other" not found'
    assert (found.code, found.reason, found.message) == (other.code, other.reason, other.message)


@contextmanager
def watching(own: Own, wanted: str, **query: Any) -> Iterator[Iterator[Event]]:
    """Yield the events of a watch of the Services."""
    with own.connected() as client:
        client.headers["Accept"] = accepted(SERVICES, wanted)
        response = client.open("GET", own.services, watch=1, timeoutSeconds=60, **query)
        assert (response.getheader("content-type") or "").partition(";")[0] == wanted
        form = format_of(response.getheader("content-type"))
        splitter = form.splitter()
        received = iter(partial(response.read1, 1 << 16), b"")
        yield (form.read_event(SERVICES, data) for part in received for data in splitter.feed(part))


def streamed(own: Own, wanted: str) -> list[ObjectChange]:
    """Return the objects of a streamed list, by name."""
    with watching(own, wanted, allowWatchBookmarks="true", **QUERY) as events:
        found = takewhile(lambda event: not event.ends_list, events)
        changes = [event.change._replace(size=0) for event in found if event.change]
    return sorted(changes, key=lambda change: change.key)


def test_a_streamed_list_is_the_same(rich: Own) -> None:
    found = streamed(rich, PROTOBUF)
    assert [change.key.name for change in found] == ["external", "headless", "plain", "web"]
    assert found == streamed(rich, JSON)


def test_a_watch_has_changes_and_deletions(rich: Own) -> None:
    with watching(rich, PROTOBUF, resourceVersion=rich.revision()) as events:
        rich.create(rich.service("new"))
        rich.delete(rich.service("plain"))
        changes = [event.change for event in islice(events, 2)]
    assert [(change.key.name, change.model is None) for change in changes if change] == [
        ("new", False),
        ("plain", True),
    ]


def test_a_watch_from_a_compacted_revision(own: Own, forget: Callable[[], None]) -> None:
    old = own.revision()
    own.create(own.service("a"), own.service("b"))
    forget()
    with watching(own, PROTOBUF, resourceVersion=old) as events:
        status = next(events).status
    assert status
    assert (status.code, status.reason) == (410, "Expired")

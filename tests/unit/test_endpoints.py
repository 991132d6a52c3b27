"""Which endpoints a service port has: by selector from pods, or from slices."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from typing import Any

import pytest

from kproxy.decode import Document, decode
from kproxy.model import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Family,
    Origin,
    Protocol,
    ServicePort,
    format_socket,
    parse_address,
)
from kproxy.resolve.endpoints import backends, usable
from kproxy.standalone.endpoints import all_slices
from tests.unit.make import manifest, name, service


def pod(
    own_name: str, ip: str | list[str], ready: bool = True, app: str = "web", **metadata: Any
) -> dict[str, Any]:
    """A pod with a named port 8080/TCP `http`."""
    ips = [ip] if isinstance(ip, str) else ip
    return manifest(
        "Pod",
        own_name,
        metadata={"labels": {"app": app, "own": own_name}, **metadata},
        spec={"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}], "nodeName": "n1"},
        status={
            "podIP": ips[0],
            "podIPs": [{"ip": text} for text in ips],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    )


GONE: dict[str, Any] = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
TWO = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]


def served(*objects: dict[str, Any], family: Family = Family.IPV4, **spec: Any) -> list[str]:
    """Sockets behind the first port of service `web`, once selectors are resolved."""
    selected = service(**{"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec})
    result = decode(Document("f", content) for content in (selected, *objects))
    assert result.problems == []
    port = result.state.services[name("web")].ports[0]
    slices = all_slices(result.state).get(name("web"), ())
    return [format_socket(*socket) for socket in backends(port, slices, family, "n1").endpoints]


def slice_of(ip: str, **rest: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": "web"}
    endpoints = [{"addresses": [ip]}] if ip else []
    defaults = {"addressType": "IPv4", "ports": [{"port": 1}], "endpoints": endpoints}
    return manifest("EndpointSlice", "web-x", metadata={"labels": labels}, **{**defaults, **rest})


def endpoints_of(ip: str) -> dict[str, Any]:
    return manifest("Endpoints", "web", subsets=[{"addresses": [{"ip": ip}], "ports": [{"port": 2}]}])


OTHER_PORT = {"containers": [{"ports": [{"name": "http", "containerPort": 9090}]}]}
UDP_PORT = {"containers": [{"ports": [{"name": "http", "containerPort": 9090, "protocol": "UDP"}]}]}


@pytest.mark.parametrize(
    ("objects", "spec", "expected"),
    [
        pytest.param(TWO, {}, ["10.0.0.1:8080", "10.0.0.2:8080"], id="by label"),
        pytest.param([*TWO, pod("c", "10.0.0.3", app="x")], {}, ["10.0.0.1:8080", "10.0.0.2:8080"], id="others are not"),
        pytest.param(TWO, {"selector": {"app": "web", "own": "b"}}, ["10.0.0.2:8080"], id="every label counts"),
        pytest.param(TWO, {"selector": {"app": "nobody"}}, [], id="nobody"),
        pytest.param(TWO, {"selector": {}}, [], id="no selector selects nothing"),
        pytest.param([pod("a", "10.0.0.1", namespace="other")], {}, [], id="another namespace"),
        pytest.param(TWO, {"ports": [{"port": 80}]}, ["10.0.0.1:80", "10.0.0.2:80"], id="target port absent"),
        pytest.param(TWO, {"ports": [{"port": 80, "targetPort": 81}]}, ["10.0.0.1:81", "10.0.0.2:81"], id="a number"),
        pytest.param([TWO[0], {**TWO[1], "spec": OTHER_PORT}], {}, ["10.0.0.1:8080", "10.0.0.2:9090"], id="a name, per pod"),
        pytest.param([TWO[0], {**TWO[1], "spec": UDP_PORT}], {}, ["10.0.0.1:8080"], id="a name of another protocol"),
        pytest.param([TWO[0], {**TWO[1], "spec": None}], {}, ["10.0.0.1:8080"], id="a name that a pod lacks"),
        pytest.param([TWO[0], pod("b", "10.0.0.2", False)], {}, ["10.0.0.1:8080"], id="not ready"),
        pytest.param([pod("b", "10.0.0.2", False)], {}, [], id="none ready"),
        pytest.param([pod("b", "10.0.0.2", False)], {"publishNotReadyAddresses": True}, ["10.0.0.2:8080"], id="published"),
        pytest.param([TWO[0], pod("b", "10.0.0.2", **GONE)], {}, ["10.0.0.1:8080"], id="terminating"),
        pytest.param([pod("b", "10.0.0.2", **GONE)], {}, ["10.0.0.2:8080"], id="only terminating ones serve"),
        pytest.param([pod("b", "10.0.0.2", False, **GONE)], {}, [], id="terminating and not serving"),
        pytest.param([manifest("Pod", "p", metadata={"labels": {"app": "web"}})], {}, [], id="no address yet"),
        pytest.param([*TWO, slice_of("10.0.0.9")], {}, ["10.0.0.9:1"], id="a given slice wins"),
        pytest.param([*TWO, endpoints_of("10.0.0.9")], {}, ["10.0.0.9:2"], id="given Endpoints win"),
        pytest.param([slice_of("10.0.0.9"), endpoints_of("10.0.0.8")], {}, ["10.0.0.9:1"], id="slices win over Endpoints"),
        pytest.param([*TWO, slice_of("")], {}, [], id="a given slice without endpoints wins"),
        pytest.param([slice_of("10.0.0.9", ports=[{"name": "x", "port": 1}])], {}, [], id="a port of another name"),
        pytest.param([slice_of("10.0.0.9", ports=[{"port": 1, "protocol": "UDP"}])], {}, [], id="of another protocol"),
    ],
)  # fmt: skip
def test_endpoints_of_a_service(
    objects: list[dict[str, Any]], spec: dict[str, Any], expected: list[str]
) -> None:
    assert served(*objects, **spec) == expected


@pytest.mark.xfail(
    strict=True, reason="Endpoints without subsets are as good as absent, an empty slice is not"
)
def test_given_endpoints_without_addresses_win() -> None:
    assert served(*TWO, manifest("Endpoints", "web")) == []


@pytest.mark.parametrize(
    ("family", "expected"), [(Family.IPV4, ["10.0.0.1:8080"]), (Family.IPV6, ["[fd00::1]:8080"])]
)
def test_each_family_has_its_own(family: Family, expected: list[str]) -> None:
    assert served(pod("a", ["10.0.0.1", "fd00::1"]), family=family) == expected


def test_an_external_name_selects_nothing() -> None:
    result = decode(Document("f", c) for c in (service(type="ExternalName", selector={"app": "web"}), *TWO))
    assert all_slices(result.state) == {}


READY, NOT_READY = (True, True, False), (False, False, False)
DRAINING, DEAD, STARTING = (False, True, True), (False, False, True), (False, True, False)


@pytest.mark.parametrize(
    ("conditions", "chosen"),
    [
        ([], []),
        ([READY, NOT_READY, DRAINING], [0]),
        ([NOT_READY, DRAINING, DEAD, STARTING], [1]),
        ([DRAINING, DRAINING], [0, 1]),
        ([NOT_READY, DEAD, STARTING], []),
        ([(True, True, True), DRAINING], [0]),
    ],
)
def test_ready_ones_or_else_those_that_serve_while_terminating(
    conditions: list[tuple[bool, bool, bool]], chosen: list[int]
) -> None:
    pairs = [(Endpoint(b"\n\0\0" + bytes([n]), *c), n) for n, c in enumerate(conditions)]
    assert [number for _, number in usable(pairs)] == chosen


def test_endpoints_are_sorted_and_each_is_there_once() -> None:
    """Two slices may overlap while a controller moves endpoints; who is ready in one is ready."""
    ips = [parse_address(f"10.0.0.{n}") for n in range(4)]
    slices = [
        EndpointSlice(
            name("web"), Origin("f", ""), own, Family.IPV4, (EndpointPort("", Protocol.TCP, port),), members
        )
        for own, port, members in (
            ("x", 80, (Endpoint(ips[3], node="n1"), Endpoint(ips[1], ready=False))),
            ("y", 80, (Endpoint(ips[1], node="n2"), Endpoint(ips[3], node="n1"))),
            ("z", 81, (Endpoint(ips[2]), Endpoint(ips[1], node="n2"))),
        )
    ]
    found = backends(ServicePort("", Protocol.TCP, 80, 80, 0), slices, Family.IPV4, "n1")
    assert found.endpoints == ((ips[1], 80), (ips[1], 81), (ips[2], 81), (ips[3], 80))
    assert found.local == (ips[2], ips[3]), "those of this node, and those of whom nobody knows"

"""Objects of the Gateway API: slips in manifests, attachment of routes, references, status, and what is held."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from kproxy.cli import main
from kproxy.controlplane.gateways import with_built_in
from kproxy.controlplane.hold import hold_objects
from kproxy.controlplane.ledger import NOTHING, Allocations
from kproxy.controlplane.ranges import parse_pool
from kproxy.decode import Decoded, decode
from kproxy.gateway.core.attachment import common_hostname
from kproxy.gateway.core.backends import permitted
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.findings import findings
from kproxy.gateway.core.httproute import http_routing, with_certificates
from kproxy.gateway.core.ingress import Objects
from kproxy.gateway.core.status import Condition, Statuses
from kproxy.gatewayapi import CONTROLLER, GatewayObjects
from kproxy.model import Family, NamespacedName, Node, format_address, parse_address
from kproxy.nft.elements import COMMENT_BYTES
from kproxy.resolve.frontends import MOST, in_slots
from kproxy.show.gateways import status_of
from kproxy.table.compile import compile_frontends
from tests.cases import cases
from tests.flows.scenarios.gateways import GRANT, gateway, made, route
from tests.resolution import Resolution, resolve
from tests.unit.make import RANGES, documents, manifest, service, slice_of

Object = dict[str, Any]
V1 = "gateway.networking.k8s.io/v1"
ADDRESSES = (parse_address("192.0.2.1"), parse_address("2001:db8::1"))
NODE = Node("n1", ADDRESSES, ADDRESSES)
POOL = replace(RANGES, pool=parse_pool("198.51.100.1-198.51.100.2"))


def read(*objects: Object) -> Decoded:
    return decode(documents(yaml.safe_dump_all(objects), "a.yaml"))


def resolved(*objects: Object, ranges: Any = RANGES, past: Allocations = NOTHING) -> Resolution:
    return resolve(read(*objects), past, ranges, NODE)


def statuses(*objects: Object, ranges: Any = RANGES) -> Statuses:
    found = resolved(*objects, ranges=ranges)
    return Statuses(objects_of(*objects), found.services.get, found.frontends)


def objects_of(*objects: Object) -> GatewayObjects:
    found = read(*objects)
    return with_certificates(with_built_in(found.gateways), found.state.secrets)


def listener(name: str = "a", port: Any = 80, protocol: str = "TCP", **rest: Any) -> Object:
    return {"name": name, "port": port, "protocol": protocol, **rest}


def with_listeners(*listeners: Object, name: str = "edge", **spec: Any) -> Object:
    return made("Gateway", name, 1, {"gatewayClassName": "kproxy", "listeners": list(listeners), **spec})


def tcp_route(
    *parents: Object, backends: Any = ({"name": "web", "port": 80},), namespace: str = ""
) -> Object:
    spec = {"parentRefs": list(parents), "rules": [{"backendRefs": list(backends)}]}
    return made("TCPRoute", "db", 1, spec, namespace)


def by_type(conditions: tuple[Condition, ...]) -> Mapping[str, tuple[bool, str]]:
    return {each.type: (each.status, each.reason) for each in conditions}


def http_route(*rules: Object, **spec: Any) -> Object:
    return made(
        "HTTPRoute", "web", 1, {"parentRefs": [EDGE], **({"rules": list(rules)} if rules else {}), **spec}
    )


REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"port": 80}}
EDGE = {"name": "edge"}
HTTP = [{"name": "http", "port": 8080}]
WEB = [service("web", ports=[{"name": "http", "port": 80}]), slice_of("web", "10.1.0.1", ports=HTTP)]

# --- slips ---

SLIPS = [
    (with_listeners(), "spec.listeners", "has 0 entries: must have 1 to 64"),
    (with_listeners(listener(), listener()), "spec.listeners[1].name", "'a' is a duplicate"),
    (with_listeners(listener(), listener("b")), "spec.listeners[1]", "has the port, protocol and hostname of listener a"),
    (with_listeners(listener("A b")), "spec.listeners[0].name", "'A b' is not a name"),
    (with_listeners(listener(port=70000)), "spec.listeners[0].port", "70000 is not a port"),
    (with_listeners(listener(port="80")), "spec.listeners[0].port", 'expected a number, got "80": without quotes'),
    (with_listeners({"name": "a", "port": 80}), "spec.listeners[0].protocol", "is missing"),
    (with_listeners(listener(hostname="a.example")), "spec.listeners[0].hostname", "must not be set for protocol TCP"),
    (with_listeners(listener(tls={})), "spec.listeners[0].tls", "must not be set for protocol TCP"),
    (with_listeners(listener(protocol="TLS", tls={"mode": "No"})), "spec.listeners[0].tls.mode", "'No' is not one of Terminate, Passthrough"),
    (with_listeners(listener(allowedRoutes={"namespaces": {"from": "Some"}})), "spec.listeners[0].allowedRoutes.namespaces.from", "'Some' is not one of All, Same, Selector, None"),
    (with_listeners(listener(allowedRoutes={"namespaces": {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}})), "spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0].values", "must not be empty for operator In"),
    (with_listeners(listener(), gatewayClassName=""), "spec.gatewayClassName", "is empty"),
    (made("TCPRoute", "db", 1, {"rules": []}), "spec.rules", "is empty: must have one rule"),
    (made("UDPRoute", "db", 1, {"rules": [{}]}), "spec.rules[0].backendRefs", "has 0 entries: must have 1 to 16"),
    (tcp_route(EDGE, backends=[{"name": "web"}]), "spec.rules[0].backendRefs[0].port", "is missing: a Service requires it"),
    (tcp_route(EDGE, backends=[{"name": "web", "port": 80, "weight": -1}]), "spec.rules[0].backendRefs[0].weight", "-1 is not a weight (0-1000000)"),
    (tcp_route(EDGE, EDGE), "spec.parentRefs[1]", "refers to Gateway default/edge like another entry"),
    (tcp_route(EDGE, EDGE | {"port": 80}), "spec.parentRefs[1]", "sectionName or port is required: two entries refer to Gateway default/edge"),
    (tcp_route(EDGE | {"namespace": "A"}), "spec.parentRefs[0].namespace", "'A' is not a namespace"),
    (made("ReferenceGrant", "g", 1, {"from": [], "to": []}), "spec.from", "has 0 entries: must have 1 to 16"),
    (made("ReferenceGrant", "g", 1, {"from": [{"group": "", "kind": "TCPRoute", "namespace": "a"}] * 17, "to": []}), "spec.from", "has 17 entries: must have 1 to 16"),
    (with_listeners(listener(protocol="HTTPS", tls={"certificateRefs": [EDGE] * 65})), "spec.listeners[0].tls.certificateRefs", "has 65 entries"),
    (with_listeners(listener(allowedRoutes={"kinds": [{"kind": "TCPRoute"}] * 9})), "spec.listeners[0].allowedRoutes.kinds", "has 9 entries"),
    (made("GatewayClass", "c", 1, {"controllerName": ""}), "spec.controllerName", "is empty"),
    (with_listeners(listener(protocol="HTTPS", tls={"mode": "Passthrough"})), "spec.listeners[0].tls.mode", "must be Terminate for protocol HTTPS"),
    (with_listeners(listener(protocol="HTTPS", tls={})), "spec.listeners[0].tls.certificateRefs", "is empty: required for mode Terminate"),
    (http_route(hostnames=["10.0.0.1"]), "spec.hostnames[0]", "10.0.0.1 is an IP address"),
    (http_route(rules=[]), "spec.rules", "has 0 entries: must have 1 to 16"),
    (http_route({"matches": [{"path": {"value": "a"}}]}), "spec.rules[0].matches[0].path.value", "'a' must begin with /"),
    (http_route({"matches": [{"path": {"value": "/a/../b"}}]}), "spec.rules[0].matches[0].path.value", "must not contain '/../'"),
    (http_route({"matches": [{"path": {"type": "Regex", "value": "/"}}]}), "spec.rules[0].matches[0].path.type", "'Regex' is not one of"),
    (http_route({"matches": [{"method": "get"}]}), "spec.rules[0].matches[0].method", "'get' is not one of"),
    (http_route({"matches": [{"headers": [{"name": "a b", "value": "1"}]}]}), "spec.rules[0].matches[0].headers[0].name", "'a b' is not a name"),
    (http_route({"matches": [{"headers": [{"name": "a"}]}]}), "spec.rules[0].matches[0].headers[0].value", "is missing"),
    (http_route({"filters": [{"type": "Other"}]}), "spec.rules[0].filters[0].type", "'Other' is not one of"),
    (http_route({"filters": [{"type": "URLRewrite"}]}), "spec.rules[0].filters[0].urlRewrite", "is missing"),
    (http_route({"filters": [REDIRECT, REDIRECT]}), "spec.rules[0].filters[1].type", "RequestRedirect is a duplicate"),
    (http_route({"filters": [REDIRECT, {"type": "URLRewrite", "urlRewrite": {}}]}), "spec.rules[0].filters", "must not have both RequestRedirect and URLRewrite"),
    (http_route({"filters": [REDIRECT], "backendRefs": [{"name": "web", "port": 80}]}), "spec.rules[0].backendRefs", "must not be set together with a filter RequestRedirect"),
    (http_route({"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}]}), "spec.rules[0].filters[0].requestRedirect.statusCode", "200 is not one of"),
    (http_route({"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "*.a"}}]}), "spec.rules[0].filters[0].requestRedirect.hostname", "'*.a' must not be a wildcard"),
    (http_route({"filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath"}}}]}), "spec.rules[0].filters[0].urlRewrite.path.replaceFullPath", "is missing"),
    (http_route({"matches": [{"path": {"type": "Exact", "value": "/a"}}], "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]}), "spec.rules[0].filters[0].urlRewrite.path.type", "ReplacePrefixMatch needs matches of type PathPrefix"),
    (http_route({"filters": [{"type": "CORS"}] * 17}), "spec.rules[0].filters", "has 17 entries"),
    (http_route({"backendRefs": [{"name": "web", "port": 80, "filters": [{"type": "CORS"}] * 17}]}), "spec.rules[0].backendRefs[0].filters", "has 17 entries"),
    (http_route({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}] * 17}}]}), "spec.rules[0].filters[0].requestHeaderModifier.set", "has 17 entries"),
    (http_route({"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a"] * 17}}]}), "spec.rules[0].filters[0].responseHeaderModifier.remove", "has 17 entries"),
    (http_route(*[{"matches": [{}] * 43}] * 3), "spec.rules", "have 129 matches: must have at most 128 together"),
    (http_route({"timeouts": {"request": "10"}}), "spec.rules[0].timeouts.request", "'10' is not a duration such as 10s or 500ms"),
    (http_route({"timeouts": {"request": "1s", "backendRequest": "2s"}}), "spec.rules[0].timeouts.backendRequest", "must not be longer than timeouts.request"),
    (http_route({"backendRefs": [{"name": "web", "port": 80, "filters": [{"type": "No"}]}]}), "spec.rules[0].backendRefs[0].filters[0].type", "'No' is not one of"),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "field", "message"), SLIPS)
def test_a_slip_is_named_and_leaves_other_objects(broken: Object, field: str, message: str) -> None:
    good = route("UDP", "good", "other", "web:80")
    found = read(broken, good)
    (problem,) = found.problems
    assert (problem.source, problem.field) == ("a.yaml", field)
    assert problem.object.endswith(f"/{broken['metadata']['name']}")
    assert message in problem.message
    assert found.gateways.udp_routes


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha2"])
def test_all_versions_of_a_kind_are_read(version: str) -> None:
    def of(found: Object) -> Object:
        return found | {"apiVersion": f"gateway.networking.k8s.io/{version}"}

    found = read(of(gateway("edge", "a 80/TCP")), of(GRANT))
    assert (found.problems, len(found.gateways.gateways), len(found.gateways.grants)) == ([], 1, 1)
    if version != "v1beta1":
        assert read(of(tcp_route(EDGE))).gateways.tcp_routes


def test_other_kinds_of_the_group_are_no_slips() -> None:
    others = ["TLSRoute", "GRPCRoute", "ListenerSet", "BackendTLSPolicy"]
    found = read(*({"apiVersion": V1, "kind": kind, "metadata": {"name": "a"}} for kind in others))
    assert (found.problems, sorted(found.ignored)) == ([], sorted(others))


def test_unknown_fields_are_warnings() -> None:
    found = read(with_listeners(listener(hostnam="a")), tcp_route(EDGE | {"section": "a"}))
    assert [(each.field, each.message) for each in found.warnings] == [
        ("spec.listeners[0].hostnam", "unknown field. Did you mean hostname?"),
        ("spec.parentRefs[0].section", "unknown field. Did you mean sectionName?"),
    ]


# --- attachment ---

TEAM = manifest("Namespace", "shop", metadata={"labels": {"team": "a"}})
SELECTED = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}}
NOT_SELECTED = {
    "namespaces": {
        "from": "Selector",
        "selector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]},
    }
}
FROM_SHOP = {"name": "edge", "namespace": "default"}
ATTACHMENTS = [
    (listener(), EDGE, "", "Accepted", ""),
    (listener(), EDGE | {"sectionName": "a", "port": 80}, "", "Accepted", ""),
    (listener(), EDGE | {"sectionName": "b"}, "", "NoMatchingParent", "Gateway default/edge has no listener named b"),
    (listener(), EDGE | {"port": 81}, "", "NoMatchingParent", "Gateway default/edge has no listener with port 81"),
    (listener(), EDGE | {"sectionName": "a", "port": 81}, "", "NoMatchingParent", "Gateway default/edge has no listener named a with port 81"),
    (listener(protocol="UDP"), EDGE, "", "NotAllowedByListeners", "listener a of Gateway default/edge allows only UDPRoute"),
    (listener(protocol="TLS", tls={"mode": "Passthrough"}), EDGE, "", "NotAllowedByListeners", "listener a of Gateway default/edge allows no routes"),
    (listener(allowedRoutes={"kinds": [{"kind": "TLSRoute"}]}), EDGE, "", "NotAllowedByListeners", "listener a of Gateway default/edge allows no routes"),
    (listener(allowedRoutes={"kinds": [{"kind": "TCPRoute"}]}), EDGE, "", "Accepted", ""),
    (listener(), FROM_SHOP, "shop", "NotAllowedByListeners", "listener a of Gateway default/edge does not allow namespace shop"),
    (listener(allowedRoutes={"namespaces": {"from": "None"}}), EDGE, "", "NotAllowedByListeners", "listener a of Gateway default/edge does not allow namespace default"),
    (listener(allowedRoutes={"namespaces": {"from": "All"}}), FROM_SHOP, "shop", "Accepted", ""),
    (listener(allowedRoutes=SELECTED), FROM_SHOP, "shop", "Accepted", ""),
    (listener(allowedRoutes=SELECTED), EDGE, "", "NotAllowedByListeners", "listener a of Gateway default/edge does not allow namespace default"),
    (listener(allowedRoutes=NOT_SELECTED), EDGE, "", "Accepted", ""),
    (listener(allowedRoutes=NOT_SELECTED), FROM_SHOP, "shop", "NotAllowedByListeners", "listener a of Gateway default/edge does not allow namespace shop"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "parent", "namespace", "reason", "message"), ATTACHMENTS)
def test_a_route_attaches(one: Object, parent: Object, namespace: str, reason: str, message: str) -> None:
    objects = [with_listeners(one), tcp_route(parent, namespace=namespace), TEAM, *WEB]
    found = statuses(*objects)
    (db,) = objects_of(*objects).tcp_routes.values()
    (state,) = found.of_route(db)
    accepted = reason == "Accepted"
    assert state.conditions[0] == Condition("Accepted", accepted, reason, message)
    (edge,) = objects_of(*objects).gateways.values()
    status = found.of_gateway(edge)
    assert status is not None
    assert status.listeners[0].routes == accepted
    assert [
        each.message
        for each in findings(objects_of(*objects), resolved(*objects).services)
        if each.field == "spec.parentRefs[0]"
    ] == [message] * bool(message)


def test_a_route_of_too_many_combinations_is_not_accepted() -> None:
    listeners = [listener(f"a{n}", 8000 + n, "HTTP") for n in range(64)]
    hosts = [f"h{n}.example" for n in range(16)]
    large = http_route({"matches": [{"path": {"value": f"/{n}"}} for n in range(64)]}, hostnames=hosts)
    small = made("HTTPRoute", "small", 1, {"parentRefs": [EDGE], "rules": [{}]})
    objects = [with_listeners(*listeners), large, small]
    found = resolved(*objects)
    (problem,) = findings(objects_of(*objects), found.services)
    assert (problem.object, problem.field) == ("HTTPRoute default/web", "spec.parentRefs[0]")
    assert "are 65536 combinations: at most 20000" in problem.message
    routed = http_routing(Objects((), Services(found.services, {}), gateways=objects_of(*objects)), {}).routes
    assert {each.owner.name.name for each in routed} == {"small"}


def test_references_to_other_gateways_have_no_status() -> None:
    other = made("GatewayClass", "other", 1, {"controllerName": "example.com/other"})
    objects = [with_listeners(listener(), gatewayClassName="other"), other, tcp_route(EDGE), *WEB]
    found = statuses(*objects)
    assert found.of_route(*objects_of(*objects).tcp_routes.values()) == ()
    assert found.of_gateway(*objects_of(*objects).gateways.values()) is None
    assert resolved(*objects).services.keys() == {NamespacedName("default", "web")}


def test_a_gateway_that_does_not_exist_is_named() -> None:
    objects = objects_of(tcp_route(EDGE))
    assert list(map(str, findings(objects, {}))) == [
        "a.yaml: TCPRoute default/db: spec.parentRefs[0]: Gateway default/edge not found"
    ]


def test_a_class_of_the_name_can_be_another_controllers() -> None:
    other = made("GatewayClass", "kproxy", 1, {"controllerName": "example.com/other"})
    objects = objects_of(with_listeners(listener()), other)
    assert statuses(with_listeners(listener()), other).of_gateway(*objects.gateways.values()) is None


@cases(
    """
    one          other      common
    -            -          -
    a.example    -          a.example
    -            *.example  *.example
    a.example    a.example  a.example
    a.example    *.example  a.example
    a.b.example  *.example  a.b.example
    *.b.example  *.example  *.b.example
    """
)
def test_common_hostnames(one: str, other: str, common: str) -> None:
    assert common_hostname(one, other) == common_hostname(other, one) == common


@cases(
    """
    one          other
    example      *.example
    a.example    b.example
    *.a.example  *.b.example
    """
)
def test_no_common_hostname(one: str, other: str) -> None:
    assert common_hostname(one, other) is common_hostname(other, one) is None


# --- references ---

SHOP = service("granted", ports=[{"name": "http", "port": 80}]) | {
    "metadata": {"name": "granted", "namespace": "shop"}
}
REFERENCES = [
    ({"name": "web", "port": 80}, "ResolvedRefs", ""),
    ({"name": "gone", "port": 80}, "BackendNotFound", "Service default/gone not found"),
    ({"name": "web", "port": 81}, "BackendNotFound", "Service default/web has no port 81/tcp"),
    ({"name": "web", "kind": "Pool", "group": "example.com"}, "InvalidKind", "Pool.example.com default/web is not a Service"),
    ({"name": "granted", "namespace": "shop", "port": 80}, "ResolvedRefs", ""),
    ({"name": "other", "namespace": "shop", "port": 80}, "RefNotPermitted", "no ReferenceGrant in namespace shop permits the reference to Service shop/other"),
    ({"name": "alias", "port": 80}, "BackendNotFound", "Service default/alias is of type ExternalName, which has no endpoints"),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "reason", "message"), REFERENCES)
def test_a_reference_of_a_route(backend: Object, reason: str, message: str) -> None:
    alias = service("alias", type="ExternalName", externalName="a.example")
    objects = [with_listeners(listener()), tcp_route(EDGE, backends=[backend]), GRANT, SHOP, alias, *WEB]
    (state,) = statuses(*objects).of_route(*objects_of(*objects).tcp_routes.values())
    assert state.conditions[1] == Condition("ResolvedRefs", not message, reason, message)
    told = [each.message for each in findings(objects_of(*objects), resolved(*objects).services)]
    assert told == [message] * bool(message)


# --- status of Gateways ---

PEM = {"tls.crt": "-----BEGIN CERTIFICATE-----", "tls.key": "-----BEGIN PRIVATE KEY-----"}


def secret(name: str, namespace: str = "default", **data: str) -> Object:
    return manifest("Secret", name, metadata={"namespace": namespace}, stringData=PEM | data)


def https(references: list[Object]) -> Object:
    return listener(protocol="HTTPS", tls={"certificateRefs": references})


TO_GOOD = {
    "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default"}],
    "to": [{"group": "", "kind": "Secret", "name": "good"}],
}
SECRETS = [
    secret("good"),
    secret("bad", **{"tls.crt": "no"}),
    *(secret(name, namespace) for name in ("good", "other") for namespace in ("shop", "granting")),
    made("ReferenceGrant", "good", 1, TO_GOOD, namespace="granting"),
]
"""Secrets with certificates, as far as their texts go. One namespace permits references to one of them."""


@pytest.mark.parametrize(
    ("edge", "ranges", "addresses", "gateway_conditions", "listener_conditions"),
    [
        (with_listeners(listener(protocol="HTTP"), listener("b", protocol="HTTP", hostname="a.test")), RANGES, ["192.0.2.1", "2001:db8::1"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")}, {}),
        (with_listeners(https([{"name": "good"}])), RANGES, ["192.0.2.1", "2001:db8::1"], {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")},
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed"), "ResolvedRefs": (True, "ResolvedRefs"), "Conflicted": (False, "NoConflicts")}),
        (with_listeners(https([{"name": "gone"}, {"name": "good"}])), RANGES, ["192.0.2.1", "2001:db8::1"], {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")},
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed"), "ResolvedRefs": (False, "InvalidCertificateRef"), "Conflicted": (False, "NoConflicts")}),
        *((with_listeners(https([ref])), RANGES, ["192.0.2.1", "2001:db8::1"], {"Accepted": (True, "Accepted"), "Programmed": (False, "Invalid")},
           {"Accepted": (True, "Accepted"), "Programmed": (False, "Invalid"), "ResolvedRefs": (False, reason), "Conflicted": (False, "NoConflicts")})
          for ref, reason in (({"name": "gone"}, "InvalidCertificateRef"), ({"name": "bad"}, "InvalidCertificateRef"), ({"name": "good", "kind": "ConfigMap"}, "InvalidCertificateRef"),
                              ({"name": "good", "group": "example.com"}, "InvalidCertificateRef"), ({"name": "good", "namespace": "shop"}, "RefNotPermitted"))),
        (with_listeners(https([{"name": "good", "namespace": "granting"}])), RANGES, ["192.0.2.1", "2001:db8::1"], {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")}, {}),
        (with_listeners(https([{"name": "other", "namespace": "granting"}])), RANGES, ["192.0.2.1", "2001:db8::1"], {"Accepted": (True, "Accepted"), "Programmed": (False, "Invalid")}, {}),
        (with_listeners(listener()), RANGES, ["192.0.2.1", "2001:db8::1"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")},
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed"), "ResolvedRefs": (True, "ResolvedRefs"), "Conflicted": (False, "NoConflicts")}),
        (with_listeners(listener()), POOL, ["198.51.100.1|198.51.100.2"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")}, {}),
        (with_listeners(listener(), addresses=[{"value": "198.51.100.2"}]), POOL, ["198.51.100.2"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")}, {}),
        (with_listeners(listener(), addresses=[{"type": "IPAddress"}]), POOL, ["198.51.100.1|198.51.100.2"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")}, {}),
        (with_listeners(listener(), addresses=[{"value": "203.0.113.9"}]), POOL, [],
         {"Accepted": (True, "Accepted"), "Programmed": (False, "AddressNotUsable")}, {}),
        (with_listeners(listener(), addresses=[{"type": "Hostname", "value": "a.example"}]), POOL, [],
         {"Accepted": (False, "UnsupportedAddress"), "Programmed": (False, "AddressNotUsable")}, {}),
        (with_listeners(listener(protocol="example.com/bar")), RANGES, ["192.0.2.1", "2001:db8::1"],
         {"Accepted": (False, "ListenersNotValid"), "Programmed": (False, "Invalid")},
         {"Accepted": (False, "UnsupportedProtocol"), "Programmed": (False, "Invalid"), "ResolvedRefs": (True, "ResolvedRefs"), "Conflicted": (False, "NoConflicts")}),
        (with_listeners(listener(allowedRoutes={"kinds": [{"kind": "UDPRoute"}, {"kind": "TCPRoute"}]})), RANGES, ["192.0.2.1", "2001:db8::1"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")},
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed"), "ResolvedRefs": (False, "InvalidRouteKinds"), "Conflicted": (False, "NoConflicts")}),
        (with_listeners(listener(), listener("b", protocol="TLS")), RANGES, ["192.0.2.1", "2001:db8::1"],
         {"Accepted": (False, "ListenersNotValid"), "Programmed": (False, "Invalid")},
         {"Accepted": (False, "ProtocolConflict"), "Programmed": (False, "Invalid"), "ResolvedRefs": (True, "ResolvedRefs"), "Conflicted": (True, "ProtocolConflict")}),
        (with_listeners(listener(), listener("b", protocol="UDP")), RANGES, ["192.0.2.1", "2001:db8::1"],
         {"Accepted": (True, "Accepted"), "Programmed": (True, "Programmed")}, {}),
    ],
)  # fmt: skip
def test_the_status_of_a_gateway(
    edge: Object,
    ranges: Any,
    addresses: list[str],
    gateway_conditions: Mapping[str, tuple[bool, str]],
    listener_conditions: Mapping[str, tuple[bool, str]],
) -> None:
    found = statuses(edge, *SECRETS, ranges=ranges).of_gateway(*objects_of(edge, *SECRETS).gateways.values())
    assert found is not None
    for address, allowed in zip(found.addresses, addresses, strict=True):
        assert format_address(address) in allowed.split("|")
    assert by_type(found.conditions) == gateway_conditions
    if listener_conditions:
        assert by_type(found.listeners[0].conditions) == listener_conditions


def test_http_listeners_without_haproxy_are_not_programmed() -> None:
    edge = with_listeners(listener(protocol="HTTP"), listener("b", 81))
    objects, found = objects_of(edge), resolved(edge)
    status = Statuses(objects, found.services.get, (), http=False).of_gateway(*objects.gateways.values())
    assert status is not None
    http, tcp = (by_type(each.conditions)["Programmed"] for each in status.listeners)
    assert (http, tcp) == ((False, "Pending"), (True, "Programmed"))
    assert by_type(status.conditions)["Programmed"] == (True, "Programmed")


def test_a_grant_for_all_names() -> None:
    grant = made(
        "ReferenceGrant", "all", 1, {**TO_GOOD, "to": [{"group": "", "kind": "Secret"}]}, namespace="shop"
    )
    edge = with_listeners(https([{"name": "other", "namespace": "shop"}]))
    found = statuses(edge, grant, *SECRETS).of_gateway(*objects_of(edge).gateways.values())
    assert found is not None
    assert by_type(found.listeners[0].conditions)["ResolvedRefs"] == (True, "ResolvedRefs")


class Counted(dict[Any, Any]):
    """A dictionary that counts how often all its values are looked at."""

    looked = 0

    def values(self) -> Any:
        self.looked += 1
        return super().values()


def test_all_grants_are_looked_at_once_for_all_references() -> None:
    objects = objects_of(GRANT)
    counted = GatewayObjects(grants=Counted(objects.grants))
    for name in ("web", "db", "other"):
        permitted(counted, "TCPRoute", "default", "", "Service", NamespacedName("shop", name))
    assert isinstance(counted.grants, Counted)
    assert counted.grants.looked == 1


def test_an_address_and_port_of_another_owner() -> None:
    """The older one of two Gateways has the port, and a node port has precedence over both."""
    objects = [
        gateway("old", "a 80/TCP", "n 30080/TCP"),
        gateway("new", "a 80/TCP", created=2),
        route("TCP", "old", "old", "web:80"),
        route("TCP", "new", "new", "web:80"),
        service("web", type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]),
        slice_of("web", "10.1.0.1"),
    ]
    found = resolved(*objects)
    assert sorted(str(each._replace(source="")) for each in found.problems) == [
        "Gateway default/new: spec.listeners: 192.0.2.1:80/tcp belongs to Gateway default/old",
        "Gateway default/new: spec.listeners: [2001:db8::1]:80/tcp belongs to Gateway default/old",
        "Gateway default/old: spec.listeners: 192.0.2.1:30080/tcp belongs to Service default/web",
    ]
    old, new = map(statuses(*objects).of_gateway, objects_of(*objects).gateways.values())
    assert old and new  # noqa: PT018
    message = "192.0.2.1:80/tcp belongs to Gateway default/old"
    assert new.listeners[0].conditions[0] == Condition("Accepted", False, "PortUnavailable", message)
    assert [each.conditions[0].reason for each in old.listeners] == ["Accepted", "PortUnavailable"]
    assert by_type(old.conditions)["Accepted"] == (True, "ListenersNotValid")


def test_the_oldest_gateway_has_an_address_and_port_of_http() -> None:
    """Two sockets at one address and port would share the connections by chance."""
    new = with_listeners(listener(protocol="HTTP"), listener("b", 81, "HTTP"), name="a-new")
    new["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    objects = [with_listeners(listener(protocol="HTTP"), name="old"), new]
    found = objects_of(*objects)
    status = statuses(*objects).of_gateway(found.gateways[NamespacedName("default", "a-new")])
    assert status is not None
    message = "192.0.2.1:80/tcp belongs to Gateway default/old"
    assert status.listeners[0].conditions[0] == Condition("Accepted", False, "PortUnavailable", message)
    assert by_type(status.listeners[1].conditions)["Programmed"] == (True, "Programmed")
    services = Services(resolved(*objects).services, {})
    listeners = http_routing(Objects((), services, gateways=found, local=ADDRESSES), {}).listeners
    assert [(each.address, each.port, each.name) for each in listeners if ":" not in each.address] == [
        ("192.0.2.1", 80, "default.old:80"),
        ("192.0.2.1", 81, "default.a-new:81"),
    ]


def test_doctor_knows_the_address_of_a_gateway(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "192.0.2.1:80", *options])
    found = set(re.findall(r"^KP\d+", capsys.readouterr().out, re.MULTILINE))
    assert found == {"KP036"}, "the conditions of the Gateway, and not that there is no such Service"


def test_the_pool_is_shared_with_services() -> None:
    """Two Gateways and a Service want an address of a pool of two. The last one gets none, and is told so."""
    objects = [
        service("lb", type="LoadBalancer")
        | {"metadata": {"name": "lb", "creationTimestamp": "2025-01-01T00:00:00Z"}},
        gateway("a", "a 80/TCP"),
        gateway("b", "a 80/TCP", created=2),
    ]
    found = resolved(*objects, ranges=POOL)
    assert [str(each) for each in found.problems] == [
        "a.yaml: Gateway default/b: spec.addresses: no IPv4 address is free in --load-balancer-pool 198.51.100.1-198.51.100.2"
    ]
    status = statuses(*objects, ranges=POOL).of_gateway(
        objects_of(*objects).gateways[NamespacedName("default", "b")]
    )
    assert status is not None
    assert by_type(status.conditions)["Programmed"] == (False, "AddressNotAssigned")
    again = resolved(*objects, ranges=POOL, past=found.allocations)
    assert again.allocations.pool_addresses() == found.allocations.pool_addresses()


# --- shares ---

A, B, C = ((bytes([10, 0, 0, n]), 80) for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("backends", "slots", "refusing"),
    [
        ([(1, [A])], [A], 0),
        ([(5, [A]), (5, [B])], [A, B], 0),
        ([(70, [A]), (30, [B]), (0, [C])], [A] * 7 + [B] * 3, 0),
        ([(1, [A]), (1, [B, C])], [A] * 2 + [B, C], 0),
        ([(1, [A]), (1, [A, B])], [A] * 3 + [B], 0),
        ([(2, [A]), (1, [])], [A, A], 1),
        ([(0, [A])], [], 0),
        ([(1, []), (1, [])], [], 0),
    ],
)
def test_shares_become_slots(backends: Any, slots: list[Any], refusing: int) -> None:
    found = in_slots(backends)
    assert (list(found.endpoints), found.refusing) == (slots, refusing)


@pytest.mark.parametrize("weights", [(999_983, 999_979), (1, 1_000_000), (1000, 1)])
def test_large_shares_are_near(weights: tuple[int, int]) -> None:
    """Shares of many endpoints and of odd weights need too many slots: they are rounded, none to nothing."""
    many = [(bytes([10, 0, n // 250, n % 250]), 80) for n in range(700)]
    one = bytes([10, 9, 9, 9]), 80
    found = in_slots([(weights[0], many), (weights[1], [one]), (weights[1], [])])
    total = len(found.endpoints) + found.refusing
    assert total <= MOST + len(many)
    assert set(found.endpoints) == {*many, one}
    for part, weight in ((found.endpoints.count(one), weights[1]), (found.refusing, weights[1])):
        share = Fraction(weight, weights[0] + 2 * weights[1])
        assert part == 1 or abs(part / total - share) < share / 10


# --- what is held ---


def test_objects_stay_while_one_cannot_be_read() -> None:
    before = objects_of(gateway("edge", "a 80/TCP"), tcp_route(EDGE), GRANT)
    broken = read(gateway("other", "a 81/TCP"), tcp_route(EDGE, EDGE))
    held = hold_objects(before, with_built_in(broken.gateways), broken.unreadable)
    assert [name.name for name in held.gateways] == ["edge", "other"]
    assert (held.tcp_routes, held.grants) == (before.tcp_routes, before.grants)
    mended = read(gateway("other", "a 81/TCP"))
    assert hold_objects(held, mended.gateways, mended.unreadable) == mended.gateways


def test_a_broken_gateway_protects_only_what_it_serves() -> None:
    found = read(with_listeners(), *WEB).unreadable
    assert found.covers(NamespacedName("default", "gateway/edge"))
    assert not found.covers(NamespacedName("default", "web"))
    assert not found.covers(NamespacedName("default", "gateway/other"))
    of_route = read(made("TCPRoute", "db", 1, {"rules": []})).unreadable
    assert of_route.covers(NamespacedName("shop", "gateway/other"))
    assert not of_route.covers(NamespacedName("default", "web"))


# --- get and describe ---

TABLES = """\
NAME                                            CONTROLLER                     ACCEPTED   AGE
gatewayclass.gateway.networking.k8s.io/kproxy   kproxy.io/gateway-controller   True       <unknown>

NAME                                     CLASS    ADDRESS                 PROGRAMMED   AGE
gateway.gateway.networking.k8s.io/edge   kproxy   192.0.2.1,2001:db8::1   True         <unknown>

NAME                                    AGE
tcproute.gateway.networking.k8s.io/db   <unknown>

NAME                                              AGE
referencegrant.gateway.networking.k8s.io/allows   <unknown>
"""


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """The flags of a command that reads a Gateway, a route, its Service and a grant."""
    grant = GRANT | {"metadata": {"name": "allows"}}
    backends = [{"name": "web", "port": 80, "weight": 3}, {"name": "gone", "port": 80}]
    objects = [with_listeners(listener()), tcp_route(EDGE, backends=backends), grant, *WEB]
    for each in objects:
        each["metadata"].pop("creationTimestamp", None)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all(objects))
    return [
        "-f",
        str(tmp_path / "a.yaml"),
        "--state-dir",
        str(tmp_path),
        "--node-ip",
        "192.0.2.1,2001:db8::1",
    ]


def test_get(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "gatewayclass,gateway,tcproute,referencegrant", *options]) == 0
    assert capsys.readouterr().out == TABLES


def test_get_yaml_has_the_status(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "tcproute", "db", "-o", "yaml", *options]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    (parent,) = found["status"]["parents"]
    assert found["spec"]["rules"] == [
        {"backendRefs": [{"name": "web", "port": 80, "weight": 3}, {"name": "gone", "port": 80}]}
    ]
    assert parent["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    assert parent["conditions"][1] == {
        "type": "ResolvedRefs",
        "status": "False",
        "reason": "BackendNotFound",
        "message": "Service default/gone not found",
        "observedGeneration": 1,
    }


def test_services_of_gateways_are_not_shown_as_services(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", "svc,ep,endpointslices", "-o", "name", *options]) == 0
    assert "gateway" not in capsys.readouterr().out


def test_describe(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "gateway/edge", "tcproute/db", *options]) == 0
    out = capsys.readouterr().out
    for line in (
        "  a     80    TCP       *         TCPRoute db",
        "  web:80   3       10.1.0.1:8080",
        "  gone:80  1       <error: Service default/gone not found>",
        "Parent Gateway default/edge:",
    ):
        assert f"{line}\n" in out


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        (made("GatewayClass", "kproxy", 1, {"controllerName": CONTROLLER}), True),
        (made("GatewayClass", "kproxy", 1, {"controllerName": CONTROLLER, "parametersRef": {"group": "", "kind": "ConfigMap", "name": "a"}}), False),
        (with_listeners(listener()), True),
        (with_listeners(listener(), infrastructure={"parametersRef": {"group": "", "kind": "ConfigMap", "name": "a"}}), False),
    ],
)  # fmt: skip
def test_conditions_name_the_generation(found: Object, accepted: bool) -> None:
    """Parameters are refused, because there are none. Conditions have the generation of their object."""
    found = found | {"metadata": found["metadata"] | {"generation": 7}}
    objects = objects_of(found)
    one: Any = next(iter(objects.gateways.values()), objects.classes[NamespacedName("", "kproxy")])
    (condition, *_) = status_of(one, statuses(found))["conditions"]
    reason = "Accepted" if accepted else "InvalidParameters"
    assert (condition["status"], condition["reason"], condition["observedGeneration"]) == (
        str(accepted),
        reason,
        7,
    )


def test_a_gateway_with_a_long_name() -> None:
    """A name has up to 253 characters. The comment of an element is cut."""
    name = ".".join(["a" * 61] * 4)
    found = resolved(gateway(name, "a 80/TCP"), route("TCP", "db", f"{name}/a", "web:80"), *WEB)
    assert [str(each.owner) for each in found.frontends if each.owner.port == "a"] == [
        f"default/gateway/{name}:a"
    ] * 2
    (spec, *_) = (
        s for s in compile_frontends(found.frontends, Family.IPV4).specs.values() if "gateway" in s.comment
    )
    assert len(spec.comment) == COMMENT_BYTES

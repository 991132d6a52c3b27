"""Ingresses -> routes: classes, conflicts, default backends, TLS, canaries, and what each message names."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from kproxy import model
from kproxy.decode import Document, decode
from kproxy.gateway.core.endpoints import Services, servers_of
from kproxy.gateway.core.ingress import CONTROLLER, Checked, Objects, Ports, Routed, certificates_of, route
from kproxy.gateway.core.routes import Forward, Redirect, Respond, Route
from tests.unit.make import decoded, name, service

V1 = "networking.k8s.io/v1"


def named(kind: str, own: str, version: str = V1, **rest: Any) -> dict[str, Any]:
    metadata = {"name": own, **rest.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def to(own: str, port: int | str = 80) -> dict[str, Any]:
    return {"service": {"name": own, "port": {"number" if isinstance(port, int) else "name": port}}}


def rule(host: str, backend: dict[str, Any], path: str = "/", kind: str = "Prefix") -> dict[str, Any]:
    return {"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}}


def ingress(own: str, *rules: dict[str, Any], created: str = "", notes: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:  # fmt: skip
    metadata: dict[str, Any] = {"annotations": notes or {}}
    if created:
        metadata["creationTimestamp"] = created
    return named("Ingress", own, metadata=metadata, spec={"rules": list(rules), **spec})


def manifest(own: str) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    return named("Service", own, "v1", spec={"ports": ports})


def routed(*objects: dict[str, Any], checked: Checked | None = None) -> Routed:
    every = [*objects, manifest("web"), manifest("api")]
    read = decode(Document("f.yaml", json.loads(json.dumps(each))) for each in every)
    assert read.problems == []
    state = read.state
    found = Objects(state.ingresses, Services(state.services, {}), state.ingress_classes, state.secrets)
    results = {each: checked or Checked(b"pem") for each in certificates_of(state.ingresses)}
    return route(found, results, Ports())


def texts(found: Routed) -> list[str]:
    return [str(each) for each in (*found.problems, *found.warnings)]


def where(found: Route) -> str:
    match found.action:
        case Forward(shares=shares):
            result = " ".join(f"{share.name}={share.weight}" for share in shares)
        case Redirect(scheme=scheme, status=status):
            result = f"{status} {scheme}"
        case Respond(status=status):
            result = str(status)
        case other:
            result = str(other)
    conditions = "".join(f" {each.name}:{each.value}" for each in found.match.headers)
    return f"{found.listener} {found.host.name}{found.match.path.text}{conditions} -> {result}"


def routes(*objects: dict[str, Any], **options: Any) -> list[str]:
    return [where(each) for each in routed(*objects, **options).routing.routes]


WEB = ingress("web", rule("a.test", to("web")))


def of_class(own: str, by: str = "spec") -> dict[str, Any]:
    if by == "spec":
        return ingress("web", rule("a.test", to("web")), ingressClassName=own)
    return ingress("web", rule("a.test", to("web")), notes={"kubernetes.io/ingress.class": own})


def ingress_class(own: str, controller: str = CONTROLLER, default: bool = False) -> dict[str, Any]:
    notes = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    return named("IngressClass", own, metadata={"annotations": notes}, spec={"controller": controller})


@pytest.mark.parametrize(
    ("objects", "served"),
    [
        ([WEB], True),
        ([of_class("kproxy")], True),
        ([of_class("kproxy", "annotation")], True),
        ([of_class("nginx")], False),
        ([of_class("nginx", "annotation")], False),
        ([of_class("nginx"), ingress_class("nginx")], True),
        ([of_class("nginx"), ingress_class("nginx", "k8s.io/ingress-nginx")], False),
        ([of_class("kproxy"), ingress_class("kproxy", "other")], False),
        ([WEB, ingress_class("nginx", "k8s.io/ingress-nginx", default=True)], False),
        ([WEB, ingress_class("own", default=True)], True),
        ([WEB, ingress_class("nginx", "k8s.io/ingress-nginx")], True),
    ],
)
def test_which_classes_are_served(objects: list[dict[str, Any]], served: bool) -> None:
    found = routed(*objects)
    assert bool(found.routing.routes) is served
    assert len(found.warnings) == (not served)
    if not served:
        assert texts(found)[0].startswith("f.yaml: Ingress default/web: spec.ingressClassName: class '")


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (to("none"), "there is no Service default/none"),
        (to("web", 81), "Service default/web has no TCP port 81"),
        (to("web", "admin"), "Service default/web has no TCP port admin"),
        (to("web", "udp"), "Service default/web has no TCP port udp"),
        (to("outside"), "Service default/outside is of type ExternalName, which has no endpoints"),
        ({"resource": {"kind": "Bucket", "name": "b", "apiGroup": "x.y"}}, "Bucket/b is not a Service"),
    ],
)
def test_a_backend_that_leads_nowhere_is_named(backend: dict[str, Any], message: str) -> None:
    outside = named("Service", "outside", "v1", spec={"type": "ExternalName", "externalName": "a.b"})
    found = routed(outside, ingress("x", rule("a.test", backend)))
    field = "spec.rules[0].http.paths[0].backend"
    assert texts(found) == [f"f.yaml: Ingress default/x: {field}: {message}: the status is 503"]
    assert len(found.routing.routes) == 1


def test_a_port_by_name_and_by_number() -> None:
    by_name, by_number = (
        ingress("x", rule("a.test", to("web", "http"))),
        ingress("y", rule("b.test", to("web"))),
    )
    assert routes(by_name, by_number) == [
        "http a.test/ -> default/web:http=1",
        "http b.test/ -> default/web:http=1",
    ]


def test_the_older_ingress_has_a_path_that_two_have() -> None:
    new = ingress("a", rule("a.test", to("web")), created="2026-02-02T00:00:00Z")
    old = ingress("b", rule("a.test", to("api")), created="2026-01-01T00:00:00Z")
    found = routed(new, old)
    assert [where(each) for each in found.routing.routes] == ["http a.test/ -> default/api:http=1"]
    assert texts(found) == [
        "f.yaml: Ingress default/a: spec.rules[0].http.paths[0]: Ingress default/b has this path already"
    ]


def test_a_default_backend_comes_after_all_routes_of_its_hosts() -> None:
    found = routed(ingress("x", rule("a.test", to("web"), "/a"), defaultBackend=to("api")))
    assert [(where(each), each.fallback) for each in found.routing.routes] == [
        ("http a.test/a -> default/web:http=1", False),
        ("http a.test/ -> default/api:http=1", True),
        ("http / -> default/api:http=1", True),
    ]


TLS = ingress("x", rule("a.test", to("web")), tls=[{"hosts": ["a.test"], "secretName": "tls"}])


def test_a_host_with_a_certificate_has_https() -> None:
    found = routed(TLS)
    assert [where(each) for each in found.routing.routes] == [
        "http a.test/ -> 308 https",
        "https a.test/ -> default/web:http=1",
    ]
    assert [(each.name, each.port, each.tls) for each in found.routing.listeners] == [
        ("http", 80, False),
        ("https", 443, True),
    ]
    (certificate,) = found.routing.listeners[1].certificates
    assert (certificate.name, certificate.pem, certificate.hosts) == ("default/tls", b"pem", ("a.test",))


def test_a_host_with_a_bad_certificate_is_left_out_of_https_and_named() -> None:
    found = routed(TLS, checked=Checked(reason="Secret default/tls: has expired"))
    assert [where(each) for each in found.routing.routes] == ["http a.test/ -> 308 https"]
    assert texts(found) == [
        "f.yaml: Ingress default/x: spec.tls[0].secretName: Secret default/tls: has expired; left out: a.test"
    ]


def test_hosts_of_tls_are_those_of_the_rules_if_it_names_none() -> None:
    found = routed(ingress("x", rule("a.test", to("web")), tls=[{"secretName": "tls"}]))
    assert found.routing.listeners[1].certificates[0].hosts == ("a.test",)


@pytest.mark.parametrize(
    ("note", "plain"),
    [({}, False), ({"kproxy.io/ssl-redirect": "false"}, True), ({"kproxy.io/ssl-redirect": "true"}, False)],
)
def test_whether_http_is_redirected(note: dict[str, str], plain: bool) -> None:
    found = routes(
        ingress("x", rule("a.test", to("web")), notes=note, tls=[{"hosts": ["a.test"], "secretName": "tls"}])
    )
    assert ("http a.test/ -> default/web:http=1" in found) is plain


def test_without_tls_only_a_forced_redirect_is_one() -> None:
    assert routes(WEB) == ["http a.test/ -> default/web:http=1"]
    forced = ingress("x", rule("a.test", to("web")), notes={"kproxy.io/force-ssl-redirect": "true"})
    assert routes(forced) == ["http a.test/ -> 308 https"]


def canary(**notes: str) -> dict[str, Any]:
    texts = {f"kproxy.io/canary-{key.replace('_', '-')}": value for key, value in notes.items()}
    return ingress("canary", rule("a.test", to("api")), notes={"kproxy.io/canary": "true", **texts})


@pytest.mark.parametrize(
    ("notes", "wanted"),
    [
        ({"by_header": "X"}, ["X:always -> default/api:http=1", "X:never -> default/web:http=1", "-> default/web:http=1"]),
        ({"by_header": "X", "by_header_value": "y"}, ["X:y -> default/api:http=1", "-> default/web:http=1"]),
        ({"by_header": "X", "by_header_pattern": "y+"}, ["X:y+ -> default/api:http=1", "-> default/web:http=1"]),
        ({"weight": "20"}, ["-> default/web:http=1"]),
    ],
)  # fmt: skip
def test_a_canary(notes: dict[str, str], wanted: list[str]) -> None:
    """The one with a weight has no endpoints here, so it gets nothing."""
    assert routes(WEB, canary(**notes)) == [f"http a.test/ {each}" for each in wanted]


def test_a_canary_of_no_ingress_is_named() -> None:
    found = routed(canary(weight="20"))
    assert found.routing.routes == ()
    assert texts(found) == [
        "f.yaml: Ingress default/canary: spec.rules[0].http.paths[0]: is a canary of no other Ingress"
    ]


@pytest.mark.parametrize(
    ("path", "notes", "closed"),
    [
        ("/admin", {}, ["http a.test/admin -> 503"]),
        ("/admin(/|$)", {"kproxy.io/use-regex": "true"}, ["http a.test/admin(/|$) -> 503"]),
        ("/", {"kproxy.io/canary": "true"}, []),
    ],
)
def test_the_paths_of_an_ingress_with_a_wrong_annotation_are_closed(
    path: str, notes: dict[str, str], closed: list[str]
) -> None:
    """Their requests do not go to the path / of the other Ingress, which has no restrictions."""
    restricted = notes | {"nginx.ingress.kubernetes.io/auth-url": "http://x"}
    bad = ingress("bad", rule("a.test", to("web"), path, "ImplementationSpecific"), notes=restricted)
    found = routed(WEB, bad)
    assert [where(each) for each in found.routing.routes if each.owner.name.name == "bad"] == closed
    assert "http a.test/ -> default/web:http=1" in map(where, found.routing.routes)
    assert texts(found) == [
        "f.yaml: Ingress default/bad: metadata.annotations[nginx.ingress.kubernetes.io/auth-url]: "
        "the gateway does not support external authentication"
    ]


def test_an_ingress_of_too_many_combinations_is_closed() -> None:
    paths = [rule("b.test", to("web"), f"/{number}") for number in range(200)]
    notes = {"kproxy.io/server-alias": ",".join(f"{number}.test" for number in range(100))}
    found = routed(ingress("large", *paths, notes=notes), WEB)
    routes = list(map(where, found.routing.routes))
    assert routes == [*(f"http b.test/{n} -> 503" for n in range(200)), "http a.test/ -> default/web:http=1"]
    assert texts(found) == [
        "f.yaml: Ingress default/large: spec.rules: "
        "paths x hosts of server-alias are 20200 combinations: at most 20000"
    ]


def slice_of(*endpoints: model.Endpoint) -> model.EndpointSlice:
    ports = (
        model.EndpointPort("", model.Protocol.TCP, 8080),
        model.EndpointPort("other", model.Protocol.TCP, 1),
    )
    return model.EndpointSlice(
        name("web"), model.Origin("f", ""), "web-1", model.Family.IPV4, ports, endpoints
    )


def at(number: int, **state: Any) -> model.Endpoint:
    return model.Endpoint(model.parse_address(f"10.0.0.{number}"), **state)


def web() -> model.Service:
    return decoded(yaml.safe_dump(service())).state.services[name("web")]


READY, ENDING = at(1), at(2, ready=False, serving=True, terminating=True)
GONE, NOT_READY = at(3, ready=False, serving=False, terminating=True), at(4, ready=False, serving=False)


@pytest.mark.parametrize(
    ("endpoints", "wanted"),
    [
        ((READY, ENDING, GONE, NOT_READY), ["10.0.0.1:8080 ready", "10.0.0.2:8080 drain"]),
        ((ENDING, GONE, NOT_READY), ["10.0.0.2:8080 ready"]),
        ((GONE, NOT_READY), []),
    ],
)
def test_which_endpoints_are_servers(endpoints: tuple[model.Endpoint, ...], wanted: list[str]) -> None:
    found = web()
    servers = servers_of(found, found.ports[0], [slice_of(*endpoints)])
    assert [f"{each.socket} {each.state}" for each in servers] == wanted


def test_weights_of_endpoints() -> None:
    found = replace(web(), weights={"10.0.0.1": 5})
    servers = servers_of(found, found.ports[0], [slice_of(at(1), at(2))])
    assert [each.weight for each in servers] == [5, 1]


def test_the_port_of_a_share_is_found_again() -> None:
    for text, wanted in (("default/web:http", "http"), ("default/web:80", 80)):
        share = Services({}, {}).share(name("web"), text.rpartition(":")[2])[0]
        assert share.port == (model.NamespacedName("default", "web"), wanted)

"""Which of several routes a request takes: their order."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kproxy.gateway.core.httproute import taken_ports
from kproxy.gateway.core.routes import (
    Host,
    Listener,
    Match,
    Owner,
    PathKind,
    PathMatch,
    Respond,
    Route,
    Routing,
    ValueMatch,
    literal_prefix,
    precedence,
)
from kproxy.model import NamespacedName, Origin

OWNER = Owner("HTTPRoute", NamespacedName("default", "b"), Origin("a.yaml", "2026-01-02T00:00:00Z"))
OLDER = OWNER._replace(origin=Origin("z.yaml", "2026-01-01T00:00:00Z"))
ROUTE = Route("http", OWNER, Host(), Match(), Respond(404))
X = ValueMatch("x", "1")


def path(kind: str, text: str) -> Route:
    return replace(ROUTE, match=Match(PathMatch(PathKind(kind), text)))


def matching(**conditions: object) -> Route:
    return replace(ROUTE, match=replace(Match(), **conditions))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (path("Exact", "/a"), path("Prefix", "/a/b")),
        (path("Prefix", "/a/b"), path("Prefix", "/a")),
        (path("Prefix", "/a/b/"), path("Prefix", "/a/bc"[:4])),
        (path("RegularExpression", "/api(/|$)(.*)"), path("RegularExpression", "/(.*)")),
        (path("RegularExpression", "/api(/|$)(.*)"), path("Prefix", "/api")),
        (path("Prefix", "/api"), path("RegularExpression", "/(.*)")),
        (matching(method="GET"), matching(headers=(X, X))),
        (matching(headers=(X, X)), matching(headers=(X,), queries=(X,))),
        (matching(queries=(X,)), ROUTE),
        (replace(ROUTE, owner=OLDER), ROUTE),
        (ROUTE, replace(ROUTE, owner=OWNER._replace(origin=Origin("a.yaml", "")))),
        (replace(ROUTE, owner=OWNER._replace(name=NamespacedName("default", "a"))), ROUTE),
        (ROUTE, replace(ROUTE, index=(0, 1))),
        (ROUTE, replace(path("Exact", "/a"), fallback=True)),
    ],
)
def test_a_route_comes_before_another(first: Route, second: Route) -> None:
    assert precedence(first) <= precedence(second)
    assert sorted([second, first], key=precedence) == [first, second] or first == second


@pytest.mark.parametrize(
    ("regex", "prefix"),
    [
        ("/", "/"),
        ("/api", "/api"),
        ("/api(/|$)(.*)", "/api"),
        ("/apis?", "/api"),
        ("/a*", "/"),
        ("/a+", "/a"),
        ("/a{0,1}", "/"),
        ("/a|/b", ""),
        ("/(a|b)", "/"),
        ("/a\\.b", "/a"),
        ("", ""),
    ],
)
def test_paths_that_match_begin_with_the_literal_prefix(regex: str, prefix: str) -> None:
    assert literal_prefix(PathMatch(PathKind.REGEX, regex)) == prefix


@pytest.mark.parametrize(
    ("port", "foreign", "ingresses", "warns"),
    [(80, False, True, True), (80, True, True, False), (81, False, True, False), (80, False, False, False)],
)
def test_a_gateway_that_takes_a_port_of_the_ingresses_is_named(
    port: int, foreign: bool, ingresses: bool, warns: bool
) -> None:
    gateway = Owner("Gateway", NamespacedName("default", "edge"), Origin("edge.yaml", ""))
    listeners = (
        Listener("http", 80),
        Listener("default.edge", port, "192.0.2.10", foreign=foreign, owner=gateway),
    )
    found = taken_ports(Routing(listeners, (ROUTE,) if ingresses else ()))
    assert [str(each) for each in found] == [
        "edge.yaml: Gateway default/edge: spec.listeners: "
        "it has port 80 of 192.0.2.10, where Ingresses get no requests then"
    ] * warns

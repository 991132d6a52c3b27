"""Routes as rows of a table."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kproxy.gateway.core.configuration import Server, State
from kproxy.gateway.core.routes import (
    Forward,
    Host,
    Listener,
    Match,
    Owner,
    PathChange,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    Route,
    Routing,
    Share,
    ValueMatch,
)
from kproxy.gateway.core.views import route_rows
from kproxy.model import NamespacedName, Origin

OWNER = Owner("Ingress", NamespacedName("default", "web"), Origin("f", ""))
SERVERS = tuple(Server(f"10.0.0.{number}", 80) for number in range(1, 6))
WEB = Share("default/web:80", SERVERS[:1])
ROUTE = Route("http", OWNER, Host("a.test"), Match(), Forward((WEB,)))


def forward(*servers: Server) -> Forward:
    return Forward((replace(WEB, servers=servers),))


@pytest.mark.parametrize(
    ("change", "column", "cell"),
    [
        ({}, 1, "a.test"),
        ({"host": Host()}, 1, "*"),
        ({"host": Host("*.a.test", deep=True)}, 1, "**.a.test"),
        ({}, 2, "/*"),
        ({"match": Match(PathMatch(PathKind.EXACT, "/a"))}, 2, "/a"),
        ({"match": Match(PathMatch(PathKind.REGEX, "/a.*"))}, 2, "~/a.*"),
        ({"fallback": True}, 2, "<default>"),
        ({}, 3, "<none>"),
        (
            {"match": Match(method="GET", headers=(ValueMatch("A", "b"), ValueMatch("C", "d", regex=True)))},
            3,
            "GET, A: b, C: ~d",
        ),
        ({"match": Match(queries=(ValueMatch("q", "1"),))}, 3, "q=1"),
        ({}, 4, "default/web:80"),
        (
            {"action": Forward((WEB, replace(WEB, name="default/api:80", weight=3)))},
            4,
            "default/web:80 (1), default/api:80 (3)",
        ),
        ({"action": Forward(())}, 4, "<none>"),
        ({"action": Redirect("https", status=308)}, 4, "redirect 308 https"),
        ({"action": Redirect("https", "b.test", path=PathChange("/x"))}, 4, "redirect 302 https://b.test/x"),
        ({"action": Respond(404)}, 4, "404"),
        ({}, 5, "10.0.0.1:80"),
        ({"action": forward()}, 5, "<none>"),
        ({"action": forward(*SERVERS)}, 5, "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."),
        ({"action": forward(replace(SERVERS[0], state=State.DRAIN))}, 5, "10.0.0.1:80 (drain)"),
        ({"action": Respond(404)}, 5, "<none>"),
        ({}, 6, "Ingress default/web"),
    ],
)
def test_a_cell_of_a_route(change: dict[str, object], column: int, cell: str) -> None:
    (row,) = route_rows(Routing((Listener("http", 80),), (replace(ROUTE, **change),)))
    assert row[column] == cell


def test_rows_are_in_the_order_in_which_routes_are_tried() -> None:
    paths = ("/", "/a/b", "/a")
    routes = [replace(ROUTE, match=Match(PathMatch(PathKind.PREFIX, path))) for path in paths]
    routes.append(replace(ROUTE, host=Host("0.test")))
    rows = route_rows(Routing((), tuple(routes)))
    assert [row[1] + row[2] for row in rows] == ["0.test/*", "a.test/a/b*", "a.test/a*", "a.test/*"]

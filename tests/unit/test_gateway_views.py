"""Routes as rows of a table."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kproxy.gateway.core import routes
from kproxy.gateway.core.configuration import Server, State
from kproxy.gateway.core.views import route_rows
from kproxy.model import NamespacedName, Origin

OWNER = routes.Owner("Ingress", NamespacedName("default", "web"), Origin("f", ""))
SERVERS = tuple(Server(f"10.0.0.{number}", 80) for number in range(1, 6))
WEB = routes.Share("default/web:80", SERVERS[:1])
HEADERS = (routes.ValueMatch("A", "b"), routes.ValueMatch("C", "d", regex=True))
ROUTE = routes.Route("http", OWNER, routes.Host("a.test"), routes.Match(), routes.Forward((WEB,)))


def at(path: str, kind: routes.PathKind = routes.PathKind.PREFIX) -> routes.Match:
    return routes.Match(routes.PathMatch(kind, path))


def forward(*servers: Server) -> routes.Forward:
    return routes.Forward((replace(WEB, servers=servers),))


@pytest.mark.parametrize(
    ("change", "column", "cell"),
    [
        ({}, 1, "a.test"),
        ({"host": routes.Host()}, 1, "*"),
        ({"host": routes.Host("*.a.test", deep=True)}, 1, "**.a.test"),
        ({}, 2, "/*"),
        ({"match": at("/a", routes.PathKind.EXACT)}, 2, "/a"),
        ({"match": at("/a.*", routes.PathKind.REGEX)}, 2, "~/a.*"),
        ({"fallback": True}, 2, "<default>"),
        ({}, 3, "<none>"),
        ({"match": routes.Match(method="GET", headers=HEADERS)}, 3, "GET, A: b, C: ~d"),
        ({"match": routes.Match(queries=(routes.ValueMatch("q", "1"),))}, 3, "q=1"),
        ({}, 4, "default/web:80"),
        (
            {"action": routes.Forward((WEB, replace(WEB, name="default/api:80", weight=3)))},
            4,
            "default/web:80 (1), default/api:80 (3)",
        ),
        ({"action": routes.Forward(())}, 4, "<none>"),
        ({"action": routes.Redirect("https", status=308)}, 4, "redirect 308 https"),
        (
            {"action": routes.Redirect("https", "b.test", path=routes.PathChange("/x"))},
            4,
            "redirect 302 https://b.test/x",
        ),
        ({"action": routes.Respond(404)}, 4, "404"),
        ({}, 5, "10.0.0.1:80"),
        ({"action": forward()}, 5, "<none>"),
        ({"action": forward(*SERVERS)}, 5, "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."),
        ({"action": forward(replace(SERVERS[0], state=State.DRAIN))}, 5, "10.0.0.1:80 (drain)"),
        ({"action": routes.Respond(404)}, 5, "<none>"),
        ({}, 6, "Ingress default/web"),
    ],
)
def test_a_cell_of_a_route(change: dict[str, object], column: int, cell: str) -> None:
    (row,) = route_rows(routes.Routing((routes.Listener("http", 80),), (replace(ROUTE, **change),)))
    assert row[column] == cell


def test_rows_are_in_the_order_in_which_routes_are_tried() -> None:
    paths = ("/", "/a/b", "/a")
    many = [replace(ROUTE, match=at(path)) for path in paths]
    many.append(replace(ROUTE, host=routes.Host("0.test")))
    rows = route_rows(routes.Routing((), tuple(many)))
    assert [row[1] + row[2] for row in rows] == ["0.test/*", "a.test/a/b*", "a.test/a*", "a.test/*"]

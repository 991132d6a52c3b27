"""Routes -> HAProxy's configuration: equal bytes, names, slots, and what is left out."""

from __future__ import annotations

import random
import re
from ipaddress import ip_network

import pytest
from msgspec.structs import replace

from kproxy.gateway.core import routes
from kproxy.gateway.core.configuration import Server, State, fitted
from kproxy.gateway.core.plan import PAYLOAD, certificate_line
from kproxy.gateway.core.render import render
from kproxy.gateway.core.sections import target
from kproxy.model import NamespacedName, Origin

HTTP = routes.Listener("http", 80)
ONE, TWO = Server("10.0.0.1", 8080), Server("10.0.0.2", 8080)
WEB, API = routes.Share("default/web:80", (ONE, TWO)), routes.Share("default/api:80", (ONE,))


def owner(name: str) -> routes.Owner:
    return routes.Owner("Ingress", NamespacedName("default", name), Origin(f"{name}.yaml", ""))


def route(host: str, share: routes.Share = WEB, path: str = "/", **rest: object) -> routes.Route:
    found = routes.Route(
        "http",
        owner(host),
        routes.Host(host),
        routes.Match(routes.PathMatch(routes.PathKind.PREFIX, path)),
        routes.Forward((share,)),
    )
    return replace(found, **rest)


MANY = [
    *(route(f"{letter}.test", WEB, f"/{letter}") for letter in "abcdef"),
    route("g.test", API, match=routes.Match(headers=(routes.ValueMatch("x", "1"),))),
    route("g.test", WEB),
    route("h.test", API, policy=routes.Policy(body_size=5)),
    route("i.test", action=routes.Redirect("https")),
]


def test_equal_routes_in_any_order_give_equal_bytes() -> None:
    wanted = render(routes.Routing((HTTP,), tuple(MANY))).configuration
    for seed in range(5):
        shuffled = random.Random(seed).sample(MANY, len(MANY))
        assert render(routes.Routing((HTTP,), tuple(shuffled))).configuration == wanted


def test_hosts_paths_and_endpoints_do_not_change_the_text() -> None:
    before = render(routes.Routing((HTTP,), (route("a.test"),))).configuration
    other = replace(WEB, servers=(ONE, replace(TWO, weight=3, state=State.DRAIN)))
    after = render(
        routes.Routing((HTTP,), (route("b.test", other, "/x"), route("c.test", other)))
    ).configuration
    assert after.text == before.text
    assert after.maps != before.maps
    assert after.backends["default.web.80"][1] == Server("10.0.0.2", 8080, 3, State.DRAIN)


def test_a_new_service_fits_into_the_loaded_text() -> None:
    before = render(routes.Routing((HTTP,), (route("a.test"),))).configuration
    after = render(routes.Routing((HTTP,), (route("a.test"), route("b.test", API)))).configuration
    found = fitted(after, before)
    assert found is not None
    assert found.text == before.text
    assert dict(found.maps["prefix.map"])["http/b.test/"] == "spare-1"
    assert found.backends["spare-1"] == (ONE,)


def test_a_certificate_does_not_change_the_text() -> None:
    secure = routes.Listener("https", 443, tls=True)
    known = replace(secure, certificates=(routes.Certificate("default/tls", b"pem", ("a.test",)),))
    before, after = (render(routes.Routing((each,), ())).configuration for each in (secure, known))
    assert after.text == before.text
    assert (after.certificates, after.certificate_lists) == (
        {"default_tls.pem": b"pem"},
        {"https.crtlist": (("default_tls.pem", ("a.test",)),)},
    )


def test_the_longest_names_are_names_of_different_files() -> None:
    space, secret, gateway = "n" * 63, "s" * 252, "g" * 253
    certificates = tuple(routes.Certificate(f"{space}/{secret}{end}", b"pem", ()) for end in "ab")
    listener = routes.Listener(f"{space}.{gateway}:8443", 8443, tls=True, certificates=certificates)
    configuration = render(routes.Routing((listener,), ())).configuration
    names = [*configuration.certificates, *configuration.certificate_lists]
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= 255 - len(".tmp") for name in names)


def headers(name: str, value: str) -> tuple[routes.Filter, ...]:
    return (routes.HeaderFilter(routes.Modified.RESPONSE, set=((name, value),)),)


CONDITIONS = [
    (route("x.test", path="/a/../b"), "'/a/../b' contains . or .. as an element"),
    (route("x.test", path="/a%0ab"), "'/a%0ab' contains a control character"),
    (
        route("x.test", match=routes.Match(headers=(routes.ValueMatch("a b", "1"),))),
        "'a b' is not the name of a header",
    ),
    (
        route("x.test", match=routes.Match(queries=(routes.ValueMatch("a)", "1"),))),
        "'a)' may only contain letters, digits and - . _ ~",
    ),
    (
        route("x.test", match=routes.Match(headers=(routes.ValueMatch("a", "((", regex=True),))),
        "'((' is not a regular expression: missing ), unterminated subpattern at position 1",
    ),
    (route("x.test", path="/" + "a" * 3000), "the path has more than 2048 characters"),
    (
        route("x.test", match=routes.Match(routes.PathMatch(routes.PathKind.REGEX, "/(a+)+"))),
        "'/(a+)+' repeats a group that contains a repetition or a choice",
    ),
]
FILTERS = [
    (route("x.test", filters=headers("a\nb", "c")), "'a\\nb' is not the name of a header"),
    (
        route("x.test", filters=headers("Transfer-Encoding", "chunked")),
        "the header Transfer-Encoding belongs to the connection: it cannot be set or removed",
    ),
    (route("x.test", filters=headers("a", "b\r\nc: d")), "must not contain the character '\\r'"),
    (route("x.test", filters=headers("a", "b" * 3000)), "has more than 2048 characters"),
]


@pytest.mark.parametrize(
    ("bad", "message", "reply"),
    [
        *((*each, None) for each in CONDITIONS),
        *((*each, routes.Respond(500)) for each in FILTERS),
    ],
)
def test_a_route_that_cannot_be_rendered_is_named(
    bad: routes.Route, message: str, reply: routes.Respond | None
) -> None:
    """It is named once, also if several listeners have it. With wrong conditions it is left out."""
    good, wrong = route("a.test"), replace(bad, field="spec.rules[0]")
    found = render(routes.Routing((HTTP,), (wrong, replace(wrong, listener="https"), good)))
    assert [str(each) for each in found.problems] == [
        f"x.test.yaml: Ingress default/x.test: spec.rules[0]: {message}"
    ]
    expected = (
        ()
        if reply is None
        else (
            replace(route("x.test"), action=reply),
            replace(route("x.test"), action=reply, listener="https"),
        )
    )
    assert found.configuration == render(routes.Routing((HTTP,), (*expected, good))).configuration


def test_each_backend_names_its_owner_and_its_service() -> None:
    found = render(routes.Routing((HTTP,), tuple(MANY)))
    assert found.owners == {
        "default.web.80": "Ingress default/a.test",
        "default.api.80": "Ingress default/g.test",
        "default.h.test.api.80": "Ingress default/h.test",
        "default.i.test.rule": "Ingress default/i.test",
    }


def test_different_backends_of_one_name_are_numbered() -> None:
    sizes = (route("a.test", policy=routes.Policy(body_size=size), path=f"/{size}") for size in (1, 2, 1))
    names = render(routes.Routing((HTTP,), tuple(sizes))).configuration.backends
    assert [*names] == ["default.a.test.web.80", "default.a.test.web.80.2", "gateway.404"]


def servers(*shares: routes.Share, failing: int = 0) -> list[tuple[str, int]]:
    found = target(route("a.test", action=routes.Forward(shares)), failing).servers
    return [(each.address, each.weight) for each in found]


@pytest.mark.parametrize(
    ("shares", "failing", "wanted"),
    [
        ((WEB,), 0, [("10.0.0.1", 1), ("10.0.0.2", 1)]),
        ((replace(WEB, servers=(replace(ONE, weight=3), TWO)),), 0, [("10.0.0.1", 3), ("10.0.0.2", 1)]),
        (
            (replace(WEB, weight=90), routes.Share("default/x:1", (Server("10.0.0.9", 1),), weight=10)),
            0,
            [("10.0.0.1", 9), ("10.0.0.2", 9), ("10.0.0.9", 2)],
        ),
        ((replace(WEB, weight=1), replace(API, weight=1)), 0, [("10.0.0.1", 3), ("10.0.0.2", 1)]),
        ((replace(WEB, weight=0), API), 0, [("10.0.0.1", 1)]),
        ((API, routes.Share("default/none:80", ())), 0, [("10.0.0.1", 1)]),
        ((API, routes.Share("default/none:80", ())), 9, [("10.0.0.1", 1), ("127.0.0.1", 1)]),
        ((routes.Share("default/none:80", (), failure=500),), 9, [("127.0.0.2", 1)]),
        ((routes.Share("default/none:80", ()),), 9, []),
        ((), 9, [("127.0.0.2", 1)]),
        (
            (replace(WEB, weight=1_000_000), routes.Share("default/x:1", (Server("10.0.0.9", 1),))),
            0,
            [("10.0.0.1", 256), ("10.0.0.2", 256), ("10.0.0.9", 1)],
        ),
    ],
)
def test_weights_of_shares(
    shares: tuple[routes.Share, ...], failing: int, wanted: list[tuple[str, int]]
) -> None:
    assert servers(*shares, failing=failing) == wanted


def test_many_networks_are_several_lines() -> None:
    networks = tuple(ip_network(f"10.0.{number}.0/24") for number in range(70))
    lines = target(route("a.test", policy=routes.Policy(allowed=networks)), 0).section.directives
    assert [len(line.split()) - 3 for line in lines if line.startswith("acl")] == [32, 32, 6]


def test_a_certificate_of_many_hosts_has_several_lines() -> None:
    hosts = tuple(f"host-{number}.{'a' * 60}.example.com" for number in range(1000))
    certificate = routes.Certificate("default/tls", b"pem", hosts)
    secure = routes.Listener("https", 443, tls=True, certificates=(certificate,))
    entries = render(routes.Routing((secure,), ())).configuration.certificate_lists["https.crtlist"]
    assert sorted(host for _, names in entries for host in names) == sorted(hosts)
    assert max(len(certificate_line(*entry)) for entry in entries) < PAYLOAD


def test_passwords_that_take_too_long_together_are_left_out() -> None:
    users = tuple(routes.User(f"u{number}", f"$2y$10${'a' * 53}") for number in range(60))
    one, other = (routes.Policy(auth=routes.BasicAuth(realm, users)) for realm in "ab")
    found = render(routes.Routing((HTTP,), (route("b.test", policy=other), route("a.test", policy=one))))
    (problem,) = found.problems
    assert problem.object == "Ingress default/a.test"
    assert "HAProxy needs too long to check the passwords" in problem.message
    assert re.findall(r"userlist (\S+)", found.configuration.head) == ["users-1"]

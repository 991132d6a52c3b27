"""Random Ingresses with hostile values: HAProxy accepts each configuration that is made of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kproxy.decode import Document, decode
from kproxy.gateway.core.annotations import KNOWN
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.ingress import Objects, Ports
from kproxy.gateway.core.views import listing, route_rows
from kproxy.gateway.renderer import Renderer
from tests.gateway.running import check, write
from tests.gateway.test_any_text import PIECES
from tests.gateway.world import service
from tests.unit.test_gateway_annotations import HASH

COUNT = 300
HOSTS = [
    "a.test",
    "b.a.test",
    "*.a.test",
    "*.test",
    "",
    "xn--a.test",
    *(f"{number}.test" for number in range(90)),
]
PATHS = [
    *(
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a b",
        "/é",
        "/.a",
        "/%41",
        "/a'b",
        "/a#b",
        "/a;b",
        "/a{b}",
        "/a}",
        "/%25",
        "/a%20b",
    ),
    *(
        "/a(/|$)(.*)",
        "/[a-z]+/(x|y)",
        "/a|b",
        "/\\d{2}",
        "/a?b",
        "/.*",
        "/a$b",
        "/$",
        "/^a",
        "",
        "/(?:ab)*",
        "/a\\.b",
        "/" + "(?:[a-z]bc)" * 20 + "(?:abcdefgh){0,999}" * 2,
        "/" + "a" * 5000,
    ),
]
BAD_PATHS = ["//", "/a/..", "/%", "/%2e", "/(a+)+", "/(", "/[", "a", "/%0a"]
HEADERS = ["X-A: b", "X-A:", "X-A: b\nX-C: d'%e", "Host: %[src]", 'X-A: "${HOME}" #', "A: }", "A: '"]
FITTING = {
    "affinity": ["cookie"],
    "app-root": ["/x", "/é%20'", "/x y"],
    "auth-realm": ["a", 'it\'s "x"', "%[src]"],
    "auth-secret": ["users"],
    "auth-type": ["basic"],
    "backend-protocol": ["HTTP", "HTTPS", "GRPC", "GRPCS"],
    "canary-by-cookie": ["c"],
    "canary-by-header": ["X-Canary"],
    "canary-by-header-pattern": [
        "^a+$",
        "it's } #",
        "((",
        "[z-a]",
        "(?R)",
        "a{3,1}",
        "(?:" + "ab" * 20 + "){999}",
    ],
    "canary-by-header-value": ["y", "it's } #", "}"],
    "cors-allow-headers": ["X-A, X-B", "*"],
    "cors-allow-methods": ["GET, PUT"],
    "cors-allow-origin": ["*", "https://*.a.test", "a+++b.://*.x.test", "https://a.test:8443, http://b.test"],
    "cors-expose-headers": ["X-A"],
    "custom-http-errors": ["500", "404,503"],
    "permanent-redirect": ["https://a.test/x", "http://a.test:81/é'%25"],
    "limit-burst-multiplier": ["5", "10000", "10001"],
    "proxy-body-size": ["8m", "0", "1k", "9999999999g"],
    "proxy-connect-timeout": ["5", "9999999h"],
    "request-headers": HEADERS,
    "response-headers": HEADERS,
    "rewrite-target": ["/x", "/$1", "/a/$2/$9", "$1", "/é $1%20'", "/%"],
    "server-alias": ["x.test", "y.test, *.z.test"],
    "session-cookie-name": ["route", "a.b_c-d"],
    "session-cookie-path": ["/", "/a"],
    "session-cookie-samesite": ["Strict", "None"],
    "temporal-redirect": ["https://a.test"],
    "upstream-vhost": ["inner.test", "it's", "%[src]"],
    "x-forwarded-prefix": ["/a", "'%d"],
}
"""Values that are accepted, or almost. Names with `range`, `list` or numbers have others."""


def fitting(name: str) -> list[str]:
    """Return such values for a name."""
    if name in FITTING:
        return FITTING[name]
    if "range" in name or name.endswith("list"):
        return ["10.0.0.0/8", "10.0.0.1, ::1", ", ".join(f"10.1.{each}.0/24" for each in range(70))]
    numbers = ("limit", "timeout", "age", "weight", "expires", "code")
    return ["1", "5", "308", "60"] if any(word in name for word in numbers) else ["true"]


VALUES = ["", " ", "-1", "x" * 3000, "true", "/", "a.test"]
RARE = {"permanent-redirect", "temporal-redirect", "force-ssl-redirect", "canary"}
"""With these, most other annotations have no effect."""
NAMES = sorted(KNOWN - RARE)
TYPES = ["Exact", "Prefix", "ImplementationSpecific"]


def ingress(chance: random.Random, number: int) -> dict[str, Any]:
    names = chance.sample(NAMES, chance.choice([0, 0, 1, 2, 4, 12]))
    if chance.random() < 0.1:
        names.append(chance.choice(sorted(RARE)))
    if "auth-type" in names:
        names.append("auth-secret")
    prefixes = ("kproxy.io/", "nginx.ingress.kubernetes.io/")
    notes = {chance.choice(prefixes) + name: value(chance, name) for name in names}
    rules = [rule(chance) for _ in range(chance.randint(1, 3))]
    tls = [{"hosts": [chance.choice(HOSTS[:2])], "secretName": "tls"}] if chance.random() < 0.02 else []
    spec = {"rules": rules, "tls": tls}
    metadata = {"name": f"i{number}", "annotations": notes}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def value(chance: random.Random, name: str) -> str:
    if chance.random() < 0.95:
        return chance.choice(fitting(name))
    hostile = chance.choices([*PIECES, "\n", "\r", "\t", "\0", "\u202e"], k=chance.randint(1, 5))
    return chance.choice([*VALUES, "".join(hostile)])


def rule(chance: random.Random) -> dict[str, Any]:
    path = chance.choice(PATHS) if chance.random() < 0.9 else "/" + "".join(chance.choices(PIECES, k=3))
    path = chance.choice(BAD_PATHS) if chance.random() < 0.03 else path
    backend = {"service": {"name": chance.choice(["foo", "bar", "none"]), "port": {"number": 80}}}
    paths = [{"path": path, "pathType": chance.choice(TYPES), "backend": backend}]
    return {"host": chance.choice(HOSTS), "http": {"paths": paths}}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_haproxy_accepts_what_is_made_of_any_ingresses(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    users = {"auth": f"anna:{HASH}\nb%'\"}}{{:{HASH}\n"}
    objects: list[Any] = [*service("foo", "10.0.0.1"), *service("bar", "")]
    objects.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "users"}, "stringData": users})
    objects += [ingress(chance, number) for number in range(COUNT)]
    state = decode(Document("f", each) for each in objects).state
    services = Services(state.services, state.slices)
    found = Renderer(Ports(8080, 8443, "127.0.0.1")).render(
        Objects(state.ingresses, services, state.ingress_classes, state.secrets), 0
    )
    assert check(write(found.configuration, tmp_path)) == ""
    directives = [line for each in found.configuration.sections.values() for line in each.directives]
    assert len(directives) > COUNT
    assert len(found.problems) > COUNT / 20
    assert all(line.isprintable() for line in listing(found.configuration).split("\n"))
    assert len(route_rows(found.routing)) == len(found.routing.routes)
    for entries in found.configuration.maps.values():
        assert all(
            text.isascii() and text.isprintable() and " " not in text for pair in entries for text in pair
        )

"""The objects behind the table: those of world.yaml, and routes as an HTTPRoute has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from kproxy.decode import Decoded, Document, decode
from kproxy.gateway.certificates import Checks, self_signed
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.ingress import Objects, Ports, Routed, certificates_of, route
from kproxy.gateway.core.routes import (
    Filter,
    Forward,
    HeaderFilter,
    Host,
    Listener,
    Match,
    Modified,
    Owner,
    PathChange,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    RewriteFilter,
    Route,
    Routing,
    Share,
    ValueMatch,
)
from kproxy.model import NamespacedName, Origin

SERVICES = ("foo", "bar", "web", "admin", "fallback", "empty")
ADDRESSES = {f"127.1.0.{number}": name for number, name in enumerate(SERVICES[:-1], 1)}
"""Where the server of each Service is. `empty` has none."""
HERE = Path(__file__).parent


def service(name: str, address: str) -> list[dict[str, Any]]:
    """A Service with port 80, named http, and its slice."""
    port = {"name": "http", "port": 80}
    endpoints = [{"addresses": [address]}] if address else []
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [port]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        },
    ]


def secret(name: str, chain: bytes, key: bytes) -> dict[str, Any]:
    data = {"tls.crt": chain.decode(), "tls.key": key.decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def decoded() -> Decoded:
    """The objects of world.yaml, of the Services, and of certificates."""
    objects: list[Any] = list(yaml.safe_load_all((HERE / "world.yaml").read_text()))
    addresses = {name: address.replace("127.1.", "10.0.") for address, name in ADDRESSES.items()}
    for name in SERVICES:
        objects += service(name, addresses.get(name, ""))
    first, second = self_signed(["kubia.example.com"]), self_signed(["*.tls.test"])
    objects += [
        secret("tls-secret", *first),
        secret("wildcard", *second),
        secret("bad", first[0], second[1]),
    ]
    found = decode(Document("world.yaml", json.loads(json.dumps(each))) for each in objects)
    assert found.problems == []
    return found


def ingress_routes(found: Decoded, ports: Ports, now: float) -> Routed:
    """The routes of all Ingresses."""
    state = found.state
    objects = Objects(
        state.ingresses, Services(state.services, state.slices), state.ingress_classes, state.secrets
    )
    checked = Checks().check(certificates_of(state.ingresses), state.secrets, now)
    return route(objects, checked, ports)


def routing(found: Routed, api_port: int, failing_port: int) -> Routing:
    """The routes of all Ingresses, and those of the listener api."""
    listener = Listener("api", api_port, "127.0.0.1")
    shares = {
        share.name.partition(":")[0].rpartition("/")[2]: share
        for each in found.routing.routes
        if isinstance(each.action, Forward)
        for share in each.action.shares
    }
    own = tuple(api_routes(shares))
    return Routing((*found.routing.listeners, listener), found.routing.routes + own, failing_port)


EXACT, PREFIX, REGEX = PathKind.EXACT, PathKind.PREFIX, PathKind.REGEX


def api_routes(shares: dict[str, Share]) -> list[Route]:
    """Routes with conditions of all kinds."""

    def add(
        host: str,
        result: str | Redirect | Respond,
        path: str = "/",
        kind: PathKind = PREFIX,
        filters: tuple[Filter, ...] = (),
        created: str = "2026-01-01T00:00:00Z",
        **conditions: Any,
    ) -> None:
        owner = Owner("HTTPRoute", NamespacedName("default", "api"), Origin("world.py", created))
        match = replace(Match(PathMatch(kind, path)), **conditions)
        action = Forward((shares[result],)) if isinstance(result, str) else result
        deep = Host(host, deep=True)
        routes.append(Route("api", owner, deep, match, action, filters, index=(len(routes), 0)))

    routes: list[Route] = []
    version = ValueMatch("version", "2")
    add("h.test", "foo")
    add("h.test", "bar", headers=(version,))
    add("h.test", "web", headers=(version, ValueMatch("x-user", "it's }")))
    add("h.test", "admin", method="POST")
    add("h.test", "fallback", queries=(ValueMatch("q", "a b"),))
    add("h.test", "bar", "/long")
    add("h.test", "web", "/long", headers=(ValueMatch("brace", "}"),))
    add("h.test", "admin", "/exact", EXACT)
    add("h.test", "web", "/exact/more", PREFIX, headers=(version,))
    add("h.test", "fallback", r"/r/[a-z]+\.(?:png|jpg)$", REGEX)
    add("h.test", "web", "/header-regex", headers=(ValueMatch("version", "^[0-9]+$", regex=True),))
    add("", Redirect("https"), "/to-https")
    add("old.test", "foo", created="2026-01-02T00:00:00Z")
    add("old.test", "bar", created="2026-01-01T00:00:00Z")
    add("*.deep.test", "foo")
    add("*.b.deep.test", "bar")
    add("only.deep.test", "web", "/only")
    old = PathChange("/new", prefix=True)
    add("change.test", "foo", "/old", filters=(RewriteFilter(path=old),))
    add("change.test", "foo", "/strip", filters=(RewriteFilter(path=PathChange("/", prefix=True)),))
    add("change.test", "foo", "/full", filters=(RewriteFilter("inner.test", PathChange("/one%20 path")),))
    headers = HeaderFilter(Modified.REQUEST, set=(("A", "1"),), add=(("B", "x'y %"),), remove=("C",))
    add("change.test", "foo", "/headers", filters=(headers,))
    add("change.test", Redirect("https", "new.test", 8443, status=301), "/to")
    add("change.test", Redirect(path=PathChange("/new", prefix=True)), "/prefix")
    add("change.test", Redirect(path=PathChange("/whole"), port=8080), "/all")
    add("change.test", Respond(404), "/gone")
    missing = Share("default/missing:80", (), failure=500)
    routes.append(replace(routes[0], host=Host("broken.test"), action=Forward((missing,))))
    two = Forward((replace(shares["foo"], weight=9), replace(shares["bar"], weight=1)))
    routes.append(replace(routes[0], host=Host("weights.test"), action=two))
    return routes

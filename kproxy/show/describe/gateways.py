"""Describes objects of the Gateway API: what refers to what, conditions, and the endpoints behind. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kproxy.gateway.core.attachment import Refusal
from kproxy.gateway.core.backends import resolve
from kproxy.gatewayapi import (
    BackendRef,
    Gateway,
    GatewayClass,
    HTTPFilters,
    PathModifier,
    ReferenceGrant,
    Route,
    RouteRule,
)
from kproxy.model import NamespacedName
from kproxy.show.describe.context import Context, annotation_lines, heading, multiline, section
from kproxy.show.gateways import Shown, grant_lines, reference_text
from kproxy.show.tables import NONE, cut, sockets, table

Lines = Iterator[tuple[str, str]]


def describe_class(shown: Shown, context: Context) -> str:
    """Return the description of a GatewayClass."""
    found = shown.object
    assert isinstance(found, GatewayClass)
    about = [("Controller:", found.controller), ("Description:", found.description or NONE)]
    gateways = [
        str(name) for name, each in context.inventory.gateways.gateways.items() if _has_class(each, found)
    ]
    return _head(shown, context, about) + section("Gateways", sorted(gateways)) + _conditions(shown.status)


def _has_class(gateway: Gateway, found: GatewayClass) -> bool:
    return gateway.class_name == found.name.name


def describe_gateway(shown: Shown, context: Context) -> str:
    """Return the description of a Gateway, with the routes of its listeners."""
    found = shown.object
    assert isinstance(found, Gateway)
    about = [("Class:", found.class_name)]
    about += multiline("Addresses:", [each["value"] for each in shown.status.get("addresses", ())])
    rows = [
        ("Name", "Port", "Protocol", "Hostname", "Routes"),
        ("----", "----", "--------", "--------", "------"),
    ]
    for each in found.listeners:
        routes = context.objects.statuses.attachments.routes(found.name, each.name)
        names = cut([f"{route.kind} {_relative(route.name, found.name)}" for route in routes]) or NONE
        rows.append((each.name, str(each.port), each.protocol, each.hostname or "*", names))
    text = _head(shown, context, about) + section("Listeners", table(rows, gap=2)) + _conditions(shown.status)
    for listener in shown.status.get("listeners", ()):
        text += _conditions(listener, f"Conditions of listener {listener['name']}")
    return text + section("Problems", context.problems("Gateway", found.name))


def _relative(name: NamespacedName, other: NamespacedName) -> str:
    return name.name if name.namespace == other.namespace else str(name)


def describe_route(shown: Shown, context: Context) -> str:
    """Return the description of a route, with the endpoints of its backends."""
    found = shown.object
    assert isinstance(found, Route)
    hostnames = [("Hostnames:", ",".join(found.hostnames) or "*")] if found.kind == "HTTPRoute" else []
    text = _head(shown, context, hostnames)
    for number, rule in enumerate(found.rules):
        rows = [("Backend", "Weight", "Endpoints"), ("-------", "------", "---------")]
        rows += (_backend(found, ref, context) for ref in rule.backends)
        lines = table([*_conditions_of(rule), *_filters(rule.filters)], gap=2) if rule.matches else ""
        text += section(f"Rule {rule.name or number}", lines + table(rows if rule.backends else [], gap=2))
    parents = [each.parent for each in context.objects.statuses.of_route(found)]
    conditions = dict(zip(parents, shown.status.get("parents", ()), strict=True))
    for parent in found.parents:
        title = f"Parent {reference_text(parent)}"
        text += _conditions(conditions.get(parent, {}), title)
    return text + section("Problems", context.problems(found.kind, found.name))


def _conditions_of(rule: RouteRule) -> Lines:
    """Yield a line for each match of a rule, for example `Match:  PathPrefix /api, GET, query a=1`."""
    for match in rule.matches:
        method = [match.method] if match.method else []
        headers = [f"header {each.name}: {'~' if each.regex else ''}{each.value}" for each in match.headers]
        queries = [f"query {each.name}={'~' if each.regex else ''}{each.value}" for each in match.queries]
        yield "Match:", ", ".join([f"{match.path_type} {match.path}", *method, *headers, *queries])


def _filters(filters: HTTPFilters) -> Lines:
    """Yield a line for each filter of a rule."""
    for each in filters.headers:
        changes = [f"set {name}: {value}" for name, value in each.set]
        changes += [f"add {name}: {value}" for name, value in each.add]
        changes += [f"remove {name}" for name in each.remove]
        yield "Response headers:" if each.of_response else "Request headers:", ", ".join(changes) or NONE
    if found := filters.redirect:
        where = f"{found.scheme or '*'}://{found.hostname or '*'}{f':{found.port}' if found.port else ''}"
        yield "Redirect:", f"{found.status} {where}{_path(found.path)}"
    if rewrite := filters.rewrite:
        yield "Rewrite:", f"{rewrite.hostname or '*'}{_path(rewrite.path)}"
    for kind in filters.unsupported:
        yield f"{kind}:", "not supported"


def _path(path: PathModifier | None) -> str:
    if path is None:
        return ""
    return f"{path.text}* (prefix)" if path.prefix else path.text


def _backend(route: Route, ref: BackendRef, context: Context) -> tuple[str, str, str]:
    found = resolve(context.inventory.gateways, context.services.get, route, ref)
    name = f"{_relative(ref.name, route.name)}:{ref.port}"
    if isinstance(found, Refusal):
        return name, str(ref.weight), f"<error: {found.message}>"
    endpoints = cut(sockets(context.slices(found.service.name), found.port))
    return name, str(ref.weight), endpoints or NONE


def describe_grant(shown: Shown, context: Context) -> str:
    """Return the description of a ReferenceGrant."""
    found = shown.object
    assert isinstance(found, ReferenceGrant)
    sources, targets = grant_lines(found)
    return _head(shown, context, []) + section("From", sources) + section("To", targets)


def _head(shown: Shown, context: Context, about: Iterable[tuple[str, str]]) -> str:
    lines = [*heading(shown.name, shown.labels), *annotation_lines(shown.object.annotations, context), *about]
    return table(lines, gap=2)


def _conditions(status: dict[str, Any], title: str = "Conditions") -> str:
    rows = [("Type", "Status", "Reason", "Message"), ("----", "------", "------", "-------")]
    found = [
        (each["type"], each["status"], each["reason"], each["message"])
        for each in status.get("conditions", ())
    ]
    return section(title, table(rows + found, gap=2) if found else [])

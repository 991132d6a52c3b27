"""HTTPRoute -> gatewayapi.py, with the checks of the Gateway API's CRD."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from kproxy.decode import gatewaywire as wire
from kproxy.decode.fields import FieldError, Notes, port_number
from kproxy.decode.gateways import check_length, common, one_of, section_name
from kproxy.decode.ingress import host_name
from kproxy.decode.routes import BACKENDS, backend, parents
from kproxy.gatewayapi import (
    BackendRef,
    HeaderModifier,
    HTTPFilters,
    HTTPMatch,
    PathModifier,
    RequestRedirect,
    Route,
    RouteRule,
    URLRewrite,
    ValueMatch,
)

HOSTNAMES, RULES, MATCHES, ALL_MATCHES, FILTERS, HEADERS = 16, 16, 64, 128, 16, 16
"""The maximum numbers, as in the CRD."""
PATH_TYPES = ("Exact", "PathPrefix", "RegularExpression")
VALUE_TYPES = ("Exact", "RegularExpression")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
STATUSES = (301, 302, 303, 307, 308)
SCHEMES = ("http", "https")
FULL, PREFIX = "ReplaceFullPath", "ReplacePrefixMatch"
FIELDS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
}
"""The field of each type of filter that kproxy supports."""
UNSUPPORTED = ("RequestMirror", "CORS", "ExternalAuth", "ExtensionRef")
NOT_IN_PATHS = re.compile(r"//|/\.\.?(/|$)|%2f|#", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}")
DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
PART = re.compile(r"([0-9]+)(h|ms|m|s)")
MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
DEFAULT = wire.HTTPRule()


def http_route(source: str, obj: wire.HTTPRoute, notes: Notes) -> list[Route]:
    """Decode an HTTPRoute."""
    fields, spec = common(source, obj.metadata, obj.spec, notes), obj.spec
    namespace = fields["name"].namespace
    rules = [DEFAULT] if spec.rules is None else spec.rules
    check_length("spec.rules", rules, RULES, least=1)
    check_length("spec.hostnames", spec.hostnames or [], HOSTNAMES)
    if (matches := sum(len(rule.matches or [DEFAULT]) for rule in rules)) > ALL_MATCHES:
        raise FieldError("spec.rules", f"have {matches} matches: must have at most {ALL_MATCHES} together")
    return [
        Route(
            **fields,
            kind="HTTPRoute",
            parents=parents(spec.parent_refs or [], namespace),
            hostnames=tuple(
                host_name(f"spec.hostnames[{i}]", text) for i, text in enumerate(spec.hostnames or [])
            ),
            rules=tuple(_rule(f"spec.rules[{i}]", rule, namespace, notes) for i, rule in enumerate(rules)),
        )
    ]


def _rule(path: str, rule: wire.HTTPRule, namespace: str, notes: Notes) -> RouteRule:
    for key, value in (("retry", rule.retry), ("sessionPersistence", rule.session_persistence)):
        if value is not None:
            notes.warn(f"{path}.{key}", "is not supported: ignored")
    references = rule.backend_refs or []
    check_length(f"{path}.backendRefs", references, BACKENDS)
    entries = rule.matches or [wire.HTTPRouteMatch()]
    check_length(f"{path}.matches", entries, MATCHES)
    matches = tuple(_match(f"{path}.matches[{i}]", entry) for i, entry in enumerate(entries))
    filters = _filters(f"{path}.filters", rule.filters or [], matches)
    if filters.redirect and references:
        raise FieldError(f"{path}.backendRefs", "must not be set together with a filter RequestRedirect")
    timeouts = rule.timeouts or wire.HTTPTimeouts()
    whole = _duration(f"{path}.timeouts.request", timeouts.request)
    one = _duration(f"{path}.timeouts.backendRequest", timeouts.backend_request)
    if whole and one > whole:
        raise FieldError(f"{path}.timeouts.backendRequest", "must not be longer than timeouts.request")
    return RouteRule(
        tuple(_backend(f"{path}.backendRefs[{i}]", each, namespace) for i, each in enumerate(references)),
        section_name(f"{path}.name", rule.name) if rule.name else "",
        matches,
        filters,
        whole,
        one,
    )


def _backend(path: str, entry: wire.HTTPBackendReference, namespace: str) -> BackendRef:
    types = [each.type for each in entry.filters or ()]
    check_length(f"{path}.filters", types, FILTERS)
    for index, kind in enumerate(types):
        one_of(f"{path}.filters[{index}].type", kind, (*FIELDS, *UNSUPPORTED))
    return replace(backend(path, entry, namespace), filters=tuple(types))


# --- matches ---


def _match(path: str, entry: wire.HTTPRouteMatch) -> HTTPMatch:
    found = entry.path or wire.HTTPPathMatch()
    kind = one_of(f"{path}.path.type", found.type or "PathPrefix", PATH_TYPES)
    text = "/" if found.value is None else found.value
    return HTTPMatch(
        kind,
        _path(f"{path}.path.value", text) if kind != "RegularExpression" else text,
        one_of(f"{path}.method", entry.method, METHODS) if entry.method else "",
        tuple(_values(f"{path}.headers", entry.headers or [], str.lower)),
        tuple(_values(f"{path}.queryParams", entry.query_params or [], str)),
    )


def _path(path: str, text: str) -> str:
    if not text.startswith("/"):
        raise FieldError(path, f"{text!r} must begin with /")
    if wrong := NOT_IN_PATHS.search(text):
        raise FieldError(path, f"{text!r} must not contain {wrong[0]!r}")
    return text


def _values(path: str, entries: list[wire.HTTPValueMatch], key: Callable[[str], str]) -> Iterator[ValueMatch]:
    """Yield the conditions. Of several with names of one key, the first one counts."""
    check_length(path, entries, HEADERS)
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        name = key(_header_name(f"{path}[{index}].name", entry.name))
        kind = one_of(f"{path}[{index}].type", entry.type or "Exact", VALUE_TYPES)
        if name not in seen:
            seen.add(name)
            yield ValueMatch(entry.name, entry.value, kind == "RegularExpression")


def _header_name(path: str, text: str) -> str:
    if not NAME.fullmatch(text):
        raise FieldError(path, f"{text!r} is not a name: at most 256 letters, digits and some signs")
    return text


# --- filters ---


def _filters(path: str, entries: list[wire.HTTPRouteFilter], matches: Iterable[HTTPMatch]) -> HTTPFilters:
    check_length(path, entries, FILTERS)
    headers: list[HeaderModifier] = []
    unsupported: list[str] = []
    redirect, rewrite = None, None
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        place, kind = f"{path}[{index}]", one_of(f"{path}[{index}].type", entry.type, (*FIELDS, *UNSUPPORTED))
        if kind in UNSUPPORTED:
            unsupported.append(kind)
            continue
        if kind in seen:
            raise FieldError(f"{place}.type", f"{kind} is a duplicate")
        seen.add(kind)
        value = getattr(entry, FIELDS[kind])
        if value is None:
            raise FieldError(f"{place}.{_camel(FIELDS[kind])}", "is missing")
        match kind:
            case "RequestRedirect":
                redirect = _redirect(f"{place}.requestRedirect", value, matches)
            case "URLRewrite":
                rewrite = _rewrite(f"{place}.urlRewrite", value, matches)
            case _:
                headers.append(
                    _headers(f"{place}.{_camel(FIELDS[kind])}", value, kind.startswith("Response"))
                )
    if redirect and rewrite:
        raise FieldError(path, "must not have both RequestRedirect and URLRewrite")
    return HTTPFilters(tuple(headers), redirect, rewrite, tuple(unsupported))


def _camel(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(map(str.title, others))


def _headers(path: str, entry: wire.HTTPHeaderFilter, of_response: bool) -> HeaderModifier:
    for key in ("set", "add", "remove"):
        check_length(f"{path}.{key}", getattr(entry, key) or (), HEADERS)

    def pairs(key: str, values: list[wire.HTTPHeader] | None) -> tuple[tuple[str, str], ...]:
        return tuple(
            (_header_name(f"{path}.{key}[{i}].name", each.name), each.value)
            for i, each in enumerate(values or [])
        )

    removed = tuple(_header_name(f"{path}.remove[{i}]", name) for i, name in enumerate(entry.remove or []))
    return HeaderModifier(of_response, pairs("set", entry.set), pairs("add", entry.add), removed)


def _redirect(path: str, entry: wire.HTTPRequestRedirect, matches: Iterable[HTTPMatch]) -> RequestRedirect:
    status = 302 if entry.status_code is None else entry.status_code
    if status not in STATUSES:
        raise FieldError(f"{path}.statusCode", f"{status} is not one of {', '.join(map(str, STATUSES))}")
    return RequestRedirect(
        one_of(f"{path}.scheme", entry.scheme, SCHEMES) if entry.scheme else "",
        _precise(f"{path}.hostname", entry.hostname or ""),
        _modifier(f"{path}.path", entry.path, matches),
        0 if entry.port is None else port_number(f"{path}.port", entry.port),
        status,
    )


def _rewrite(path: str, entry: wire.HTTPURLRewrite, matches: Iterable[HTTPMatch]) -> URLRewrite:
    hostname = _precise(f"{path}.hostname", entry.hostname or "")
    return URLRewrite(hostname, _modifier(f"{path}.path", entry.path, matches))


def _precise(path: str, text: str) -> str:
    if text.startswith("*"):
        raise FieldError(path, f"{text!r} must not be a wildcard")
    return host_name(path, text)


def _modifier(
    path: str, entry: wire.HTTPPathModifier | None, matches: Iterable[HTTPMatch]
) -> PathModifier | None:
    if entry is None:
        return None
    kind = one_of(f"{path}.type", entry.type, (FULL, PREFIX))
    text = entry.replace_full_path if kind == FULL else entry.replace_prefix_match
    if text is None:
        raise FieldError(f"{path}.{kind[0].lower()}{kind[1:]}", "is missing")
    if kind == PREFIX and any(each.path_type != "PathPrefix" for each in matches):
        raise FieldError(f"{path}.type", f"{PREFIX} needs matches of type PathPrefix")
    return PathModifier(text, kind == PREFIX)


# --- timeouts ---


def _duration(path: str, text: str | None) -> int:
    """Return milliseconds, 0 for none."""
    if text is None:
        return 0
    if not DURATION.fullmatch(text):
        raise FieldError(path, f"{text!r} is not a duration such as 10s or 500ms")
    return sum(int(number) * MILLISECONDS[unit] for number, unit in PART.findall(text))

"""A route -> the backend section that carries it out: its directives and its servers.

Directives stand in the order in which HAProxy carries them out: who may send the request, what it may
contain, its changes, then the changes of the response. A route to one Service without filters and policy has
no directives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import zip_longest
from math import gcd
from typing import NamedTuple

from kproxy.gateway.core.configuration import LARGEST_WEIGHT, Section, Server, State, slots_for
from kproxy.gateway.core.paths import canonical, canonical_regex, encoded
from kproxy.gateway.core.quote import (
    changed_header,
    format_text,
    pattern,
    quoted,
    quoted_format,
    word,
)
from kproxy.gateway.core.routes import (
    Action,
    Affinity,
    CorsFilter,
    Filter,
    Forward,
    HeaderFilter,
    Limits,
    Modified,
    PathChange,
    PathKind,
    PathMatch,
    Policy,
    Redirect,
    Respond,
    RewriteFilter,
    Route,
    Share,
)
from kproxy.model import Network

FAILING = {500: "127.0.0.2", 503: "127.0.0.1"}
"""The loopback address on which a listener of the gateway itself replies with a status."""
_GROUP = re.compile(r"\$([0-9])")
LARGEST_TIME = 2_000_000_000
"""Milliseconds. HAProxy refuses times from 25 days on."""
PER_LINE = 32
"""Networks in a line; HAProxy takes at most 64 words."""
OPTIONS = {
    "http": "",
    "https": "ssl verify none sni req.hdr(host) alpn http/1.1",
    "h2c": "proto h2",
    "h2": "ssl verify none sni req.hdr(host) alpn h2",
}
"""Parameters of servers by the protocol that they speak. Certificates of pods are not checked."""


class Target(NamedTuple):
    """A backend without its name."""

    section: Section
    servers: tuple[Server, ...]


def target(route: Route, failing_port: int, users: str = "") -> Target:
    """Return the backend of a route. Raises ValueError if its text cannot be in the configuration.

    `failing_port`: where shares without endpoints go, 0 for nowhere. `users`: the list of users of its
    policy.
    """
    servers = servers_for(route.action, failing_port)
    directives = tuple(_directives(route, users))
    if directives and not isinstance(route.action, Respond):
        directives = (f"# {route.owner}", *directives)
    forwards = isinstance(route.action, Forward)
    slots = slots_for(len(servers)) if forwards else 0
    return Target(Section(slots, directives, OPTIONS[route.policy.protocol] if forwards else ""), servers)


# --- servers ---


def servers_for(action: Action, failing_port: int) -> tuple[Server, ...]:
    """Return the servers of an action, sorted. `failing_port` as in `target`."""
    if not isinstance(action, Forward):
        return ()
    used = [share for share in action.shares if share.weight > 0] or [Share("", (), failure=500)]
    if len(used) == 1 and (used[0].servers or used[0].failure == 503):
        return _merged(_scaled([used[0].servers]))
    return _merged(_scaled([_part(share, failing_port) for share in used], [share.weight for share in used]))


def _part(share: Share, failing_port: int) -> tuple[Server, ...]:
    """Return the servers of a share; without endpoints, the listener that replies with its status."""
    if share.servers or not failing_port:
        return share.servers
    return (Server(FAILING[share.failure], failing_port),)


def _scaled(parts: Sequence[Sequence[Server]], weights: Sequence[int] = (1,)) -> Iterator[Server]:
    """Yield servers whose weights divide requests as the weights of the parts say."""
    totals = [sum(each.weight for each in part if each.state is State.READY) for part in parts]
    exact = [
        (each, weight * each.weight / (total or 1))
        for part, weight, total in zip(parts, weights, totals, strict=True)
        for each in part
    ]
    if len(parts) == 1:
        exact = [(each, each.weight) for each, _ in exact]
    yield from (Server(e.address, e.port, w, e.state) for e, w in zip(*_integers(exact), strict=True))


def _integers(exact: Sequence[tuple[Server, float]]) -> tuple[list[Server], list[int]]:
    """Return the servers, and integers of at most `LARGEST_WEIGHT` in almost the same proportion."""
    servers, weights = [each for each, _ in exact], [weight for _, weight in exact]
    largest = max(weights, default=1) or 1
    if not all(float(weight).is_integer() for weight in weights) or largest > LARGEST_WEIGHT:
        weights = [max(1, round(weight * LARGEST_WEIGHT / largest)) if weight else 0 for weight in weights]
    whole = [int(weight) for weight in weights]
    divisor = gcd(*whole) or 1
    return servers, [weight // divisor for weight in whole]


def _merged(servers: Iterator[Server]) -> tuple[Server, ...]:
    """Return the servers sorted, each address and port once. Weights add up."""
    found: dict[tuple[str, int], Server] = {}
    for each in servers:
        before = found.get((each.address, each.port))
        weight = min(LARGEST_WEIGHT, each.weight + (before.weight if before else 0))
        ready = State.READY in (each.state, before.state if before else each.state)
        state = State.READY if ready else State.DRAIN
        found[each.address, each.port] = Server(each.address, each.port, weight, state)
    return tuple(sorted(found.values()))


# --- directives ---


def _directives(route: Route, users: str) -> Iterator[str]:
    policy, action = route.policy, route.action
    yield from _timeouts(policy)
    yield from _source_ranges(policy)
    yield from _limits(policy.limits)
    for each in route.filters:
        if isinstance(each, CorsFilter):
            yield from _cors(each)
    if policy.auth:
        yield f"http-request auth realm {quoted(policy.auth.realm)} unless {{ http_auth({users}) }}"
    if policy.body_size:
        yield f"http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt {policy.body_size} }}"
    for each in route.filters:
        yield from filter_directives(each, route.match.path)
    if policy.host_header:
        yield f"http-request set-header Host {quoted_format(policy.host_header)}"
    yield from action_directives(action, route.match.path)
    if policy.affinity:
        yield from _affinity(policy.affinity)
    yield from map(_replaced_error, policy.replaced_errors)


def _timeouts(policy: Policy) -> Iterator[str]:
    if policy.connect_timeout:
        yield f"timeout connect {min(policy.connect_timeout, LARGEST_TIME)}ms"
    server = min(filter(None, (policy.server_timeout, policy.request_timeout)), default=0)
    if server:
        yield f"timeout server {min(server, LARGEST_TIME)}ms"


def _source_ranges(policy: Policy) -> Iterator[str]:
    yield from _networks("allowed", policy.allowed)
    yield from _networks("denied", policy.denied)
    if policy.allowed:
        yield "http-request deny deny_status 403 unless allowed"
    if policy.denied:
        yield "http-request deny deny_status 403 if denied"


def _networks(name: str, networks: Sequence[Network]) -> Iterator[str]:
    texts = sorted(map(str, networks))
    for start in range(0, len(texts), PER_LINE):
        yield f"acl {name} src {' '.join(texts[start : start + PER_LINE])}"


def _limits(limits: Limits) -> Iterator[str]:
    """Yield a table of clients. A rate is counted over so many periods that a client may send a burst."""
    rate, seconds = (limits.per_second, 1) if limits.per_second else (limits.per_minute, 60)
    window, burst = seconds * limits.burst, rate * limits.burst
    if not rate and not limits.connections:
        return
    yield from _networks("exempt", limits.exempt)
    unless = " !exempt" if limits.exempt else ""
    yield f"stick-table type ipv6 size 100k expire {max(60, window)}s store http_req_rate({window}s),conn_cur"
    yield "http-request track-sc0 src"
    if rate:
        yield f"http-request deny deny_status 429 if {{ sc0_http_req_rate gt {burst} }}{unless}"
    if limits.connections:
        yield f"http-request deny deny_status 429 if {{ sc0_conn_cur gt {limits.connections} }}{unless}"


def _cors(cors: CorsFilter) -> Iterator[str]:
    """Yield what replies to preflight requests, and what adds headers to responses."""
    every = "*" in cors.origins
    allowed = "*" if every else "%[var(txn.origin)]"
    for origin in () if every else cors.origins:
        yield f"acl cors-origin {_origin(origin)}"
    condition = "{ req.hdr(origin) -m found }" if every else "cors-origin"
    yield f"http-request set-var(txn.origin) req.hdr(origin) if {condition}"
    asked = "METH_OPTIONS { var(txn.origin) -m found } { req.hdr(access-control-request-method) -m found }"
    headers = [("Access-Control-Allow-Origin", allowed), *_cors_headers(cors)]
    preflight = [*headers, *_preflight_headers(cors), ("Vary", "Origin")]
    lines = " ".join(f"hdr {name} {_format_argument(value)}" for name, value in preflight)
    yield f"http-request return status 204 {lines} if {asked}"
    for name, value in headers:
        line = f"http-response set-header {name} {_format_argument(value)}"
        yield f"{line} if {{ var(txn.origin) -m found }}"
    yield "http-response add-header Vary Origin"


def _format_argument(value: str) -> str:
    return value if value.startswith("%[") else quoted_format(value)


def _origin(origin: str) -> str:
    """Return a condition on the header Origin. Its `*.` stands for one label or more."""
    scheme, _, host = origin.partition("://")
    if not host.startswith("*."):
        return pattern_of("req.hdr(origin)", origin)
    scheme, host = (re.sub("[.+]", r"[\g<0>]", text) for text in (scheme, host[2:]))
    return f"req.hdr(origin) -m reg -i -- {quoted(f'^{scheme}://[a-z0-9.-]+[.]{host}$')}"


def pattern_of(fetch: str, text: str) -> str:
    """Return an acl's condition that a value equals a text."""
    return f"{fetch} -i {pattern(text).removesuffix(' }')}"


def _cors_headers(cors: CorsFilter) -> Iterator[tuple[str, str]]:
    if cors.credentials:
        yield "Access-Control-Allow-Credentials", "true"
    if cors.exposed:
        yield "Access-Control-Expose-Headers", ", ".join(cors.exposed)


def _preflight_headers(cors: CorsFilter) -> Iterator[tuple[str, str]]:
    if cors.methods:
        yield "Access-Control-Allow-Methods", ", ".join(cors.methods)
    if cors.headers:
        yield "Access-Control-Allow-Headers", ", ".join(cors.headers)
    yield "Access-Control-Max-Age", str(cors.max_age)


@singledispatch
def filter_directives(each: Filter, path: PathMatch) -> Iterator[str]:
    """Yield the directives of a filter of a route with this path."""
    return iter(())  # CORS: replied to before authentication


@filter_directives.register
def _(each: HeaderFilter, path: PathMatch) -> Iterator[str]:
    kind = "http-request" if each.where is Modified.REQUEST else "http-response"
    for name, value in each.set:
        yield f"{kind} set-header {changed_header(name)} {_header(value)}"
    for name, value in each.add:
        yield f"{kind} add-header {changed_header(name)} {_header(value)}"
    for name in each.remove:
        yield f"{kind} del-header {changed_header(name)}"


def _header(value: str) -> str:
    return quoted_format(value) if value else "%[str()]"


@filter_directives.register
def _(each: RewriteFilter, path: PathMatch) -> Iterator[str]:
    if each.path:
        yield from path_directives(each.path, path)
    if each.host:
        yield f"http-request set-header Host {quoted_format(each.host)}"


@singledispatch
def action_directives(action: Action, path: PathMatch) -> Iterator[str]:
    """Yield the directives of what becomes of a request."""
    return iter(())  # Forward: the servers


@action_directives.register
def _(action: Redirect, path: PathMatch) -> Iterator[str]:
    if not action.host:  # HTTP/1.0 has requests without a host
        yield "http-request deny deny_status 400 unless { var(txn.host) -m found }"
    if action.path:
        yield from path_directives(action.path, path)
    scheme = action.scheme or "%[var(txn.scheme)]"
    host = format_text(action.host) or "%[var(txn.host)]"
    port = f":{action.port}" if action.port else ""
    yield f"http-request redirect code {action.status} location {quoted(f'{scheme}://{host}{port}%[pathq]')}"


@action_directives.register
def _(action: Respond, path: PathMatch) -> Iterator[str]:
    yield f"http-request return status {action.status} default-errorfiles"


def path_directives(change: PathChange, path: PathMatch) -> Iterator[str]:
    """Yield what changes the path. Escapes in the request that hide the matched part are resolved before."""
    if path.kind is PathKind.REGEX:
        yield "http-request set-path %[var(txn.path)] unless { path,strcmp(txn.path) eq 0 }"
        case = "(?i)" if path.any_case else ""
        regex = f"{case}^(?:{canonical_regex(path.text)}).*$"
        replacement = _with_groups(change.text, path.text)
        rooted = replacement if replacement.startswith("/") else f"/{replacement}"
        yield f"http-request replace-path {quoted(regex)} {quoted(rooted)}"
        if rooted != replacement:  # the first group may begin with a slash, or not, or be empty
            yield f"http-request replace-path {quoted('^//+(.*)$')} {quoted('/' + chr(92) + '1')}"
    elif not change.prefix:
        yield f"http-request set-path {quoted_format(encoded(change.text) or '/')}"
    else:
        yield from _prefix_directives(canonical(path.text).rstrip("/"), change.text.rstrip("/"))


def _prefix_directives(old: str, new: str) -> Iterator[str]:
    if old:
        yield f"http-request set-path %[var(txn.path)] unless {{ path -m beg -- {old} }}"
    literal = old.replace(".", "[.]")
    if new:
        replacement = f"{format_text(encoded(new))}\\1"
        yield f"http-request replace-path {quoted(f'^{literal}((?:/.*)?)$')} {quoted(replacement)}"
    else:
        yield f"http-request replace-path {quoted(f'^{literal}/?(.*)$')} {quoted('/' + chr(92) + '1')}"


def _with_groups(text: str, regex: str) -> str:
    """Return a format in which `$1` of a text is the first group of a regular expression, "" without one."""
    groups, parts = re.compile(regex).groups, _GROUP.split(text)
    texts = [format_text(encoded(part)) for part in parts[::2]]
    after = [f"\\{number}" if int(number) <= groups else "" for number in parts[1::2]]
    return "".join(text + group for text, group in zip_longest(texts, after, fillvalue=""))


def _affinity(affinity: Affinity) -> Iterator[str]:
    """Yield the directives of a cookie that is made from the address of the server, wherever its slot is."""
    attributes = {
        "Max-Age": str(affinity.max_age or ""),
        "Path": affinity.path,
        "SameSite": affinity.same_site,
    }
    words = [f"attr {quoted(f'{name}={value}')}" for name, value in attributes.items() if value]
    secure = ["secure"] if affinity.secure else []
    rest = " ".join(("insert indirect nocache httponly dynamic", *secure, *words))
    yield f"cookie {word(affinity.cookie)} {rest}"
    yield f"dynamic-cookie-key {word(affinity.cookie)}"


def _replaced_error(status: int) -> str:
    shown = 502 if status == 500 else status
    return f"http-response return status {shown} default-errorfiles if {{ status {status} }}"

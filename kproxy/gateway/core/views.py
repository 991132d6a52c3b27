"""Routes and configurations as text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kproxy.gateway.core.configuration import Configuration, Server, State, with_servers
from kproxy.gateway.core.routes import (
    Action,
    Forward,
    Match,
    PathKind,
    Redirect,
    Route,
    Routing,
    Share,
    ValueMatch,
    precedence,
)
from kproxy.gateway.core.tables import host_key

HEADINGS = ("LISTENER", "HOST", "PATH", "CONDITIONS", "TO", "ENDPOINTS", "FROM")
NONE = "<none>"
SHOWN = 3
"""Endpoints in a cell."""
_MARKS = {PathKind.EXACT: "", PathKind.PREFIX: "*", PathKind.REGEX: "~"}


def route_rows(routing: Routing) -> list[tuple[str, ...]]:
    """Return a row for each route, by listener and host, in the order in which they are tried."""

    def order(route: Route) -> tuple[object, ...]:
        return route.listener, host_key(route.host), precedence(route)

    return [_row(route) for route in sorted(routing.routes, key=order)]


def _row(route: Route) -> tuple[str, ...]:
    shares = route.action.shares if isinstance(route.action, Forward) else ()
    return (
        route.listener,
        host_key(route.host),
        _path(route.match, route.fallback),
        ", ".join(_conditions(route.match)) or NONE,
        _action(route.action),
        _endpoints(shares) if shares else NONE,
        str(route.owner),
    )


def _path(match: Match, fallback: bool) -> str:
    """Return `/a` for an exact path, `/a*` for a prefix, `~/a.*` for a regular expression."""
    if fallback:
        return "<default>"
    mark, text = _MARKS[match.path.kind], match.path.text
    return mark + text if match.path.kind is PathKind.REGEX else text + mark


def _conditions(match: Match) -> Iterator[str]:
    if match.method:
        yield match.method
    yield from (_value(each, ": ") for each in match.headers)
    yield from (_value(each, "=") for each in match.queries)


def _value(match: ValueMatch, between: str) -> str:
    return f"{match.name}{between}{'~' if match.regex else ''}{match.value}"


def _action(action: Action) -> str:
    match action:
        case Forward(shares=(share,)):
            return share.name
        case Forward(shares=shares):
            return ", ".join(f"{share.name} ({share.weight})" for share in shares) or NONE
        case Redirect():
            path = action.path.text if action.path else ""
            host = f"://{action.host}" if action.host else ""
            return f"redirect {action.status} {action.scheme}{host}{path}".rstrip()
        case _:
            return str(action.status)


def _endpoints(shares: tuple[Share, ...]) -> str:
    servers = [_server(server) for share in shares for server in share.servers]
    more = f" + {len(servers) - SHOWN} more..." if len(servers) > SHOWN else ""
    return ",".join(servers[:SHOWN]) + more or NONE


def _server(server: Server) -> str:
    return server.socket + (" (drain)" if server.state is State.DRAIN else "")


def listing(found: Configuration) -> str:
    """Return all files, each after a line with its name. Certificates are named only."""
    return "".join(f"### {name}\n{text}\n" for name, text in _texts(found).items())


def _texts(found: Configuration) -> Mapping[str, str]:
    texts = {"haproxy.cfg": with_servers(found.text, found.backends)}
    for name, entries in found.maps.items():
        texts[name] = "".join(f"{key} {value}\n" for key, value in entries)
    for name, certificates in found.certificate_lists.items():
        texts[name] = "".join(f"{file} {' '.join(hosts)}\n" for file, hosts in certificates)
    return texts | dict.fromkeys(found.certificates, "# a certificate and its key, which are not shown\n")

"""Routes -> the maps in which HAProxy looks up a request.

First `hosts.map` tells the group of a request: its listener, and the most specific host that has routes
there. Then the canonical path is looked up in `exact.map`, and its longest prefix in `prefix.map`. The key is
the group followed by the path; a prefix ends with a slash, and so does the path that is looked up, so that
elements are compared.

The value is a backend, if the first route for such requests has no other condition. Otherwise it is the name
of a list (`?1`), whose conditions are in the configuration file: only these routes are tried one after the
other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from kproxy.gateway.core.paths import canonical, canonical_regex
from kproxy.gateway.core.routes import Host, PathKind, PathMatch, Route, literal_prefix, precedence

ANY = "*"
"""In keys of `hosts.map`: the hosts that no other key of the listener matches."""
HOSTS, EXACT, PREFIX = "hosts.map", "exact.map", "prefix.map"

Group: TypeAlias = str
"""LISTENER/HOST."""
Tried: TypeAlias = tuple[Route, ...]
"""Routes in the order in which they are tried. Only the last one may have no condition besides the path."""
_Keyed: TypeAlias = dict[str, list[Route]]
"""The routes of a group by what their paths begin with."""


class Tables(NamedTuple):
    """The maps, with routes for values."""

    groups: tuple[Group, ...]
    exact: dict[str, Tried]
    prefix: dict[str, Tried]


def host_key(host: Host) -> str:
    """Return the host in a key of `hosts.map`: `*.a.b` for one more label, `**.a.b` for any number of
    them."""
    if not host.name:
        return ANY
    return f"*{host.name}" if host.deep and host.name.startswith("*.") else host.name


def is_conditional(route: Route) -> bool:
    """Whether a request may not match a route although its path has the key of the route."""
    match = route.match
    return bool(match.path.kind is PathKind.REGEX or match.method or match.headers or match.queries)


def path_key(path: PathMatch) -> str:
    """Return what the looked-up path begins with, in every request that matches. Raises ValueError."""
    if path.kind is PathKind.EXACT:
        return canonical(path.text)
    if path.kind is PathKind.PREFIX:
        return canonical(path.text).rstrip("/") + "/"
    literal = literal_prefix(path._replace(text=canonical_regex(path.text)))
    if path.any_case:
        literal = literal[: next((at for at, each in enumerate(literal) if each.isalpha()), None)]
    return literal if literal.startswith("/") else "/"


def tables(routes: Sequence[Route]) -> Tables:
    """Return the maps. Raises ValueError for a path that `canonical` refuses."""
    groups: dict[Group, list[Route]] = defaultdict(list)
    for route in sorted(routes, key=precedence):
        groups[f"{route.listener}/{host_key(route.host)}"].append(route)
    exact: dict[str, Tried] = {}
    prefix: dict[str, Tried] = {}
    for group, own in sorted(groups.items()):
        _add_group(group, own + _last_resort(groups, group), exact, prefix)
    return Tables(tuple(sorted(groups)), exact, prefix)


def _last_resort(groups: Mapping[Group, list[Route]], group: Group) -> list[Route]:
    """Return the fallbacks for all hosts, which a group of one host has, too."""
    every = f"{group.partition('/')[0]}/{ANY}"
    return [] if group == every else [route for route in groups.get(every, ()) if route.fallback]


def _add_group(group: Group, routes: list[Route], exact: dict[str, Tried], prefix: dict[str, Tried]) -> None:
    whole: _Keyed = defaultdict(list)
    begun: _Keyed = defaultdict(list)
    for route in routes:
        kind = whole if route.match.path.kind is PathKind.EXACT else begun
        kind[path_key(route.match.path)].append(route)
    order = {id(route): place for place, route in enumerate(routes)}
    lengths = sorted({len(key) for key in begun})
    for key, found in whole.items():
        exact[group + key] = _tried(order, found, *_beginning(begun, f"{key}/", lengths))
    for key in begun:
        prefix[group + key] = _tried(order, *_beginning(begun, key, lengths))


def _beginning(begun: _Keyed, key: str, lengths: Sequence[int]) -> Iterator[list[Route]]:
    """Yield the routes of each key with which `key` begins."""
    return (begun[key[:length]] for length in lengths if length <= len(key) and key[:length] in begun)


def _tried(order: Mapping[int, int], *found: list[Route]) -> Tried:
    every = sorted((route for routes in found for route in routes), key=lambda route: order[id(route)])
    end = next((at for at, route in enumerate(every) if not is_conditional(route)), len(every))
    return tuple(every[: end + 1])

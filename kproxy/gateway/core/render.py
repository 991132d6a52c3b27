"""Routing -> Configuration. Equal routing gives equal bytes.

Each route is checked alone first: one whose text cannot be in HAProxy's configuration is named, and left out
or answered with status 500. The others are rendered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from kproxy.gateway.core.configuration import (
    CertificateEntries,
    Configuration,
    Entries,
    Section,
    Server,
    slots_for,
)
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.frontend import LIST, NOT_FOUND, certificate_file, certificate_list, conditions, head
from kproxy.gateway.core.pages import pages
from kproxy.gateway.core.passwords import seconds
from kproxy.gateway.core.routes import (
    BasicAuth,
    Certificate,
    Forward,
    Listener,
    Match,
    Policy,
    Respond,
    Route,
    Routing,
    Share,
)
from kproxy.gateway.core.sections import Target, servers_for, target
from kproxy.gateway.core.tables import EXACT, HOSTS, PREFIX, Tried, is_conditional, path_key, tables
from kproxy.limits import GATEWAY_PASSWORDS_SECONDS
from kproxy.model import NamespacedName
from kproxy.problems import Problem

HOSTS_OF_LINE = 30
"""The hosts of a certificate in one line of a list. A line over the socket has at most 16 KiB."""
TOO_LONG = "HAProxy needs too long to check the passwords of all users. Use fewer rounds or users"
SPARES = ((24, 16), (8, 64))
"""Spare backends: (number, slots of each)."""


class Rendered(NamedTuple):
    """The configuration, and what is not in it."""

    configuration: Configuration
    problems: list[Problem]
    routes: tuple[Route, ...]
    """The routes in it."""
    owners: dict[str, str]
    """The object of each backend in use, for messages: `Ingress default/web`."""
    forwards: dict[str, Forward]
    """What each backend that forwards requests is made from."""
    backends: dict[NamespacedName, list[str]]
    """The backends that forward to a Service."""
    failing_port: int


def render(routing: Routing, spares: Sequence[tuple[int, int]] = SPARES) -> Rendered:
    """Return the configuration of a gateway. Raises ValueError if a listener has an invalid name."""
    users, refused = _users(routing.routes)
    chosen = _Backends(routing.failing_port, users)
    problems: dict[Problem, None] = {}
    usable: list[Route] = []
    for route in routing.routes:
        served, error = _add(route, chosen, refused)
        if error is not None:
            problems[_problem(route, error)] = None  # a rule has a route for each listener and host
        if served is not None:
            usable.append(served)
    found, lists = tables(usable), _Lists(chosen)
    maps: dict[str, Entries] = {
        EXACT: lists.entries(found.exact),
        HOSTS: tuple((group, group) for group in found.groups),
        PREFIX: lists.entries(found.prefix),
    }
    deep = any(route.host.deep and route.host.name for route in usable)
    text = head(routing.listeners, users, lists.named, routing.failing_port, deep)
    configuration = Configuration(
        text,
        chosen.sections() | _spare_sections(spares),
        chosen.servers(),
        maps,
        _files(routing.listeners),
        {certificate_list(each): _entries(each.certificates) for each in routing.listeners if each.tls},
        pages(),
    )
    forwards = chosen.forwards
    return Rendered(
        configuration,
        list(problems),
        tuple(usable),
        chosen.owners,
        forwards,
        _by_service(forwards),
        routing.failing_port,
    )


def _by_service(forwards: Mapping[str, Forward]) -> dict[NamespacedName, list[str]]:
    found: dict[NamespacedName, list[str]] = defaultdict(list)
    for name, forward in forwards.items():
        for share in forward.shares:
            found[share.port[0]].append(name)
    return dict(found)


def with_endpoints(rendered: Rendered, services: Services, changed: Iterable[NamespacedName]) -> Rendered:
    """Return what `render` would return after endpoints of Services changed, and nothing else.

    The cost depends on the backends of these Services. A Service must not be new or gone.
    """
    before = rendered.configuration
    forwards, backends, sections = dict(rendered.forwards), dict(before.backends), dict(before.sections)
    for name in {name for each in changed for name in rendered.backends.get(each, ())}:
        shares = (_with_servers(share, services) for share in forwards[name].shares)
        forwards[name] = Forward(tuple(shares))
        backends[name] = servers_for(forwards[name], rendered.failing_port)
        sections[name] = replace(sections[name], slots=slots_for(len(backends[name])))
    configuration = replace(before, backends=backends, sections=sections)
    return rendered._replace(configuration=configuration, forwards=forwards)


def _with_servers(share: Share, services: Services) -> Share:
    return replace(share, servers=services.share(*share.port)[0].servers)


def _add(
    route: Route, chosen: _Backends, refused: Container[BasicAuth]
) -> tuple[Route | None, ValueError | None]:
    """Choose the backend of a route. Returns the route as it is served, and what is wrong with it.

    If its conditions cannot be rendered, it is left out. If the rest cannot, the status of its requests is
    500: other routes, which they would take without it, may be for other clients.
    """
    try:
        _check_conditions(route.match)
    except ValueError as error:
        return None, error
    try:
        if route.policy.auth in refused:
            raise ValueError(TOO_LONG)
        chosen.add(route)
    except ValueError as error:
        failing = replace(route, action=Respond(500), filters=(), policy=Policy())
        chosen.add(failing)
        return failing, error
    return route, None


def _check_conditions(match: Match) -> None:
    """Raise ValueError if a condition cannot be rendered."""
    path_key(match.path)
    for _ in conditions(match):
        pass


def _problem(route: Route, error: ValueError) -> Problem:
    return Problem(route.owner.origin.source, str(route.owner), route.field, str(error))


def _users(routes: Iterable[Route]) -> tuple[dict[str, BasicAuth], set[BasicAuth]]:
    """Return the lists of users by name, and those for whose passwords HAProxy has no time."""
    found = dict.fromkeys(route.policy.auth for route in routes if route.policy.auth)
    used, left = [], GATEWAY_PASSWORDS_SECONDS
    for auth in found:
        duration = sum(seconds(user.hash) or 0.0 for user in auth.users)
        if duration <= left:
            left -= duration
            used.append(auth)
    ordered = sorted(used, key=lambda auth: (auth.realm, auth.users))
    return {f"users-{number}": auth for number, auth in enumerate(ordered, 1)}, {*found} - {*used}


class _Backends:
    """The backends of routes. Routes whose backends would be equal share one."""

    def __init__(self, failing_port: int, users: dict[str, BasicAuth]) -> None:
        self._failing_port = failing_port
        self._users = {auth: name for name, auth in users.items()}
        self._targets: dict[str, Target] = {NOT_FOUND: Target(_not_found(), ())}
        self._names: dict[int, str] = {}
        self.owners: dict[str, str] = {}
        self.forwards: dict[str, Forward] = {}

    def add(self, route: Route) -> None:
        """Choose the backend of a route. Raises ValueError if it cannot be rendered."""
        auth = route.policy.auth
        wanted = target(route, self._failing_port, self._users[auth] if auth else "")
        name = base = _base_name(route, wanted.section.plain)
        number = 1
        while self._targets.setdefault(name, wanted) != wanted:
            number += 1
            name = f"{base}.{number}"
        self._names[id(route)] = name
        self.owners.setdefault(name, str(route.owner))
        if isinstance(route.action, Forward):
            self.forwards.setdefault(name, route.action)

    def name(self, route: Route) -> str:
        """Return the backend of a route."""
        return self._names[id(route)]

    def sections(self) -> dict[str, Section]:
        """Return the sections by name."""
        return {name: self._targets[name].section for name in sorted(self._targets)}

    def servers(self) -> dict[str, tuple[Server, ...]]:
        """Return the servers by name."""
        return {name: self._targets[name].servers for name in sorted(self._targets)}


def _not_found() -> Section:
    return Section(0, ("http-request return status 404 default-errorfiles",))


def _base_name(route: Route, plain: bool) -> str:
    """Return the name of a backend: NAMESPACE.SERVICE.PORT, or NAMESPACE.OWNER.SERVICE.PORT with
    directives."""
    action, owner = route.action, route.owner.name
    if isinstance(action, Respond):
        return f"gateway.{action.status}"
    shares = action.shares if isinstance(action, Forward) else ()
    service = shares[0].name.replace("/", ".").replace(":", ".") if len(shares) == 1 else ""
    if plain and service:
        return service
    return f"{owner.namespace}.{owner.name}.{service.partition('.')[2] or 'rule'}"


class _Lists:
    """The values of maps: backends, or lists of routes that are tried."""

    def __init__(self, chosen: _Backends) -> None:
        self._chosen = chosen
        self._numbers: dict[tuple[int, ...], str] = {}
        self.named: dict[str, list[tuple[Route, str]]] = {}

    def entries(self, found: dict[str, Tried]) -> Entries:
        """Return the entries of a map, sorted."""
        return tuple((key, self._value(found[key])) for key in sorted(found))

    def _value(self, tried: Tried) -> str:
        if len(tried) == 1 and not is_conditional(tried[0]):
            return self._chosen.name(tried[0])
        same = tuple(map(id, tried))
        name = self._numbers.setdefault(same, f"{LIST}{len(self._numbers) + 1}")
        if name not in self.named:
            self.named[name] = [(route, self._chosen.name(route)) for route in tried]
        return name


def _spare_sections(spares: Sequence[tuple[int, int]]) -> dict[str, Section]:
    sizes = [slots for count, slots in spares for _ in range(count)]
    return {f"spare-{number}": Section(slots) for number, slots in enumerate(sizes, 1)}


def _files(listeners: Iterable[Listener]) -> dict[str, bytes]:
    every = {certificate_file(each): each.pem for listener in listeners for each in listener.certificates}
    return dict(sorted(every.items()))


def _entries(certificates: Iterable[Certificate]) -> CertificateEntries:
    """Return the lines of a list. A certificate of many hosts has several, since their length is limited."""
    return tuple(
        sorted((certificate_file(each), hosts) for each in certificates for hosts in _lines(each.hosts))
    )


def _lines(hosts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    every = sorted(hosts)
    for start in range(0, len(every) or 1, HOSTS_OF_LINE):
        yield tuple(every[start : start + HOSTS_OF_LINE])

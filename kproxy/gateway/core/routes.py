"""The routes that Ingress and HTTPRoute share, and which of them a request takes.

A listener has routes for hosts. The host of a request selects the routes of the most specific host that has
any; routes of other hosts are not tried then. Among these, the first one in the order of `precedence` whose
match holds is taken. Without one, the reply is 404.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from kproxy.gateway.core.configuration import Server
from kproxy.model import NamespacedName, Network, Origin


class Owner(NamedTuple):
    """The object that a route comes from, for messages and for the order of routes."""

    kind: str
    """Ingress or HTTPRoute."""
    name: NamespacedName
    origin: Origin

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class PathKind(StrEnum):
    """How a path is compared."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    """By element: /a matches /a, /a/ and /a/b, and not /ab."""
    REGEX = "RegularExpression"
    """From the start of the path; without an anchor at its end, a prefix."""


class PathMatch(NamedTuple):
    """A path to match."""

    kind: PathKind = PathKind.PREFIX
    text: str = "/"
    """As in the object."""
    any_case: bool = False
    """Whether a regular expression ignores the case of letters."""


class ValueMatch(NamedTuple):
    """A header or a query parameter to match."""

    name: str
    value: str
    regex: bool = False


class Match(Struct, frozen=True):
    """The conditions of a route. All must hold."""

    path: PathMatch = PathMatch()
    method: str = ""
    """For example GET; "" for all."""
    headers: tuple[ValueMatch, ...] = ()
    queries: tuple[ValueMatch, ...] = ()


class Host(NamedTuple):
    """The hosts of a route."""

    name: str = ""
    """A DNS name in lower case, whose first label may be `*`; "" for all hosts."""
    deep: bool = False
    """Whether `*` stands for one label or more, as in the Gateway API. In an Ingress it stands for one."""


class Share(Struct, frozen=True):
    """A Service port that gets a part of the requests."""

    name: str
    """NAMESPACE/SERVICE:PORT, with the name of the port if it has one."""
    servers: tuple[Server, ...]
    """Its endpoints; their weights are relative to each other."""
    weight: int = 1
    """Its part, relative to other shares. 0 for none."""
    failure: int = 503
    """The status of requests of this part while it has no endpoints: 500 if there is no such Service."""

    @property
    def port(self) -> tuple[NamespacedName, int | str]:
        """The Service, and the number or name of its port."""
        service, _, port = self.name.rpartition(":")
        namespace, _, name = service.partition("/")
        return NamespacedName(namespace, name), int(port) if port.isdigit() else port


class Modified(StrEnum):
    """Which headers a filter changes."""

    REQUEST = "request"
    RESPONSE = "response"


class HeaderFilter(Struct, frozen=True):
    """Changes headers."""

    where: Modified
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class PathChange(NamedTuple):
    """What becomes of the path."""

    text: str
    prefix: bool = False
    """Whether it replaces the matched prefix, or the whole path. With a regular expression that the route
    matched, `$1` in it stands for the first group.
    """


class RewriteFilter(Struct, frozen=True):
    """Changes the host or the path of a request before the Service gets it."""

    host: str = ""
    path: PathChange | None = None


class CorsFilter(Struct, frozen=True):
    """Answers preflight requests, and adds the headers of CORS to responses."""

    origins: tuple[str, ...] = ("*",)
    """`*`, or SCHEME://HOST[:PORT], whose host may begin with `*.`."""
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 5
    """Seconds for which a client may remember the answer to a preflight request."""


Filter: TypeAlias = HeaderFilter | RewriteFilter | CorsFilter


class Forward(Struct, frozen=True):
    """Sends requests to Services. Without a share that has a weight, the reply is 500."""

    shares: tuple[Share, ...]


class Redirect(Struct, frozen=True):
    """Replies with a redirect. Absent parts ("", 0, None) are those of the request."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    """0: the one of the listener, without a port if it is the usual one of the scheme."""
    path: PathChange | None = None
    status: int = 302


class Respond(Struct, frozen=True):
    """Replies with a page of the gateway."""

    status: int
    """One of `frontend.PAGES`."""


Action: TypeAlias = Forward | Redirect | Respond


class Affinity(Struct, frozen=True):
    """A cookie that binds a client to an endpoint."""

    cookie: str
    max_age: int = 0
    """Seconds; 0 for as long as the browser runs."""
    path: str = ""
    same_site: str = ""
    """Strict, Lax, None, "" if absent."""
    secure: bool = False


class User(NamedTuple):
    """A user of basic authentication."""

    name: str
    hash: str
    """The password as crypt(3) stores it."""


class BasicAuth(Struct, frozen=True):
    """The users that may send requests."""

    realm: str
    users: tuple[User, ...]


class Limits(Struct, frozen=True):
    """Limits for each client address; 0 for none."""

    per_second: int = 0
    per_minute: int = 0
    connections: int = 0
    burst: int = 5
    """A client may send this many times its rate before a request is refused."""
    exempt: tuple[Network, ...] = ()


class Policy(Struct, frozen=True):
    """How requests and responses of a route are treated. The default has no directives of its own."""

    protocol: str = "http"
    """The protocol of the endpoints: http, https, h2c, h2 (with TLS)."""
    connect_timeout: int = 0
    """Milliseconds, as the others; 0 for the default of the gateway."""
    server_timeout: int = 0
    """The longest silence of an endpoint."""
    request_timeout: int = 0
    """The longest time from a request to the end of its response."""
    body_size: int = 0
    """The largest body of a request in bytes; 0 for no limit."""
    allowed: tuple[Network, ...] = ()
    """The addresses of clients; () for all."""
    denied: tuple[Network, ...] = ()
    limits: Limits = Limits()
    auth: BasicAuth | None = None
    affinity: Affinity | None = None
    host_header: str = ""
    """The Host header for endpoints; "" for the one of the request."""
    replaced_errors: tuple[int, ...] = ()
    """Statuses of a Service whose responses are replaced by a page of the gateway. 500 becomes 502."""


class Route(Struct, frozen=True):
    """One rule: which requests, and what becomes of them."""

    listener: str
    """The name of a `Listener`."""
    owner: Owner
    host: Host
    match: Match
    action: Action
    filters: tuple[Filter, ...] = ()
    policy: Policy = Policy()
    index: tuple[int, int] = (0, 0)
    """The places of its rule and match in the object."""
    field: str = ""
    """The same for messages: `spec.rules[0].http.paths[1]`."""
    fallback: bool = False
    """It comes after all routes of its host that are none: the default backend of an Ingress. Routes for all
    hosts that are fallbacks also get the requests for which the routes of a host have no match.
    """


class Certificate(Struct, frozen=True):
    """A certificate that was checked."""

    name: str
    """The Secret: NAMESPACE/NAME."""
    pem: bytes
    """The chain and the private key."""
    hosts: tuple[str, ...]
    """The server names for which a listener uses it; `*.` as in a certificate. () for all others."""


class Listener(Struct, frozen=True):
    """A socket on which HAProxy takes connections."""

    name: str
    port: int
    address: str = ""
    """ "" for all addresses, of both families."""
    tls: bool = False
    certificates: tuple[Certificate, ...] = ()
    """With TLS, a client that asks for another name gets one without hosts, else no connection."""
    foreign: bool = False
    """Whether the address need not be one of this host: addresses of the pool move between nodes."""
    owner: Owner | None = None
    """Its Gateway. The listeners of Ingresses have none."""

    @property
    def label(self) -> str:
        """How the configuration names it."""
        return f"{self.owner}: {self.address} port {self.port}" if self.owner else "Ingresses"


class Routing(Struct, frozen=True):
    """Everything that is rendered."""

    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    failing_port: int = 0
    """The loopback port on which HAProxy replies for the shares without endpoints among others; 0 if they get
    no requests."""


def literal_prefix(path: PathMatch) -> str:
    """Return the text with which all paths that match begin."""
    if path.kind is not PathKind.REGEX:
        return path.text
    end = next((at for at, each in enumerate(path.text) if each in "\\.[](){}*+?^$|"), len(path.text))
    if path.text[end : end + 1] in ("*", "?", "{"):
        end -= 1  # the last character may be absent
    return "" if "|" in path.text and _top_level_choice(path.text) else path.text[: max(end, 0)]


def _top_level_choice(text: str) -> bool:
    """Whether a | is outside of all groups, so that paths can begin differently."""
    depth = 0
    for each in text:
        depth += (each == "(") - (each == ")")
        if each == "|" and depth == 0:
            return True
    return False


def precedence(route: Route) -> tuple[object, ...]:
    """Return a key that sorts the routes of one host: the first one that matches is taken.

    As in the Gateway API: an exact path, the longest path, a method, the most headers, the most queries, the
    oldest object, its name, the place in it. A regular expression counts with the part before its first
    special character.
    """
    match, owner = route.match, route.owner
    return (
        route.fallback,
        match.path.kind is not PathKind.EXACT,
        -len(literal_prefix(match.path).rstrip("/")),
        match.path.kind is not PathKind.REGEX,
        -len(match.path.text),
        not match.method,
        -len(match.headers),
        -len(match.queries),
        not owner.origin.created,
        owner.origin.created,
        owner.name,
        owner.kind,
        route.index,
    )

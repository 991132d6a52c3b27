"""The objects of the Gateway API that kproxy uses: classes, Gateways, routes and grants.

An object keeps its spec as text, too, so that a view can show all of it. The status is not part of an object:
gateway/core computes it from all objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from functools import cached_property
from typing import NamedTuple

from msgspec import Struct

from kproxy.model import Annotations, NamespacedName, Origin

GROUP = "gateway.networking.k8s.io"
CONTROLLER = "kproxy.io/gateway-controller"
"""The controllerName of classes whose Gateways kproxy serves."""
CLASS = "kproxy"
"""The name of a class that exists without an object, where kproxy reads manifests."""
ROUTE_KINDS = ("HTTPRoute", "TCPRoute", "UDPRoute")
METADATA_NAME = "kubernetes.io/metadata.name"
"""The label with its own name that every namespace has."""


class Object(Struct, frozen=True, kw_only=True):
    """What the objects have in common."""

    name: NamespacedName
    """The namespace of a GatewayClass is ""."""
    origin: Origin
    generation: int = 1
    """metadata.generation, 1 if absent: an API server begins with it."""
    spec: str = "{}"
    """The spec as a JSON object: the fields that kproxy knows."""
    labels: dict[str, str] = {}
    annotations: Annotations = ""


class GatewayClass(Object, frozen=True, kw_only=True):
    """A GatewayClass."""

    controller: str
    description: str = ""
    parameters: str = ""
    """spec.parametersRef as KIND/NAME, "" if absent. kproxy has no parameters."""


class SecretRef(Struct, frozen=True):
    """A reference to a certificate."""

    namespace: str
    name: str
    group: str = ""
    kind: str = "Secret"

    @property
    def target(self) -> NamespacedName:
        """The name of the object."""
        return NamespacedName(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class RouteKind(Struct, frozen=True):
    """A kind of route that a listener allows."""

    group: str
    kind: str


class Requirement(Struct, frozen=True):
    """A requirement of a label selector."""

    key: str
    operator: str
    """In, NotIn, Exists or DoesNotExist."""
    values: tuple[str, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet the requirement."""
        present = self.key in labels
        match self.operator:
            case "Exists":
                return present
            case "DoesNotExist":
                return not present
            case "In":
                return present and labels[self.key] in self.values
        return not present or labels[self.key] not in self.values


class Listener(Struct, frozen=True):
    """A listener of a Gateway."""

    name: str
    port: int
    protocol: str
    """HTTP, HTTPS, TLS, TCP, UDP, or one that kproxy does not know."""
    hostname: str = ""
    """May begin with `*.`; "" for all."""
    tls_mode: str = ""
    """Terminate or Passthrough, "" without tls."""
    certificates: tuple[SecretRef, ...] = ()
    kinds: tuple[RouteKind, ...] = ()
    """allowedRoutes.kinds; () for all that the protocol allows."""
    namespaces: str = "Same"
    """allowedRoutes.namespaces.from: All, Same, Selector or None."""
    selector: tuple[Requirement, ...] = ()
    """The namespaces that Selector allows."""


class Gateway(Object, frozen=True, kw_only=True):
    """A Gateway."""

    class_name: str
    listeners: tuple[Listener, ...]
    addresses: tuple[tuple[str, str], ...] = ()
    """spec.addresses: type and value. The value is "" if any address will do."""
    infrastructure: tuple[str, ...] = ()
    """The fields of spec.infrastructure."""


class ParentRef(Struct, frozen=True):
    """A reference of a route to what it attaches to."""

    name: NamespacedName
    group: str = GROUP
    kind: str = "Gateway"
    section: str = ""
    """The name of a listener, "" for all."""
    port: int = 0
    """The port of listeners, 0 for all."""
    explicit: bool = False
    """Whether the route names the namespace."""

    @property
    def is_gateway(self) -> bool:
        """Whether it refers to a Gateway."""
        return (self.group, self.kind) == (GROUP, "Gateway")


class BackendRef(Struct, frozen=True):
    """A reference of a route to what serves it."""

    name: NamespacedName
    port: int = 0
    """0 if absent, which is an error for a Service."""
    weight: int = 1
    group: str = ""
    kind: str = "Service"
    filters: tuple[str, ...] = ()
    """The types of filters of this backend alone. kproxy supports none."""

    @property
    def is_service(self) -> bool:
        """Whether it refers to a Service."""
        return (self.group, self.kind) == ("", "Service")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ValueMatch(NamedTuple):
    """A header or a query parameter that a request must have."""

    name: str
    value: str
    regex: bool = False


class HTTPMatch(Struct, frozen=True):
    """The conditions of a rule of an HTTPRoute. All must hold."""

    path_type: str = "PathPrefix"
    """Exact, PathPrefix or RegularExpression."""
    path: str = "/"
    method: str = ""
    """ "" for all."""
    headers: tuple[ValueMatch, ...] = ()
    queries: tuple[ValueMatch, ...] = ()


class PathModifier(Struct, frozen=True):
    """What becomes of the path."""

    text: str
    prefix: bool
    """Whether it replaces the matched prefix, or the whole path."""


class HeaderModifier(Struct, frozen=True):
    """A filter that changes headers."""

    of_response: bool
    """Whether it changes headers of the response, or of the request."""
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class RequestRedirect(Struct, frozen=True):
    """A filter that replies with a redirect. What is absent ("", 0, None) stays as in the request."""

    scheme: str = ""
    hostname: str = ""
    path: PathModifier | None = None
    port: int = 0
    status: int = 302


class URLRewrite(Struct, frozen=True):
    """A filter that changes the host or the path before the backend gets the request."""

    hostname: str = ""
    path: PathModifier | None = None


class HTTPFilters(Struct, frozen=True):
    """The filters of a rule of an HTTPRoute."""

    headers: tuple[HeaderModifier, ...] = ()
    redirect: RequestRedirect | None = None
    rewrite: URLRewrite | None = None
    unsupported: tuple[str, ...] = ()
    """The types of filters that kproxy does not support."""


class RouteRule(Struct, frozen=True):
    """A rule of a route."""

    backends: tuple[BackendRef, ...]
    name: str = ""
    matches: tuple[HTTPMatch, ...] = ()
    """Of an HTTPRoute at least one; () for other routes."""
    filters: HTTPFilters = HTTPFilters()
    request_timeout: int = 0
    """Milliseconds; 0 for none."""
    backend_timeout: int = 0


class Route(Object, frozen=True, kw_only=True):
    """An HTTPRoute, a TCPRoute or a UDPRoute."""

    kind: str
    parents: tuple[ParentRef, ...]
    rules: tuple[RouteRule, ...]
    hostnames: tuple[str, ...] = ()
    """Those that an HTTPRoute serves; () for all. Each may begin with `*.`."""


class GrantFrom(Struct, frozen=True):
    """The objects that may refer."""

    group: str
    kind: str
    namespace: str


class GrantTo(Struct, frozen=True):
    """The objects that may be referred to."""

    group: str
    kind: str
    name: str
    """ "" for all."""


class ReferenceGrant(Object, frozen=True, kw_only=True):
    """A ReferenceGrant: objects of other namespaces may refer to objects of its namespace."""

    sources: tuple[GrantFrom, ...]
    targets: tuple[GrantTo, ...]


class Namespace(Struct, frozen=True):
    """A Namespace. Only its labels matter, for the namespaces that a listener allows."""

    name: str
    labels: dict[str, str] = {}
    annotations: Annotations = ""


class GatewayObjects(Struct, frozen=True, dict=True):
    """The objects of the Gateway API that were read, by name."""

    classes: dict[NamespacedName, GatewayClass] = {}
    gateways: dict[NamespacedName, Gateway] = {}
    http_routes: dict[NamespacedName, Route] = {}
    tcp_routes: dict[NamespacedName, Route] = {}
    udp_routes: dict[NamespacedName, Route] = {}
    grants: dict[NamespacedName, ReferenceGrant] = {}
    namespaces: dict[str, Namespace] = {}
    certificates: dict[NamespacedName, str] = {}
    """Why the certificate of a Secret that a listener names cannot be used, "" if it can."""

    @property
    def routes(self) -> dict[str, dict[NamespacedName, Route]]:
        """The routes by kind."""
        every = (self.http_routes, self.tcp_routes, self.udp_routes)
        return dict(zip(ROUTE_KINDS, every, strict=True))

    @cached_property
    def granted(self) -> Mapping[tuple[str, GrantFrom], Set[GrantTo]]:
        """What the grants of a namespace permit, by this namespace. Computed once all grants are read."""
        found: dict[tuple[str, GrantFrom], set[GrantTo]] = defaultdict(set)
        for grant in self.grants.values():
            for source in grant.sources:
                found[grant.name.namespace, source].update(grant.targets)
        return dict(found)

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """Return the labels of a namespace, which may have no object."""
        known = self.namespaces.get(namespace)
        return {**(known.labels if known else {}), METADATA_NAME: namespace}


NO_OBJECTS = GatewayObjects()

"""Objects of the Gateway API as JSON has them. The versions v1, v1beta1 and v1alpha2 have the same fields.

Fields that are absent are not encoded again, so that the text of a spec contains what the manifest did.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field

from kproxy.decode.wire import Many, Map, Metadata

Generation: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Wire(Struct, rename="camel", omit_defaults=True):
    """A type with snake_case fields in Python and camelCase fields in JSON."""


class GatewayMetadata(Metadata):
    generation: Generation | None = None


class ParametersRef(Wire):
    group: str
    kind: str
    name: str
    namespace: str | None = None


class GatewayClassSpec(Wire):
    controller_name: str
    description: str | None = None
    parameters_ref: ParametersRef | None = None


class GatewayClass(Wire):
    metadata: GatewayMetadata
    spec: GatewayClassSpec


class LabelSelectorRequirement(Wire):
    key: str
    operator: str
    values: Many[str] | None = None


class LabelSelector(Wire):
    match_labels: Map[str] | None = None
    match_expressions: Many[LabelSelectorRequirement] | None = None


class RouteNamespaces(Wire):
    from_: str | None = None
    selector: LabelSelector | None = None


class RouteGroupKind(Wire):
    kind: str
    group: str | None = None


class AllowedRoutes(Wire):
    namespaces: RouteNamespaces | None = None
    kinds: Many[RouteGroupKind] | None = None


class SecretReference(Wire):
    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None


class ListenerTLS(Wire):
    mode: str | None = None
    certificate_refs: Many[SecretReference] | None = None
    options: Map[str] | None = None


class Listener(Wire):
    name: str
    port: int
    protocol: str
    hostname: str | None = None
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes | None = None


class GatewayAddress(Wire):
    type: str | None = None
    value: str | None = None


class GatewaySpec(Wire):
    gateway_class_name: str
    listeners: Many[Listener]
    addresses: Many[GatewayAddress] | None = None
    infrastructure: Map[Any] | None = None


class Gateway(Wire):
    metadata: GatewayMetadata
    spec: GatewaySpec


class ParentReference(Wire):
    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class BackendReference(Wire):
    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    port: int | None = None
    weight: int | None = None


class HTTPPathMatch(Wire):
    type: str | None = None
    value: str | None = None


class HTTPValueMatch(Wire):
    name: str
    value: str
    type: str | None = None


class HTTPRouteMatch(Wire):
    path: HTTPPathMatch | None = None
    headers: Many[HTTPValueMatch] | None = None
    query_params: Many[HTTPValueMatch] | None = None
    method: str | None = None


class HTTPHeader(Wire):
    name: str
    value: str


class HTTPHeaderFilter(Wire):
    set: Many[HTTPHeader] | None = None
    add: Many[HTTPHeader] | None = None
    remove: Many[str] | None = None


class HTTPPathModifier(Wire):
    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class HTTPRequestRedirect(Wire):
    scheme: str | None = None
    hostname: str | None = None
    path: HTTPPathModifier | None = None
    port: int | None = None
    status_code: int | None = None


class HTTPURLRewrite(Wire):
    hostname: str | None = None
    path: HTTPPathModifier | None = None


class HTTPRouteFilter(Wire):
    type: str
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_redirect: HTTPRequestRedirect | None = None
    url_rewrite: HTTPURLRewrite | None = field(default=None, name="urlRewrite")
    request_mirror: Map[Any] | None = None
    cors: Map[Any] | None = None
    extension_ref: Map[Any] | None = None
    external_auth: Map[Any] | None = None


class HTTPBackendReference(BackendReference):
    filters: Many[HTTPRouteFilter] | None = None


class HTTPTimeouts(Wire):
    request: str | None = None
    backend_request: str | None = None


class HTTPRule(Wire):
    name: str | None = None
    matches: Many[HTTPRouteMatch] | None = None
    filters: Many[HTTPRouteFilter] | None = None
    backend_refs: Many[HTTPBackendReference] | None = None
    timeouts: HTTPTimeouts | None = None
    retry: Map[Any] | None = None
    session_persistence: Map[Any] | None = None


class HTTPRouteSpec(Wire):
    parent_refs: Many[ParentReference] | None = None
    hostnames: Many[str] | None = None
    rules: Many[HTTPRule] | None = None


class HTTPRoute(Wire):
    metadata: GatewayMetadata
    spec: HTTPRouteSpec


class L4Rule(Wire):
    name: str | None = None
    backend_refs: Many[BackendReference] | None = None


class L4RouteSpec(Wire, kw_only=True):
    parent_refs: Many[ParentReference] | None = None
    rules: Many[L4Rule]


class L4Route(Wire):
    metadata: GatewayMetadata
    spec: L4RouteSpec


class ReferenceGrantFrom(Wire):
    group: str
    kind: str
    namespace: str


class ReferenceGrantTo(Wire):
    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Wire):
    from_: Many[ReferenceGrantFrom]
    to: Many[ReferenceGrantTo]


class ReferenceGrant(Wire):
    metadata: GatewayMetadata
    spec: ReferenceGrantSpec


class Namespace(Wire):
    metadata: Metadata

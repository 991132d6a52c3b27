"""Objects of the Gateway API as JSON has them. The versions v1, v1beta1 and v1alpha2 have the same fields.

Fields that are absent are not encoded again, so that the text of a spec contains what the manifest did.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from kproxy.decode.wire import Metadata

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
    values: list[str] | None = None


class LabelSelector(Wire):
    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelSelectorRequirement] | None = None


class RouteNamespaces(Wire):
    from_: str | None = None
    selector: LabelSelector | None = None


class RouteGroupKind(Wire):
    kind: str
    group: str | None = None


class AllowedRoutes(Wire):
    namespaces: RouteNamespaces | None = None
    kinds: list[RouteGroupKind] | None = None


class SecretReference(Wire):
    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None


class ListenerTLS(Wire):
    mode: str | None = None
    certificate_refs: list[SecretReference] | None = None
    options: dict[str, str] | None = None


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
    listeners: list[Listener]
    addresses: list[GatewayAddress] | None = None
    infrastructure: dict[str, Any] | None = None


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


class L4Rule(Wire):
    name: str | None = None
    backend_refs: list[BackendReference] | None = None


class L4RouteSpec(Wire, kw_only=True):
    parent_refs: list[ParentReference] | None = None
    rules: list[L4Rule]


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
    from_: list[ReferenceGrantFrom]
    to: list[ReferenceGrantTo]


class ReferenceGrant(Wire):
    metadata: GatewayMetadata
    spec: ReferenceGrantSpec


class Namespace(Wire):
    metadata: Metadata

"""The kinds that only the gateway uses: Ingresses, the Gateway API, and the certificates in Secrets.

They are apart from the other kinds because most input has none of them, and to import the modules of this
table takes longer than to decode a small manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kproxy.decode import gateways, gatewaywire, httproutes, ingress, routes, secret, wire
from kproxy.decode.fields import Notes
from kproxy.decode.kinds import GATEWAY_VERSIONS, L4_ROUTE_VERSIONS, Kind


def _versions(
    kind: str,
    versions: tuple[str, ...],
    wire_type: type[Any],
    to_model: Callable[[str, Any, Notes], list[Any]],
    schema: str = "",
) -> dict[tuple[str, str], Kind]:
    """Return the entries of a kind for versions of the same form. `schema`: if it has another name."""
    return {(version, kind): Kind(wire_type, to_model, schema or kind) for version in versions}


_INGRESS_VERSIONS = ("networking.k8s.io/v1", "networking.k8s.io/v1beta1")
_BETA_VERSIONS = ("networking.k8s.io/v1beta1", "extensions/v1beta1")


KINDS = {
    ("networking.k8s.io/v1", "Ingress"): Kind(wire.Ingress, ingress.ingress_v1, "Ingress"),
    **_versions("Ingress", _BETA_VERSIONS, wire.Ingress, ingress.ingress_beta, "IngressBeta"),
    **_versions("IngressClass", _INGRESS_VERSIONS, wire.IngressClass, ingress.ingress_class),
    ("v1", "Secret"): Kind(wire.Secret, secret.secret, "Secret"),
    ("v1", "Namespace"): Kind(gatewaywire.Namespace, gateways.namespace, "Namespace"),
    **_versions("GatewayClass", GATEWAY_VERSIONS, gatewaywire.GatewayClass, gateways.gateway_class),
    **_versions("Gateway", GATEWAY_VERSIONS, gatewaywire.Gateway, gateways.gateway),
    **_versions("ReferenceGrant", GATEWAY_VERSIONS, gatewaywire.ReferenceGrant, gateways.reference_grant),
    **_versions("HTTPRoute", GATEWAY_VERSIONS, gatewaywire.HTTPRoute, httproutes.http_route),
    **_versions("TCPRoute", L4_ROUTE_VERSIONS, gatewaywire.L4Route, routes.tcp_route),
    **_versions("UDPRoute", L4_ROUTE_VERSIONS, gatewaywire.L4Route, routes.udp_route),
}
"""By apiVersion and kind."""

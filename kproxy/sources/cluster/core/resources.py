"""The kinds that kproxy follows: where the API server has them, and which objects are requested."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.decode.endpointslices import HEADLESS_LABEL
from kproxy.gatewayapi import GROUP
from kproxy.model import NamespacedName


class ApiResource(NamedTuple):
    """A kind of the API, its path, and the selector of the requested objects."""

    kind: str
    api_version: str
    path: str
    selector: dict[str, str]
    namespaced: bool = True
    optional: bool = False
    """Services are programmed without it: older servers lack the kind, and older ClusterRoles the right."""
    older: ApiResource | None = None
    """An older version, for servers that do not have this one."""
    has_protobuf: bool = False
    """Whether `decode/protobuf.py` knows the kind."""

    def single(self, key: NamespacedName) -> tuple[str, dict[str, str]]:
        """Return path and query of a list that contains only the object of this name."""
        if "fieldSelector" in self.selector:
            return self.path, self.selector
        group, _, plural = self.path.rpartition("/")
        path = f"{group}/namespaces/{key.namespace}/{plural}" if self.namespaced else self.path
        return path, {**self.selector, "fieldSelector": f"metadata.name={key.name}"}


SERVICES = ApiResource("Service", "v1", "/api/v1/services", {}, has_protobuf=True)
SLICES = ApiResource(
    "EndpointSlice",
    "discovery.k8s.io/v1",
    "/apis/discovery.k8s.io/v1/endpointslices",
    {"labelSelector": f"!{HEADLESS_LABEL}"},
    has_protobuf=True,
)
SERVICE_CIDRS = ApiResource(
    "ServiceCIDR",
    "networking.k8s.io/v1",
    "/apis/networking.k8s.io/v1/servicecidrs",
    {},
    namespaced=False,
    optional=True,
    has_protobuf=True,
)


def _gateway_resource(kind: str, plural: str, version: str = "v1", older: str = "") -> ApiResource:
    api_version = f"{GROUP}/{version}"
    return ApiResource(
        kind,
        api_version,
        f"/apis/{api_version}/{plural}",
        {},
        namespaced=kind != "GatewayClass",
        optional=True,
        older=_gateway_resource(kind, plural, older) if older else None,
    )


GATEWAY_API = (
    _gateway_resource("GatewayClass", "gatewayclasses"),
    _gateway_resource("Gateway", "gateways"),
    _gateway_resource("TCPRoute", "tcproutes", older="v1alpha2"),
    _gateway_resource("UDPRoute", "udproutes", older="v1alpha2"),
    _gateway_resource("ReferenceGrant", "referencegrants", "v1beta1"),
    ApiResource("Namespace", "v1", "/api/v1/namespaces", {}, namespaced=False, optional=True),
)
"""What Gateways with TCP and UDP routes are made from. All versions of the CRDs since 1.0 serve these."""


def node_resource(name: str) -> ApiResource:
    """Return the resource that contains only the Node of this name."""
    selector = {"fieldSelector": f"metadata.name={name}"}
    return ApiResource("Node", "v1", "/api/v1/nodes", selector, namespaced=False, has_protobuf=True)

"""Objects of an API server with as many items in one list or map as wanted: the costly ones of each kind.

tests/unit/test_large_objects.py tries them at the limit, and bench/objects.py measures what they cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Raw, json

from kproxy.decode.protobuf import Protobuf
from kproxy.sources.cluster.core.events import Content
from kproxy.sources.cluster.core.resources import (
    GATEWAY_API,
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    ApiResource,
    node_resource,
)
from tests.apiserver import protobuf

_RESOURCES = {
    each.kind: each for each in (SERVICES, SLICES, SERVICE_CIDRS, node_resource("web"), *GATEWAY_API)
}
_NAME: dict[str, Any] = {"name": "web", "namespace": "default"}


class Large(NamedTuple):
    """An object of which one list or map is large."""

    kind: str
    field: str
    """The path of the list or map."""
    make: Callable[[int], Any]
    """From the number of items to the list or map."""

    @property
    def resource(self) -> ApiResource:
        """How the API server names the kind."""
        return _RESOURCES[self.kind]

    def json(self, items: int) -> Content:
        """Return the object with so many items."""
        return Raw(json.encode(self._object(items)))

    def protobuf(self, items: int) -> Content:
        """Return the same in protobuf."""
        return Protobuf(protobuf._object(self.kind, self._object(items)))

    def _object(self, items: int) -> dict[str, Any]:
        found: dict[str, Any] = json.decode(json.encode(_SMALL[self.kind]))
        *path, last = self.field.split(".")
        place = found
        for step in path:
            if isinstance(place, list):
                (place,) = place
            place = place.setdefault(step, {})
        (place[0] if isinstance(place, list) else place)[last] = self.make(items)
        return found


_LABELLED = {**_NAME, "labels": {"kubernetes.io/service-name": "web"}}
_SMALL: dict[str, Any] = {
    "EndpointSlice": {
        "metadata": _LABELLED,
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    },
    "Service": {
        "metadata": _NAME,
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    },
    "Node": {"metadata": _NAME},
    "ServiceCIDR": {"metadata": _NAME},
    "Gateway": {
        "metadata": _NAME,
        "spec": {"gatewayClassName": "x", "listeners": [{"name": "a", "port": 1, "protocol": "TCP"}]},
    },
    "TCPRoute": {"metadata": _NAME, "spec": {"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}},
    "ReferenceGrant": {
        "metadata": _NAME,
        "spec": {
            "from": [{"group": "", "kind": "", "namespace": "a"}],
            "to": [{"group": "", "kind": ""}],
        },
    },
    "Namespace": {"metadata": {"name": "web"}},
}


def _equal(item: Any) -> Callable[[int], list[Any]]:
    return lambda items: [item] * items


def _keys(items: int) -> dict[str, str]:
    return {f"{number:x}": "" for number in range(items)}


def _ports(items: int) -> list[Any]:
    kinds = ("TCP", "UDP", "SCTP")
    return [{"name": f"{n}a", "port": 1 + n % 65535, "protocol": kinds[n // 65535 % 3]} for n in range(items)]


def _subnets(items: int) -> list[str]:
    """Networks that are not in the standard form."""
    return [f"fd00::{number % 65536:x}/9" for number in range(items)]


LARGE = (
    Large("EndpointSlice", "endpoints", _equal({})),
    Large("EndpointSlice", "endpoints", _equal({"addresses": ["01.2.3.4"]})),
    Large("EndpointSlice", "endpoints", _equal({"addresses": ["::1"]})),
    Large("EndpointSlice", "endpoints.addresses", _equal("10.0.0.1")),
    Large("EndpointSlice", "endpoints.hints.forZones", _equal({"name": ""})),
    Large("EndpointSlice", "ports", _equal({"port": 0})),
    Large("EndpointSlice", "metadata.labels", _keys),
    Large("Service", "spec.ports", _ports),
    Large("Service", "spec.externalIPs", _equal("")),
    Large("Service", "spec.loadBalancerSourceRanges", _subnets),
    Large("Service", "spec.selector", _keys),
    Large("Service", "status.loadBalancer.ingress", _equal({"ip": "::1"})),
    Large("Service", "metadata.annotations", _keys),
    Large("Node", "spec.podCIDRs", _equal("")),
    Large("Node", "spec.taints", _equal({})),
    Large("Node", "status.addresses", _equal({"type": "", "address": ""})),
    Large("Node", "status.conditions", _equal({"type": "", "status": ""})),
    Large("ServiceCIDR", "spec.cidrs", _subnets),
    Large("Gateway", "spec.listeners", _equal({"name": "a", "port": 1, "protocol": "TCP"})),
    Large("Gateway", "spec.listeners.allowedRoutes.namespaces.selector.matchLabels", _keys),
    Large("TCPRoute", "spec.rules", _equal({})),
    Large("TCPRoute", "spec.parentRefs", _equal({"name": "a"})),
    Large("ReferenceGrant", "spec.to", _equal({"group": "", "kind": ""})),
    Large("Namespace", "metadata.labels", _keys),
)

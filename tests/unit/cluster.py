"""Short functions that make what an API server sends."""

from __future__ import annotations

from typing import Any

import msgspec

from kproxy.sources.cluster.core.events import Event, ObjectChange
from kproxy.sources.cluster.core.formats import Json
from kproxy.sources.cluster.core.resources import ApiResource

LABEL = "kubernetes.io/service-name"


def api_service(own_name: str = "web", version: int = 1, /, **spec: Any) -> dict[str, Any]:
    """Return a Service as the API sends it."""
    metadata = {"name": own_name, "namespace": "default", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec}}


def api_slice(
    own_name: str = "web-1", of: str | int | None = "web", version: int = 1, /, *addresses: str, **rest: Any
) -> dict[str, Any]:
    """Return an EndpointSlice as the API sends it. `of` is its service; None: it has none."""
    metadata = {
        "name": own_name,
        "namespace": "default",
        "resourceVersion": str(version),
        "labels": {} if of is None else {LABEL: of},
        **rest.pop("metadata", {}),
    }
    endpoints = [{"addresses": [address]} for address in addresses or ("10.0.0.1",)]
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [], **rest}


def api_node(own_name: str = "n1", zone: str = "", version: int = 1, /) -> dict[str, Any]:
    """Return a Node as the API sends it."""
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    return {"metadata": {"name": own_name, "resourceVersion": str(version), "labels": labels}}


def api_service_cidr(own_name: str = "kubernetes", *cidrs: str, **rest: Any) -> dict[str, Any]:
    """Return a ServiceCIDR as the API sends it."""
    metadata = {"name": own_name, "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"cidrs": cidrs}, "status": {}, **rest}


def line(type_: str, content: Any) -> bytes:
    """Return a line of a watch, without the newline."""
    return msgspec.json.encode({"type": type_, "object": content})


def event(resource: ApiResource, type_: str, content: Any) -> Event:
    """Return a line of a watch, decoded."""
    return Json().read_event(resource, line(type_, content))


def change(resource: ApiResource, type_: str, content: Any) -> ObjectChange:
    """Return the change that a line of a watch contains."""
    found = event(resource, type_, content).change
    assert found is not None
    return found

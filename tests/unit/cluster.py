"""What an API server sends, as short calls."""

from __future__ import annotations

from typing import Any

import msgspec

from kproxy.sources.cluster.core.events import ApiResource, Event, ObjectChange, read_line

LABEL = "kubernetes.io/service-name"


def api_service(own_name: str = "web", version: int = 1, /, **spec: Any) -> dict[str, Any]:
    """A Service as the API has it."""
    metadata = {"name": own_name, "namespace": "default", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec}}


def api_slice(
    own_name: str = "web-1", of: str | int | None = "web", version: int = 1, /, *addresses: str, **rest: Any
) -> dict[str, Any]:
    """An EndpointSlice of a service as the API has it; None: of no service."""
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
    """A Node as the API has it."""
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    return {"metadata": {"name": own_name, "resourceVersion": str(version), "labels": labels}}


def line(type_: str, content: Any) -> bytes:
    """A line of a watch, without its end."""
    return msgspec.json.encode({"type": type_, "object": content})


def event(resource: ApiResource, type_: str, content: Any) -> Event:
    """A line of a watch, read."""
    return read_line(resource, line(type_, content))


def change(resource: ApiResource, type_: str, content: Any) -> ObjectChange:
    """What a line of a watch says of an object."""
    found = event(resource, type_, content).change
    assert found is not None
    return found

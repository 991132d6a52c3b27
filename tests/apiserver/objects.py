"""Objects for the tests of the server, with the fields that a real one requires."""

from __future__ import annotations

from typing import Any

from tests.apiserver.resources import Manifest

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"


def service(
    name: str = "web", namespace: str = "default", port: int = 80, labels: dict[str, str] | None = None
) -> Manifest:
    """A Service."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"ports": [{"port": port}]},
    }


def endpoint_slice(
    name: str = "web-1", namespace: str = "default", labels: dict[str, str] | None = None
) -> Manifest:
    """An EndpointSlice of the Service web."""
    labels = {"kubernetes.io/service-name": "web", **(labels or {})}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"]}],
        "ports": [{"port": 8080}],
    }


def service_cidr(name: str = "kubernetes", *cidrs: str) -> Manifest:
    """A ServiceCIDR."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": list(cidrs)},
    }


def node(name: str = "n1", labels: dict[str, str] | None = None) -> Manifest:
    """A Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {},
    }

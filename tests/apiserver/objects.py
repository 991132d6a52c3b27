"""Objects for the tests of the server itself; what is in them does not matter to it."""

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


def node(name: str = "n1", labels: dict[str, str] | None = None) -> Manifest:
    """A Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {},
    }

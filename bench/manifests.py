"""Samples as manifests: a List of Services and EndpointSlices, with the fields that an API server sets.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from bench.samples import PORT, TARGET_PORT, Sample

CREATED = "2026-01-05T09:30:00Z"
PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z][\w./-]*", re.IGNORECASE)


def manifests(services: Iterable[Sample]) -> dict[str, Any]:
    """Return the List that `kubectl get services,endpointslices -A` would print."""
    items = [item for service in services for item in (_service(service), _slice(service))]
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def _uid(*names: str) -> str:
    return str(uuid5(NAMESPACE_DNS, ".".join(names)))


def _service(sample: Sample) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "creationTimestamp": CREATED,
            "labels": {"app": sample.name},
            "name": sample.name,
            "namespace": sample.namespace,
            "resourceVersion": "4711",
            "uid": _uid(sample.namespace, sample.name),
        },
        "spec": {
            "clusterIP": sample.address,
            "clusterIPs": [sample.address],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET_PORT}],
            "selector": {"app": sample.name},
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    }


def _slice(sample: Sample) -> dict[str, Any]:
    return {
        "addressType": "IPv4",
        "apiVersion": "discovery.k8s.io/v1",
        "endpoints": [
            {
                "addresses": [endpoint.address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": endpoint.node,
                "targetRef": {
                    "kind": "Pod",
                    "name": f"{sample.name}-{place}",
                    "namespace": sample.namespace,
                    "uid": _uid(sample.namespace, sample.name, endpoint.address),
                },
            }
            for place, endpoint in enumerate(sample.endpoints)
        ],
        "kind": "EndpointSlice",
        "metadata": {
            "creationTimestamp": CREATED,
            "generation": 1,
            "labels": {
                "app": sample.name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": sample.name,
            },
            "name": f"{sample.name}-x7k2p",
            "namespace": sample.namespace,
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "blockOwnerDeletion": True,
                    "controller": True,
                    "kind": "Service",
                    "name": sample.name,
                    "uid": _uid(sample.namespace, sample.name),
                }
            ],
            "resourceVersion": "4711",
            "uid": _uid(sample.namespace, sample.name, "slice"),
        },
        "ports": [{"name": "http", "port": TARGET_PORT, "protocol": "TCP"}],
    }


def as_json(content: Any) -> str:
    """Return JSON with the indentation of kubectl."""
    return json.dumps(content, indent=4) + "\n"


def as_yaml(content: Any) -> str:
    """Return YAML in the block style of kubectl. PyYAML would take half a minute for 10,000 Services."""
    return "\n".join(_yaml(content, "")) + "\n"


def _yaml(content: Any, indent: str) -> Iterator[str]:
    """Yield the lines of a mapping or sequence that is not empty."""
    entries = content.items() if isinstance(content, dict) else ((None, item) for item in content)
    for key, value in entries:
        head = f"{indent}-" if key is None else f"{indent}{key}:"
        if not value or not isinstance(value, dict | list):
            yield f"{head} {_scalar(value)}"
        elif key is None:
            first, *rest = _yaml(value, f"{indent}  ")
            yield f"{head} {first.lstrip()}"
            yield from rest
        else:
            yield head
            yield from _yaml(value, indent if isinstance(value, list) else f"{indent}  ")


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else json.dumps(value)

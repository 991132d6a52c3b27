"""The sizes of Services and EndpointSlices in protobuf, which kube-proxy requests. Pure.

The numbers of the fields are those of Kubernetes' generated.proto. Only fields that the samples have are
known. Another field is a KeyError, so that no field is left out of a size unnoticed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

REFERENCE = {"kind": 1, "namespace": 2, "name": 3, "uid": 4, "apiVersion": 5}
OWNER = {"kind": 1, "name": 3, "uid": 4, "apiVersion": 5, "controller": 6, "blockOwnerDeletion": 7}
META: dict[str, Any] = {
    "name": 1,
    "namespace": 3,
    "uid": 5,
    "resourceVersion": 6,
    "generation": 7,
    "creationTimestamp": 8,
    "labels": 11,
    "annotations": 12,
    "ownerReferences": (13, OWNER),
}
PORT = {"name": 1, "protocol": 2, "port": 3, "targetPort": 4}
SPEC: dict[str, Any] = {
    "ports": (1, PORT),
    "selector": 2,
    "clusterIP": 3,
    "type": 4,
    "sessionAffinity": 7,
    "ipFamilyPolicy": 17,
    "clusterIPs": 18,
    "ipFamilies": 19,
    "internalTrafficPolicy": 22,
}
SERVICE: dict[str, Any] = {"metadata": (1, META), "spec": (2, SPEC), "status": (3, {"loadBalancer": (1, {})})}
ENDPOINT: dict[str, Any] = {
    "addresses": 1,
    "conditions": (2, {"ready": 1, "serving": 2, "terminating": 3}),
    "targetRef": (4, REFERENCE),
    "nodeName": 6,
}
SLICE: dict[str, Any] = {
    "metadata": (1, META),
    "endpoints": (2, ENDPOINT),
    "ports": (3, {"name": 1, "protocol": 2, "port": 3}),
    "addressType": 4,
}
KINDS = {"Service": SERVICE, "EndpointSlice": SLICE}


def protobuf(manifest: Any) -> bytes:
    """Return a manifest as protobuf, without its kind and version."""
    fields = {name: value for name, value in manifest.items() if name not in ("kind", "apiVersion")}
    return _message(KINDS[manifest["kind"]], fields)


def event(manifest: Any, kind: str = "MODIFIED") -> bytes:
    """Return an event of a watch in protobuf: its length, type, and object with kind and version."""
    about = _field(1, manifest["apiVersion"]) + _field(2, manifest["kind"])
    unknown = b"k8s\0" + _field(1, about) + _field(2, protobuf(manifest)) + _field(3, "") + _field(4, "")
    content = _field(1, kind) + _field(2, _field(1, unknown))
    return len(content).to_bytes(4, "big") + content


def _message(schema: dict[str, Any], fields: dict[str, Any]) -> bytes:
    return b"".join(_named(schema[name], name, value) for name, value in fields.items())


def _named(place: Any, name: str, value: Any) -> bytes:
    number, schema = place if isinstance(place, tuple) else (place, None)
    if isinstance(value, list):
        return b"".join(_named(place, name, each) for each in value)
    if schema is not None:
        return _field(number, _message(schema, value))
    if name == "creationTimestamp":
        return _field(number, _field(1, int(datetime.fromisoformat(value).timestamp())) + _field(2, 0))
    if name == "targetPort":
        return _field(number, _field(1, 0) + _field(2, value) + _field(3, ""))
    if isinstance(value, dict):
        return b"".join(_field(number, _field(1, key) + _field(2, own)) for key, own in value.items())
    return _field(number, value)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(int(value))
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])

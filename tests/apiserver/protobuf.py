"""Objects, lists, events and errors as Kubernetes' protobuf, from their JSON.

The numbers of the fields are those of Kubernetes' `generated.proto`, and are written down here independently
of kproxy's. A field that is not known, or a value of another type, is an Unencodable: no field is left out
unnoticed. A real server has no such objects, but tests do, and then the double responds with JSON.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"


class Unencodable(Exception):
    """An object that has no form in protobuf, or none that is known here."""


# A field: its number, and its type: str, int, bool, dict (of texts), "time", "int or string", or a table of
# fields. A list in JSON is a repeated field.
META: dict[str, Any] = {
    "name": (1, str),
    "generateName": (2, str),
    "namespace": (3, str),
    "uid": (5, str),
    "resourceVersion": (6, str),
    "generation": (7, int),
    "creationTimestamp": (8, "time"),
    "deletionTimestamp": (9, "time"),
    "deletionGracePeriodSeconds": (10, int),
    "labels": (11, dict),
    "annotations": (12, dict),
    "ownerReferences": (
        13,
        {
            "kind": (1, str),
            "name": (3, str),
            "uid": (4, str),
            "apiVersion": (5, str),
            "controller": (6, bool),
            "blockOwnerDeletion": (7, bool),
        },
    ),
    "finalizers": (14, str),
}
SERVICE_SPEC: dict[str, Any] = {
    "ports": (
        1,
        {
            "name": (1, str),
            "protocol": (2, str),
            "port": (3, int),
            "targetPort": (4, "int or string"),
            "nodePort": (5, int),
            "appProtocol": (6, str),
        },
    ),
    "selector": (2, dict),
    "clusterIP": (3, str),
    "type": (4, str),
    "externalIPs": (5, str),
    "sessionAffinity": (7, str),
    "loadBalancerIP": (8, str),
    "loadBalancerSourceRanges": (9, str),
    "externalName": (10, str),
    "externalTrafficPolicy": (11, str),
    "healthCheckNodePort": (12, int),
    "publishNotReadyAddresses": (13, bool),
    "sessionAffinityConfig": (14, {"clientIP": (1, {"timeoutSeconds": (1, int)})}),
    "ipFamilyPolicy": (17, str),
    "clusterIPs": (18, str),
    "ipFamilies": (19, str),
    "allocateLoadBalancerNodePorts": (20, bool),
    "loadBalancerClass": (21, str),
    "internalTrafficPolicy": (22, str),
    "trafficDistribution": (23, str),
}
INGRESS = {"ip": (1, str), "hostname": (2, str), "ipMode": (3, str)}
ENDPOINT: dict[str, Any] = {
    "addresses": (1, str),
    "conditions": (2, {"ready": (1, bool), "serving": (2, bool), "terminating": (3, bool)}),
    "hostname": (3, str),
    "targetRef": (
        4,
        {"kind": (1, str), "namespace": (2, str), "name": (3, str), "uid": (4, str), "apiVersion": (5, str)},
    ),
    "nodeName": (6, str),
    "zone": (7, str),
    "hints": (8, {"forZones": (1, {"name": (1, str)}), "forNodes": (2, {"name": (1, str)})}),
}
NODE_INFO = (
    *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion"),
    *("kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"),
)
NODE_STATUS: dict[str, Any] = {
    "conditions": (4, {"type": (1, str), "status": (2, str), "reason": (5, str), "message": (6, str)}),
    "addresses": (5, {"type": (1, str), "address": (2, str)}),
    "daemonEndpoints": (6, {"kubeletEndpoint": (1, {"Port": (1, int)})}),
    "nodeInfo": (7, {name: (number, str) for number, name in enumerate(NODE_INFO, 1)}),
}
KINDS: dict[str, dict[str, Any]] = {
    "Service": {
        "metadata": (1, META),
        "spec": (2, SERVICE_SPEC),
        "status": (3, {"loadBalancer": (1, {"ingress": (1, INGRESS)})}),
    },
    "EndpointSlice": {
        "metadata": (1, META),
        "endpoints": (2, ENDPOINT),
        "ports": (3, {"name": (1, str), "protocol": (2, str), "port": (3, int), "appProtocol": (4, str)}),
        "addressType": (4, str),
    },
    "Node": {
        "metadata": (1, META),
        "spec": (
            2,
            {
                "podCIDR": (1, str),
                "providerID": (3, str),
                "unschedulable": (4, bool),
                "taints": (5, {"key": (1, str), "value": (2, str), "effect": (3, str)}),
                "podCIDRs": (7, str),
            },
        ),
        "status": (3, NODE_STATUS),
    },
    "ServiceCIDR": {"metadata": (1, META), "spec": (2, {"cidrs": (1, str)}), "status": (3, {})},
    "Status": {
        "metadata": (1, {"resourceVersion": (2, str), "continue": (3, str)}),
        "status": (2, str),
        "message": (3, str),
        "reason": (4, str),
        "details": (
            5,
            {
                "name": (1, str),
                "group": (2, str),
                "kind": (3, str),
                "causes": (4, {"reason": (1, str), "message": (2, str), "field": (3, str)}),
                "retryAfterSeconds": (5, int),
                "uid": (6, str),
            },
        ),
        "code": (6, int),
    },
}
LIST_META = {"resourceVersion": (2, str), "continue": (3, str), "remainingItemCount": (4, int)}


def response(body: bytes) -> bytes:
    """Return the body of a response with an object, a list or a Status, from its JSON. Raises Unencodable."""
    return _unknown(msgspec.json.decode(body))


@lru_cache(1 << 18)
def event(line: bytes) -> bytes:
    """Return an event of a watch with its length, from its line of JSON. Raises Unencodable."""
    found = msgspec.json.decode(line)
    content = _field(1, found["type"]) + _field(2, _field(1, _unknown(found["object"])))
    return len(content).to_bytes(4, "big") + content


def has_protobuf(kind: str) -> bool:
    """Whether a kind can be sent in protobuf."""
    return kind in KINDS


def _unknown(content: dict[str, Any]) -> bytes:
    """Return an object or a list with its kind and version around it."""
    kind, version = content.pop("kind"), content.pop("apiVersion")
    try:
        raw = _list(kind.removesuffix("List"), content) if "items" in content else _object(kind, content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unencodable(f"{kind}: {error!r}") from None
    about = _field(1, version) + _field(2, kind)
    return b"k8s\0" + _field(1, about) + _field(2, raw) + _field(3, "") + _field(4, "")


def _list(kind: str, content: dict[str, Any]) -> bytes:
    items = b"".join(_field(2, _object(kind, item)) for item in content["items"])
    return _field(1, _message(LIST_META, content["metadata"])) + items


def _object(kind: str, content: dict[str, Any]) -> bytes:
    return _message(KINDS[kind], content)


def _message(fields: dict[str, Any], content: dict[str, Any]) -> bytes:
    return b"".join(_named(fields[name], value) for name, value in content.items() if value is not None)


def _named(place: tuple[int, Any], value: Any) -> bytes:
    number, kind = place
    if isinstance(value, list):
        return b"".join(_named(place, each) for each in value)
    if isinstance(kind, dict):
        return _field(number, _message(kind, value))
    if kind == "time":
        return _field(number, _field(1, int(datetime.fromisoformat(value).timestamp())) + _field(2, 0))
    if kind == "int or string" and type(value) in (int, str):
        return _field(number, _int_or_string(value))
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of type {kind}")
    if kind is dict:
        entries = value.items()
        return b"".join(_field(number, _field(1, _text(key)) + _field(2, _text(own))) for key, own in entries)
    return _field(number, value)


def _int_or_string(value: int | str) -> bytes:
    number, text = (value, "") if isinstance(value, int) else (0, value)
    return _field(1, int(bool(text))) + _field(2, number) + _field(3, text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value & (1 << 64) - 1)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])

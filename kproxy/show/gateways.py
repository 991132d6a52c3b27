"""Shows the objects of the Gateway API with their status: in tables, and as manifests.

The columns are the printer columns of the Gateway API's CRDs. kproxy computes the status. An object of
another controller has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kproxy.gateway.core.status import FEATURES, Condition, GatewayStatus, ParentStatus, Statuses
from kproxy.gatewayapi import (
    CONTROLLER,
    GROUP,
    Gateway,
    GatewayClass,
    GatewayObjects,
    Object,
    ParentRef,
    ReferenceGrant,
    Route,
)
from kproxy.model import NamespacedName, format_address
from kproxy.show.manifests import annotations_of, metadata_of, without_empty
from kproxy.show.tables import NONE, Age, Objects


class Shown(NamedTuple):
    """An object and its status, in the form of the API."""

    object: Object
    kind: str
    status: dict[str, Any]
    """{} if kproxy has nothing to do with it."""

    @property
    def name(self) -> NamespacedName:
        """The name of the object."""
        return self.object.name

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the object."""
        return self.object.labels


def shown(kind: str) -> Callable[[Objects], list[Shown]]:
    """Return a function that returns all objects of a kind with their status, sorted by name."""

    def of(objects: Objects) -> list[Shown]:
        found = _by_name(objects.gateways, kind)
        return [Shown(found[name], kind, status_of(found[name], objects.statuses)) for name in sorted(found)]

    return of


def _by_name(objects: GatewayObjects, kind: str) -> Mapping[NamespacedName, Object]:
    match kind:
        case "GatewayClass":
            return objects.classes
        case "Gateway":
            return objects.gateways
        case "ReferenceGrant":
            return objects.grants
    return objects.routes[kind]


# --- status ---


def status_of(found: Object, statuses: Statuses) -> dict[str, Any]:
    """Return the status of an object in the form of the API; {} if it has none."""
    match found:
        case GatewayClass():
            conditions = statuses.of_class(found)
            return {} if conditions is None else _class_status(found, conditions)
        case Gateway():
            status = statuses.of_gateway(found)
            return {} if status is None else _gateway_status(found, status)
        case Route():
            return _route_status(found, statuses.of_route(found))
    return {}


def _conditions(found: Object, conditions: Iterable[Condition]) -> list[dict[str, Any]]:
    return [
        {
            "type": each.type,
            "status": str(each.status),
            "reason": each.reason,
            "message": each.message,
            "observedGeneration": found.generation,
        }
        for each in conditions
    ]


def _class_status(found: GatewayClass, conditions: Iterable[Condition]) -> dict[str, Any]:
    return {
        "conditions": _conditions(found, conditions),
        "supportedFeatures": [{"name": name} for name in FEATURES],
    }


def _gateway_status(gateway: Gateway, status: GatewayStatus) -> dict[str, Any]:
    return {
        "addresses": [
            {"type": "IPAddress", "value": format_address(address)} for address in status.addresses
        ],
        "conditions": _conditions(gateway, status.conditions),
        "listeners": [
            {
                "name": each.name,
                "supportedKinds": [{"group": GROUP, "kind": kind} for kind in each.kinds],
                "attachedRoutes": each.routes,
                "conditions": _conditions(gateway, each.conditions),
            }
            for each in status.listeners
        ],
    }


def _route_status(route: Route, parents: Iterable[ParentStatus]) -> dict[str, Any]:
    found = [
        {
            "parentRef": _parent_ref(each.parent),
            "controllerName": CONTROLLER,
            "conditions": _conditions(route, each.conditions),
        }
        for each in parents
    ]
    return {"parents": found} if found else {}


def _parent_ref(parent: ParentRef) -> dict[str, Any]:
    fields = {
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.name.namespace if parent.explicit else "",
        "name": parent.name.name,
        "sectionName": parent.section,
        "port": parent.port or None,
    }
    return without_empty(fields)


def condition_of(status: dict[str, Any], kind: str) -> str:
    """Return the status of a condition, Unknown if it has none."""
    found = (each["status"] for each in status.get("conditions", ()) if each["type"] == kind)
    return next(found, "Unknown")


# --- manifests ---


def gateway_manifest(shown: Shown) -> dict[str, Any]:
    """Return an object of version v1: the fields that kproxy knows, and its status."""
    found = shown.object
    annotations = annotations_of(found.annotations)
    about = metadata_of(
        found.name, found.origin.created, found.labels, annotations, generation=found.generation
    )
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": shown.kind,
        "metadata": about,
        "spec": json.loads(found.spec),
        **({"status": shown.status} if shown.status else {}),
    }


# --- tables ---


def class_rows(shown: Iterable[Shown], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each GatewayClass."""
    rows = [["NAME", "CONTROLLER", "ACCEPTED", "AGE", *(["DESCRIPTION"] if wide else [])]]
    for each in shown:
        found = each.object
        assert isinstance(found, GatewayClass)
        row = [found.name.name, found.controller, condition_of(each.status, "Accepted")]
        rows.append([*row, age(found.origin.created), *([found.description or NONE] if wide else [])])
    return rows


def gateway_rows(shown: Iterable[Shown], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each Gateway, with all its addresses."""
    rows = [["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]]
    for each in shown:
        found = each.object
        assert isinstance(found, Gateway)
        addresses = ",".join(address["value"] for address in each.status.get("addresses", ()))
        row = [found.name.name, found.class_name, addresses, condition_of(each.status, "Programmed")]
        rows.append([*row, age(found.origin.created)])
    return rows


def http_route_rows(shown: Iterable[Shown], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each HTTPRoute."""
    rows = [["NAME", "HOSTNAMES", "AGE"]]
    for each in shown:
        found = each.object
        assert isinstance(found, Route)
        hostnames = json.dumps(found.hostnames, separators=(",", ":")) if found.hostnames else ""
        rows.append([found.name.name, hostnames, age(found.origin.created)])
    return rows


def plain_rows(shown: Iterable[Shown], age: Age, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each object of a kind without columns of its own."""
    return [["NAME", "AGE"], *([each.name.name, age(each.object.origin.created)] for each in shown)]


# --- for descriptions ---


def reference_text(parent: ParentRef) -> str:
    """Return for example `Gateway default/edge, listener web, port 80`."""
    listener = f", listener {parent.section}" if parent.section else ""
    port = f", port {parent.port}" if parent.port else ""
    return f"{parent.kind} {parent.name}{listener}{port}"


def grant_lines(grant: ReferenceGrant) -> tuple[list[str], list[str]]:
    """Return what may refer, and to what, one line each."""
    sources = [f"{each.kind}.{each.group or 'core'} in namespace {each.namespace}" for each in grant.sources]
    targets = [f"{each.kind}.{each.group or 'core'} {each.name or '(all)'}" for each in grant.targets]
    return sources, targets

"""GatewayClass, Gateway, ReferenceGrant and Namespace -> gatewayapi.py.

It refuses what the API server refuses by the rules of the Gateway API's CRDs. Every decoded listener can be
used, or gets a condition that says why not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import msgspec

from kproxy.decode import gatewaywire as wire
from kproxy.decode.fields import (
    LABEL,
    LABEL_RULE,
    SUBDOMAIN,
    SUBDOMAIN_RULE,
    FieldError,
    Notes,
    object_name,
    origin,
    port_number,
    text_map,
)
from kproxy.decode.ingress import host_name
from kproxy.gatewayapi import GROUP as GATEWAY_GROUP
from kproxy.gatewayapi import (
    Gateway,
    GatewayClass,
    GrantFrom,
    GrantTo,
    Listener,
    Namespace,
    ReferenceGrant,
    Requirement,
    RouteKind,
    SecretRef,
)
from kproxy.model import NamespacedName

LISTENERS, CERTIFICATES, KINDS, ADDRESSES, GRANTED = 64, 64, 8, 16, 16
"""The maximum numbers, as in the CRDs."""
NAMESPACES_FROM = ("All", "Same", "Selector", "None")
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
TLS_MODES = ("Terminate", "Passthrough")
WITHOUT_HOSTNAME = ("TCP", "UDP")
WITHOUT_TLS = ("HTTP", "TCP", "UDP")


def common(source: str, metadata: wire.GatewayMetadata, spec: Any, notes: Notes) -> dict[str, Any]:
    """Return the fields of `gatewayapi.Object`."""
    return {
        "name": object_name(metadata),
        "origin": origin(source, metadata),
        "generation": metadata.generation or 1,
        "spec": msgspec.json.encode(spec).decode(),
        "labels": text_map("metadata.labels", metadata.labels, notes),
    }


def gateway_class(source: str, obj: wire.GatewayClass, notes: Notes) -> list[GatewayClass]:
    """Decode a GatewayClass."""
    fields = common(source, obj.metadata, obj.spec, notes)
    reference = obj.spec.parameters_ref
    return [
        GatewayClass(
            **fields | {"name": NamespacedName("", fields["name"].name)},
            controller=required("spec.controllerName", obj.spec.controller_name),
            description=obj.spec.description or "",
            parameters=f"{reference.kind}/{reference.name}" if reference else "",
        )
    ]


def gateway(source: str, obj: wire.Gateway, notes: Notes) -> list[Gateway]:
    """Decode a Gateway."""
    fields, entries = common(source, obj.metadata, obj.spec, notes), obj.spec.listeners
    check_length("spec.listeners", entries, LISTENERS, least=1)
    namespace = fields["name"].namespace
    listeners = [_listener(f"spec.listeners[{i}]", entry, namespace) for i, entry in enumerate(entries)]
    _check_unique(listeners)
    return [
        Gateway(
            **fields,
            class_name=required("spec.gatewayClassName", obj.spec.gateway_class_name),
            listeners=tuple(listeners),
            addresses=tuple(_addresses(obj.spec.addresses or [])),
            infrastructure=tuple(obj.spec.infrastructure or ()),
        )
    ]


def reference_grant(source: str, obj: wire.ReferenceGrant, notes: Notes) -> list[ReferenceGrant]:
    """Decode a ReferenceGrant."""
    spec = obj.spec
    for path, entries in (("spec.from", spec.from_), ("spec.to", spec.to)):
        check_length(path, entries, GRANTED, least=1)
    return [
        ReferenceGrant(
            **common(source, obj.metadata, spec, notes),
            sources=tuple(
                GrantFrom(e.group, e.kind, required(f"spec.from[{i}].namespace", e.namespace))
                for i, e in enumerate(spec.from_)
            ),
            targets=tuple(GrantTo(e.group, e.kind, e.name or "") for e in spec.to),
        )
    ]


def namespace(_: str, obj: wire.Namespace, notes: Notes) -> list[Namespace]:
    """Decode a Namespace v1: its labels."""
    labels = text_map("metadata.labels", obj.metadata.labels, notes)
    return [Namespace(object_name(obj.metadata).name, labels)]


def check_length(path: str, entries: Sized, most: int, least: int = 0) -> None:
    """Check the number of entries of a list."""
    if not least <= len(entries) <= most:
        raise FieldError(path, f"has {len(entries)} entries: must have {least} to {most}")


def required(path: str, text: str) -> str:
    """Return a text that must not be empty."""
    if not text:
        raise FieldError(path, "is empty")
    return text


def section_name(path: str, text: str) -> str:
    """Check the name of a listener or of a rule."""
    if not SUBDOMAIN.fullmatch(text) or len(text) > 253:
        raise FieldError(path, f"{text!r} is not a name: at most 253 {SUBDOMAIN_RULE}")
    return text


def namespace_name(path: str, text: str) -> str:
    """Check the name of a namespace."""
    if not LABEL.fullmatch(text):
        raise FieldError(path, f"{text!r} is not a namespace: {LABEL_RULE}")
    return text


def _listener(path: str, entry: wire.Listener, namespace: str) -> Listener:
    protocol = required(f"{path}.protocol", entry.protocol)
    if entry.hostname and protocol in WITHOUT_HOSTNAME:
        raise FieldError(f"{path}.hostname", f"must not be set for protocol {protocol}")
    if entry.tls is not None and protocol in WITHOUT_TLS:
        raise FieldError(f"{path}.tls", f"must not be set for protocol {protocol}")
    _check_tls(f"{path}.tls", protocol, entry.tls)
    allowed = entry.allowed_routes or wire.AllowedRoutes()
    namespaces = allowed.namespaces or wire.RouteNamespaces()
    tls = entry.tls or wire.ListenerTLS()
    check_length(f"{path}.tls.certificateRefs", tls.certificate_refs or (), CERTIFICATES)
    check_length(f"{path}.allowedRoutes.kinds", allowed.kinds or (), KINDS)
    return Listener(
        name=section_name(f"{path}.name", entry.name),
        port=port_number(f"{path}.port", entry.port),
        protocol=protocol,
        hostname=host_name(f"{path}.hostname", entry.hostname or ""),
        tls_mode=(tls.mode or TLS_MODES[0]) if entry.tls else "",
        certificates=tuple(
            _certificate(f"{path}.tls.certificateRefs[{i}]", reference, namespace)
            for i, reference in enumerate(tls.certificate_refs or [])
        ),
        kinds=tuple(
            RouteKind(GATEWAY_GROUP if each.group is None else each.group, each.kind)
            for each in allowed.kinds or ()
        ),
        namespaces=one_of(
            f"{path}.allowedRoutes.namespaces.from", namespaces.from_ or "Same", NAMESPACES_FROM
        ),
        selector=tuple(_selector(f"{path}.allowedRoutes.namespaces.selector", namespaces.selector)),
    )


def _check_tls(path: str, protocol: str, tls: wire.ListenerTLS | None) -> None:
    if tls is None:
        return
    one_of(f"{path}.mode", tls.mode or TLS_MODES[0], TLS_MODES)
    if protocol == "HTTPS" and tls.mode == "Passthrough":
        raise FieldError(f"{path}.mode", "must be Terminate for protocol HTTPS")
    if tls.mode != "Passthrough" and not (tls.certificate_refs or tls.options):
        raise FieldError(f"{path}.certificateRefs", "is empty: required for mode Terminate")


def one_of(path: str, text: str, allowed: tuple[str, ...]) -> str:
    """Return a text that must be one of some words."""
    if text not in allowed:
        raise FieldError(path, f"{text!r} is not one of {', '.join(allowed)}")
    return text


def _certificate(path: str, reference: wire.SecretReference, namespace: str) -> SecretRef:
    where = reference.namespace
    return SecretRef(
        namespace_name(f"{path}.namespace", where) if where else namespace,
        required(f"{path}.name", reference.name),
        reference.group or "",
        reference.kind or "Secret",
    )


def _selector(path: str, selector: wire.LabelSelector | None) -> Iterator[Requirement]:
    if selector is None:
        return
    for key, value in sorted((selector.match_labels or {}).items()):
        yield Requirement(key, "In", (value,))
    for index, each in enumerate(selector.match_expressions or []):
        place = f"{path}.matchExpressions[{index}]"
        operator, values = one_of(f"{place}.operator", each.operator, OPERATORS), each.values or []
        if bool(values) is not (operator in ("In", "NotIn")):
            need = "must be empty" if values else "must not be empty"
            raise FieldError(f"{place}.values", f"{need} for operator {operator}")
        yield Requirement(each.key, operator, tuple(values))


def _check_unique(listeners: list[Listener]) -> None:
    """Check that listeners differ in their names, and in port, protocol and hostname together."""
    names: set[str] = set()
    places: dict[tuple[int, str, str], str] = {}
    for index, listener in enumerate(listeners):
        if listener.name in names:
            raise FieldError(f"spec.listeners[{index}].name", f"{listener.name!r} is a duplicate")
        names.add(listener.name)
        place = listener.port, listener.protocol, listener.hostname
        if place in places:
            message = f"has the port, protocol and hostname of listener {places[place]}"
            raise FieldError(f"spec.listeners[{index}]", message)
        places[place] = listener.name


def _addresses(entries: list[wire.GatewayAddress]) -> Iterator[tuple[str, str]]:
    check_length("spec.addresses", entries, ADDRESSES)
    yield from ((entry.type or "IPAddress", entry.value or "") for entry in entries)

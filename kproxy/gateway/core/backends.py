"""What a backendRef of a route leads to: a port of a Service, or the reason why it leads nowhere."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.gateway.core.attachment import FindService, Refusal
from kproxy.gatewayapi import (
    GROUP,
    BackendRef,
    Gateway,
    GatewayObjects,
    GrantFrom,
    GrantTo,
    Route,
    SecretRef,
)
from kproxy.model import NamespacedName, Protocol, Secret, Service, ServicePort

CERTIFICATE = {"tls.crt": b"-----BEGIN CERTIFICATE-----", "tls.key": b"PRIVATE KEY-----"}
"""The keys of a Secret with a certificate, and what their values contain."""
PROTOCOLS = {"UDPRoute": Protocol.UDP}
"""The protocol of the ports that routes of a kind lead to; TCP for others."""


class Target(NamedTuple):
    """A port of a Service."""

    service: Service
    port: ServicePort


def resolve(objects: GatewayObjects, find: FindService, route: Route, ref: BackendRef) -> Target | Refusal:
    """Return what a backendRef leads to."""
    if not ref.is_service:
        kind = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        return Refusal("InvalidKind", f"{kind} {ref.name} is not a Service")
    if not permitted(objects, route.kind, route.name.namespace, "", "Service", ref.name):
        message = f"no ReferenceGrant in namespace {ref.name.namespace} permits the reference to {ref}"
        return Refusal("RefNotPermitted", message)
    service = find(ref.name)
    if service is None:
        return Refusal("BackendNotFound", f"{ref} not found")
    if service.type == "ExternalName":
        return Refusal("BackendNotFound", f"{ref} is of type ExternalName, which has no endpoints")
    protocol = PROTOCOLS.get(route.kind, Protocol.TCP)
    for port in service.ports:
        if port.port == ref.port and port.protocol is protocol:
            return Target(service, port)
    return Refusal("BackendNotFound", f"{ref} has no port {ref.port}/{protocol}")


def certificate_of(objects: GatewayObjects, gateway: Gateway, ref: SecretRef) -> NamespacedName | Refusal:
    """Return the Secret that a certificateRef of a listener refers to."""
    if (ref.group, ref.kind) != ("", "Secret"):
        kind = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        return Refusal("InvalidCertificateRef", f"{kind} {ref.target} is not a Secret")
    if not permitted(objects, "Gateway", gateway.name.namespace, "", "Secret", ref.target):
        message = f"no ReferenceGrant in namespace {ref.namespace} permits the reference to {ref}"
        return Refusal("RefNotPermitted", message)
    return ref.target


def certificate_problem(name: NamespacedName, secret: Secret | None) -> str:
    """Return why a Secret has no certificate; "" if it looks as if it had one. OpenSSL looks closer."""
    if secret is None:
        return f"there is no Secret {name}"
    for key, begin in CERTIFICATE.items():
        if begin not in secret.data.get(key, b""):
            return f"Secret {name} has no {key} in PEM"
    return ""


def permitted(
    objects: GatewayObjects, kind: str, namespace: str, group: str, to_kind: str, target: NamespacedName
) -> bool:
    """Whether objects of a kind of the Gateway API in `namespace` may refer to `target`."""
    if namespace == target.namespace:
        return True
    granted = objects.granted.get((target.namespace, GrantFrom(GROUP, kind, namespace)), frozenset())
    return any(GrantTo(group, to_kind, name) in granted for name in ("", target.name))

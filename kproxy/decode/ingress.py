"""Ingress of all API versions -> model. The versions differ in the form of a backend and in defaults.

It refuses what the API server refuses, so every decoded rule can be applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address

from kproxy.decode import fields, wire
from kproxy.model import Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, IngressTLS

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
PATH_TYPES = ("Exact", "Prefix", "ImplementationSpecific")
NOT_IN_PATHS = re.compile(r"//|/\.\.?(/|$)|%2f", re.IGNORECASE)
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")

Backend = Callable[[str, wire.IngressBackend], IngressBackend]


def ingress_v1(source: str, obj: wire.Ingress, notes: fields.Notes) -> list[Ingress]:
    """Decode an Ingress of networking.k8s.io/v1."""
    return [_ingress(source, obj, notes, "spec.defaultBackend", obj.spec.default_backend, _backend, "")]


def ingress_beta(source: str, obj: wire.Ingress, notes: fields.Notes) -> list[Ingress]:
    """Decode an Ingress of networking.k8s.io/v1beta1 or extensions/v1beta1. Its pathType is optional."""
    default_type = PATH_TYPES[-1]
    return [_ingress(source, obj, notes, "spec.backend", obj.spec.backend, _backend_beta, default_type)]


def ingress_class(source: str, obj: wire.IngressClass, notes: fields.Notes) -> list[IngressClass]:
    """Decode an IngressClass of networking.k8s.io/v1 or v1beta1."""
    annotations = fields.text_map("metadata.annotations", obj.metadata.annotations, notes)
    if not (obj.spec and obj.spec.controller):
        raise fields.FieldError("spec.controller", "is missing")
    return [
        IngressClass(
            fields.object_name(obj.metadata).name,
            fields.origin(source, obj.metadata),
            obj.spec.controller,
            annotations.get(DEFAULT_CLASS) == "true",
        )
    ]


def _ingress(
    source: str,
    obj: wire.Ingress,
    notes: fields.Notes,
    default_path: str,
    default: wire.IngressBackend | None,
    backend: Backend,
    path_type: str,
) -> Ingress:
    spec, annotations = obj.spec, fields.text_map("metadata.annotations", obj.metadata.annotations, notes)
    if not spec.rules and default is None:
        raise fields.FieldError("spec.rules", f"is missing: either spec.rules or {default_path} is required")
    entries = (obj.status and obj.status.load_balancer and obj.status.load_balancer.ingress) or []
    return Ingress(
        name=fields.object_name(obj.metadata),
        origin=fields.origin(source, obj.metadata),
        class_name=spec.ingress_class_name or annotations.get(CLASS_ANNOTATION, ""),
        rules=tuple(
            _rule(f"spec.rules[{index}]", rule, backend, path_type)
            for index, rule in enumerate(spec.rules or [])
        ),
        default_backend=None if default is None else backend(default_path, default),
        tls=tuple(_tls(f"spec.tls[{index}]", tls) for index, tls in enumerate(spec.tls or [])),
        addresses=tuple(entry.ip or entry.hostname or "" for entry in entries),
        labels=fields.text_map("metadata.labels", obj.metadata.labels, notes),
    )


def _rule(path: str, rule: wire.IngressRule, backend: Backend, path_type: str) -> IngressRule:
    paths = rule.http.paths if rule.http else None
    if rule.http and not paths:
        raise fields.FieldError(f"{path}.http.paths", "is missing")
    return IngressRule(
        host_name(f"{path}.host", rule.host or ""),
        tuple(
            _path(f"{path}.http.paths[{index}]", entry, backend, path_type)
            for index, entry in enumerate(paths or [])
        ),
    )


def host_name(path: str, text: str) -> str:
    """Check a DNS name, whose first label may be `*`; "" is allowed, too."""
    if not text:
        return ""
    try:
        ip_address(text)
    except ValueError:
        pass
    else:
        raise fields.FieldError(path, f"{text} is an IP address: must be a DNS name")
    rest = text.removeprefix("*.")
    if not fields.SUBDOMAIN.fullmatch(rest) or len(text) > 253:
        raise fields.FieldError(path, f"{text!r} is not a host name: at most 253 {fields.SUBDOMAIN_RULE}")
    return text


def _path(path: str, entry: wire.IngressPath, backend: Backend, default_type: str) -> IngressPath:
    text, kind = entry.path or "", entry.path_type or default_type
    if not kind:
        raise fields.FieldError(f"{path}.pathType", "is missing")
    if kind not in PATH_TYPES:
        raise fields.FieldError(f"{path}.pathType", f"{kind!r} is not one of {', '.join(PATH_TYPES)}")
    specific = kind == PATH_TYPES[-1]
    if not text.startswith("/") and not (specific and not text):
        raise fields.FieldError(f"{path}.path", f"{text!r} must begin with /")
    if not specific and (wrong := NOT_IN_PATHS.search(text)):
        raise fields.FieldError(f"{path}.path", f"{text!r} must not contain {wrong[0]!r}")
    return IngressPath(text, kind, backend(f"{path}.backend", entry.backend))


def _backend(path: str, backend: wire.IngressBackend) -> IngressBackend:
    if (backend.service is None) is (backend.resource is None):
        raise fields.FieldError(path, "must have exactly one of service, resource")
    if backend.resource is not None:
        return _resource(f"{path}.resource", backend.resource)
    assert backend.service is not None
    name = _service_name(f"{path}.service.name", backend.service.name)
    port = backend.service.port or wire.IngressPort()
    if (port.name is None) is (port.number is None):
        raise fields.FieldError(f"{path}.service.port", "must have exactly one of name, number")
    if port.number is not None:
        return IngressBackend(name, fields.port_number(f"{path}.service.port.number", port.number))
    return IngressBackend(name, _port_name(f"{path}.service.port.name", port.name or ""))


def _backend_beta(path: str, backend: wire.IngressBackend) -> IngressBackend:
    if backend.resource is not None and backend.service_name is None:
        return _resource(f"{path}.resource", backend.resource)
    name, port = _service_name(f"{path}.serviceName", backend.service_name), backend.service_port
    if port is None:
        raise fields.FieldError(f"{path}.servicePort", "is missing")
    if isinstance(port, int):
        return IngressBackend(name, fields.port_number(f"{path}.servicePort", port))
    return IngressBackend(name, _port_name(f"{path}.servicePort", port))


def _resource(path: str, reference: wire.ObjectReference) -> IngressBackend:
    for key, text in (("kind", reference.kind), ("name", reference.name)):
        if not text:
            raise fields.FieldError(f"{path}.{key}", "is missing")
    return IngressBackend("", 0, f"{reference.kind}/{reference.name}", reference.api_group or "")


def _service_name(path: str, text: str | None) -> str:
    if not text:
        raise fields.FieldError(path, "is missing")
    if not fields.SUBDOMAIN.fullmatch(text) or len(text) > 253:
        raise fields.FieldError(path, f"{text!r} is not a valid Service name")
    return text


def _port_name(path: str, text: str) -> str:
    if not PORT_NAME.fullmatch(text) or len(text) > 15:
        raise fields.FieldError(path, f"{text!r} is neither a port number nor a valid port name")
    return text


def _tls(path: str, tls: wire.IngressTLS) -> IngressTLS:
    hosts = tuple(host_name(f"{path}.hosts[{index}]", host) for index, host in enumerate(tls.hosts or []))
    return IngressTLS(hosts, tls.secret_name or "")

"""Ingress -> model, of all API versions: they differ in how a backend is written and what may be missing.

What is refused is what the API server refuses, so that a rule that is here can be followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address

from kproxy.decode import wire
from kproxy.decode.fields import SUBDOMAIN, FieldError, object_name, origin, port_number
from kproxy.model import Ingress, IngressBackend, IngressPath, IngressRule, IngressTLS

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
PATH_TYPES = ("Exact", "Prefix", "ImplementationSpecific")
NOT_IN_PATHS = re.compile(r"//|/\.\.?(/|$)|%2f", re.IGNORECASE)
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")

Backend = Callable[[str, wire.IngressBackend], IngressBackend]


def ingress_v1(source: str, given: wire.Ingress) -> list[Ingress]:
    """An Ingress of networking.k8s.io/v1."""
    return [_ingress(source, given, "spec.defaultBackend", given.spec.default_backend, _backend, "")]


def ingress_beta(source: str, given: wire.Ingress) -> list[Ingress]:
    """An Ingress of networking.k8s.io/v1beta1 or extensions/v1beta1, where a path needs no type."""
    first = PATH_TYPES[-1]
    return [_ingress(source, given, "spec.backend", given.spec.backend, _backend_beta, first)]


def _ingress(
    source: str,
    given: wire.Ingress,
    default_path: str,
    default: wire.IngressBackend | None,
    backend: Backend,
    path_type: str,
) -> Ingress:
    spec, annotations = given.spec, given.metadata.annotations or {}
    if not spec.rules and default is None:
        raise FieldError("spec.rules", f"is missing, and so is {default_path}: one is needed")
    entries = (given.status and given.status.load_balancer and given.status.load_balancer.ingress) or []
    return Ingress(
        name=object_name(given.metadata),
        origin=origin(source, given.metadata),
        class_name=spec.ingress_class_name or annotations.get(CLASS_ANNOTATION, ""),
        rules=tuple(
            _rule(f"spec.rules[{index}]", rule, backend, path_type)
            for index, rule in enumerate(spec.rules or [])
        ),
        default_backend=None if default is None else backend(default_path, default),
        tls=tuple(_tls(f"spec.tls[{index}]", tls) for index, tls in enumerate(spec.tls or [])),
        addresses=tuple(entry.ip or entry.hostname or "" for entry in entries),
        labels=given.metadata.labels or {},
    )


def _rule(path: str, given: wire.IngressRule, backend: Backend, path_type: str) -> IngressRule:
    paths = given.http.paths if given.http else None
    if given.http and not paths:
        raise FieldError(f"{path}.http.paths", "is missing")
    return IngressRule(
        _host(f"{path}.host", given.host or ""),
        tuple(
            _path(f"{path}.http.paths[{index}]", entry, backend, path_type)
            for index, entry in enumerate(paths or [])
        ),
    )


def _host(path: str, text: str) -> str:
    """A name, or one whose first label is `*`; no address."""
    if not text:
        return ""
    try:
        ip_address(text)
    except ValueError:
        pass
    else:
        raise FieldError(path, f"{text} is an address: an Ingress needs a name")
    rest = text.removeprefix("*.")
    if not SUBDOMAIN.fullmatch(rest) or len(text) > 253:
        raise FieldError(path, f"{text!r} is not a name of a host: lower-case letters, digits, - and .")
    return text


def _path(path: str, given: wire.IngressPath, backend: Backend, default_type: str) -> IngressPath:
    text, kind = given.path or "", given.path_type or default_type
    if not kind:
        raise FieldError(f"{path}.pathType", "is missing")
    if kind not in PATH_TYPES:
        raise FieldError(f"{path}.pathType", f"{kind!r} is not one of {', '.join(PATH_TYPES)}")
    specific = kind == PATH_TYPES[-1]
    if not text.startswith("/") and not (specific and not text):
        raise FieldError(f"{path}.path", f"{text!r} does not begin with /")
    if not specific and (wrong := NOT_IN_PATHS.search(text)):
        raise FieldError(f"{path}.path", f"{text!r} has {wrong[0]!r} in it")
    return IngressPath(text, kind, backend(f"{path}.backend", given.backend))


def _backend(path: str, given: wire.IngressBackend) -> IngressBackend:
    if (given.service is None) is (given.resource is None):
        raise FieldError(path, "needs service or resource, and not both")
    if given.resource is not None:
        return _resource(f"{path}.resource", given.resource)
    assert given.service is not None
    name = _service_name(f"{path}.service.name", given.service.name)
    port = given.service.port or wire.IngressPort()
    if (port.name is None) is (port.number is None):
        raise FieldError(f"{path}.service.port", "needs name or number, and not both")
    if port.number is not None:
        return IngressBackend(name, port_number(f"{path}.service.port.number", port.number))
    return IngressBackend(name, _port_name(f"{path}.service.port.name", port.name or ""))


def _backend_beta(path: str, given: wire.IngressBackend) -> IngressBackend:
    if given.resource is not None and given.service_name is None:
        return _resource(f"{path}.resource", given.resource)
    name, port = _service_name(f"{path}.serviceName", given.service_name), given.service_port
    if port is None:
        raise FieldError(f"{path}.servicePort", "is missing")
    if isinstance(port, int):
        return IngressBackend(name, port_number(f"{path}.servicePort", port))
    return IngressBackend(name, _port_name(f"{path}.servicePort", port))


def _resource(path: str, given: wire.ObjectReference) -> IngressBackend:
    for key, text in (("kind", given.kind), ("name", given.name)):
        if not text:
            raise FieldError(f"{path}.{key}", "is missing")
    return IngressBackend("", 0, f"{given.kind}/{given.name}", given.api_group or "")


def _service_name(path: str, text: str | None) -> str:
    if not text:
        raise FieldError(path, "is missing")
    if not SUBDOMAIN.fullmatch(text):
        raise FieldError(path, f"{text!r} is not a Service's name")
    return text


def _port_name(path: str, text: str) -> str:
    if not PORT_NAME.fullmatch(text) or len(text) > 15:
        raise FieldError(path, f"{text!r} is neither a number nor a port's name")
    return text


def _tls(path: str, given: wire.IngressTLS) -> IngressTLS:
    hosts = tuple(_host(f"{path}.hosts[{index}]", host) for index, host in enumerate(given.hosts or []))
    return IngressTLS(hosts, given.secret_name or "")

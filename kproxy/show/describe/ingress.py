"""Describes an Ingress as `kubectl describe` does, and its invalid backends. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.model import Ingress, IngressBackend, NamespacedName, Service, ServicePort
from kproxy.show.describe.context import Context, annotation_lines, heading, section
from kproxy.show.tables import NONE, cut, sockets, table


def describe_ingress(ingress: Ingress, context: Context) -> str:
    """Return the description, with the endpoints of its backends, and problems of backends."""
    default = ingress.default_backend
    lines = [
        *heading(ingress.name, ingress.labels),
        ("Address:", ",".join(filter(None, ingress.addresses))),
        ("Ingress Class:", ingress.class_name or NONE),
        ("Default backend:", _backend(ingress, default, context) if default else "<default>"),
    ]
    text = table(lines, gap=2)
    if ingress.tls:
        ends = [f"{tls.secret or NONE} terminates {','.join(tls.hosts) or '*'}" for tls in ingress.tls]
        text += section("TLS", ends)
    rows = [("Host", "Path", "Backends"), ("----", "----", "--------")]
    for rule in ingress.rules:
        rows.append((rule.host or "*", "", ""))
        rows += (("", path.path, _backend(ingress, path.backend, context)) for path in rule.paths)
    text += section("Rules", table(rows if ingress.rules else [], gap=2))
    text += table(annotation_lines(ingress.annotations, context), gap=2)
    found = [*context.problems("Ingress", ingress.name), *_broken_backends(ingress, context)]
    return text + section("Problems", found)


def _backend(ingress: Ingress, backend: IngressBackend, context: Context) -> str:
    """Return for example `web:80 (10.0.0.1:8080,10.0.0.2:8080)`."""
    name = NamespacedName(ingress.name.namespace, backend.service)
    if backend.resource:
        return str(backend)
    if name not in context.services:
        return f'{backend} (<error: services "{name.name}" not found>)'
    port = backend_port(backend, context.services[name])
    return f"{backend} ({cut(sockets(context.slices(name), port)) if port else ''})"


def backend_port(backend: IngressBackend, service: Service) -> ServicePort | None:
    """Return the port of the service that a backend names; None if it has no such port."""
    return next((port for port in service.ports if backend.port in (port.port, port.name)), None)


def _broken_backends(ingress: Ingress, context: Context) -> Iterator[str]:
    """Return a sentence for each backend that is not an existing port of a Service."""
    found = [(f"{rule.host or '*'}{p.path}", p.backend) for rule in ingress.rules for p in rule.paths]
    if ingress.default_backend:
        found.insert(0, ("default backend", ingress.default_backend))
    for where, backend in found:
        name = NamespacedName(ingress.name.namespace, backend.service)
        if backend.resource:
            yield f"{where}: {backend} is not a Service"
        elif name not in context.services:
            yield f"{where}: Service {name} not found"
        elif backend_port(backend, context.services[name]) is None:
            ports = ", ".join(f"{port.port} {port.name}".strip() for port in context.services[name].ports)
            yield f"{where}: Service {name} has no port {backend.port} (ports: {ports or NONE})"

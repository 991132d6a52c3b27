"""One object at length, as `kubectl describe` shows it, and what kproxy alone knows of it.

The latter comes last: the frontends of a service with what each leads to, and what is wrong
with it. Pure, like views.py, whose cells these are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kproxy.model import (
    Backends,
    Frontend,
    Ingress,
    IngressBackend,
    NamespacedName,
    Pod,
    Service,
    ServicePort,
    format_address,
    format_socket,
)
from kproxy.standalone.endpoints import PodIndex, resolve_ports
from kproxy.standalone.manifests import affinity, policy
from kproxy.standalone.snapshot import Snapshot
from kproxy.standalone.views import (
    FAMILY_NAMES,
    NONE,
    UNSET,
    EndpointsView,
    Objects,
    balancer,
    cluster_ip,
    cut,
    labels,
    sockets,
    table,
)

SHOWN = 10
"""Endpoints of a frontend that are named."""


class Context(NamedTuple):
    """All that there is, for what an object has to do with others."""

    given: Snapshot
    objects: Objects
    now: float
    """Seconds of the Unix epoch."""

    def problems(self, kind: str, name: NamespacedName) -> list[str]:
        """Those of one object, without its name."""
        own = f"{kind} {name}"
        return [str(p._replace(object="")) for p in self.given.problems if p.object == own]

    def failures(self, kind: str, name: NamespacedName) -> list[tuple[str, str]]:
        """When, and what could not be done with one object, or at all."""
        return [(f.time, f.message) for f in self.given.last_errors if f.object in (f"{kind} {name}", "")]


def describe_service(service: Service, context: Context) -> str:
    """With its frontends on this node."""
    objects = context.objects
    lines = [*_identity(service), *_ports(service, objects), *_policies(service)]
    mine = [row for f in context.given.frontends if f.owner.service == service.name for row in _frontend(f)]
    found = [*context.problems("Service", service.name), *_unselected(service, objects)]
    failed = table(context.failures("Service", service.name), gap=2)
    return (
        table(lines, gap=2)
        + section("Frontends", table(mine, gap=2))
        + section("Problems", found)
        + (section("Last Errors", failed) if failed else "")
    )


def section(title: str, content: str | list[str]) -> str:
    """Lines with a title over them; if there are none, that."""
    lines = content.splitlines() if isinstance(content, str) else content
    return f"{title}:\n" + "".join(f"  {line}\n" for line in lines or [NONE])


def heading(name: NamespacedName, own: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What every object begins with."""
    yield "Name:", name.name
    yield "Namespace:", name.namespace
    yield "Labels:", labels(own)


def _identity(service: Service) -> Iterator[tuple[str, str]]:
    addresses = ["None"] if service.headless else [format_address(ip) for ip in service.cluster_ips]
    yield from heading(service.name, service.labels)
    yield "Selector:", labels(service.selector)
    yield "Type:", service.type
    if service.family_policy or service.wants_cluster_ip:
        yield "IP Family Policy:", service.family_policy or "SingleStack"
    yield "IP Families:", ",".join(FAMILY_NAMES[family] for family in service.families) or NONE
    yield "IP:", cluster_ip(service)
    yield "IPs:", ",".join(addresses) or NONE
    if service.external_ips:
        yield "External IPs:", ",".join(map(format_address, service.external_ips))
    if service.external_name:
        yield "External Name:", service.external_name
    if service.load_balancer_ip:
        yield "Desired LoadBalancer IP:", service.load_balancer_ip
    if balancer(service):
        yield "LoadBalancer Ingress:", ", ".join(balancer(service))


def _ports(service: Service, objects: Objects) -> Iterator[tuple[str, str]]:
    slices = [slice_ for slice_ in objects.slices if slice_.service == service.name]
    for port in service.ports:
        protocol, name = port.protocol.upper(), port.name or UNSET
        yield "Port:", f"{name}  {port.port}/{protocol}"
        yield "TargetPort:", f"{port.target_port}/{protocol}"
        if port.node_port:
            yield "NodePort:", f"{name}  {port.node_port}/{protocol}"
        yield "Endpoints:", cut(sockets(slices, port)) or NONE
        if unready := sockets(slices, port, ready=False):
            yield "Not Ready:", cut(unready)


def _policies(service: Service) -> Iterator[tuple[str, str]]:
    yield "Session Affinity:", affinity(service)
    if service.type in ("NodePort", "LoadBalancer") or service.external_local:
        yield "External Traffic Policy:", policy(service.external_local)
    if service.type != "ExternalName":
        yield "Internal Traffic Policy:", policy(service.internal_local)
    if service.distribution:
        yield "Traffic Distribution:", service.distribution
    if service.health_check_node_port:
        yield "HealthCheck NodePort:", str(service.health_check_node_port)
    if service.source_ranges:
        yield "LoadBalancer Source Ranges:", ",".join(map(str, service.source_ranges))


def _frontend(frontend: Frontend) -> Iterator[tuple[str, str, str]]:
    hashed = frontend.balance.startswith("hash")
    yield str(frontend), frontend.kind, leads_to(frontend.backends, hashed)
    if frontend.from_outside is not None:
        yield str(frontend), "from outside", leads_to(frontend.from_outside, hashed)


def leads_to(backends: Backends, hashed: bool = False) -> str:
    """The endpoints, those that weigh more with how much (a hash's table does not tell); or what happens."""
    if not backends.endpoints:
        return "dropped: no endpoint on this node" if backends.elsewhere else "refused: no endpoint"
    counts = sorted(Counter(backends.endpoints).items())
    weighted = [
        (f"{format_socket(*at)} x{n}" if n > 1 and not hashed else format_socket(*at)) for at, n in counts
    ]
    return cut(weighted, SHOWN)


def _unselected(service: Service, objects: Objects) -> Iterator[str]:
    """Why a selector leads to fewer endpoints than its author thinks."""
    if not service.selector or service.type == "ExternalName" or service.name in objects.given:
        return
    namespace = service.name.namespace
    pods = PodIndex(objects.pods).select(namespace, service.selector)
    if not pods:
        yield f"spec.selector: no pod of namespace {namespace} has the labels {labels(service.selector)}"
    for port in service.ports:
        lacking = [pod for pod in pods if not _has_port(service, pod, port.name)]
        if lacking:
            yield f"targetPort {port.target_port}: there is no such container port in {_names(lacking)}"
    addressless = [pod for pod in pods if not pod.addresses]
    if addressless:
        yield f"status.podIPs: there is no address of {_names(addressless)}"


def _has_port(service: Service, pod: Pod, name: str) -> bool:
    return any(port.name == name for port in resolve_ports(service, pod))


def _names(pods: Iterable[Pod]) -> str:
    return f"Pod {cut([pod.name.name for pod in sorted(pods, key=lambda pod: pod.name)])}"


def describe_endpoints(view: EndpointsView, context: Context) -> str:
    """Subsets as in an Endpoints object: one for each list of ports."""
    text = table(heading(view.name, view.labels), gap=2) + "Subsets:\n"
    for slice_ in view.slices:
        if not slice_.endpoints:
            continue
        by_readiness = {
            ready: ",".join(format_address(e.address) for e in slice_.endpoints if e.ready is ready) or NONE
            for ready in (True, False)
        }
        lines = [("Addresses:", by_readiness[True]), ("NotReadyAddresses:", by_readiness[False])]
        ports = [(port.name or UNSET, str(port.port), port.protocol.upper()) for port in slice_.ports]
        titles = [("Name", "Port", "Protocol"), ("----", "----", "--------")]
        text += indented(table(lines, gap=2), 2) + "  Ports:\n"
        text += indented(table([*titles, *ports], gap=2), 4) + "\n"
    return text + section("Problems", context.problems("Endpoints", view.name))


def indented(text: str, by: int) -> str:
    """Each line so many blanks further to the right."""
    return "".join(" " * by + line for line in text.splitlines(keepends=True))


def describe_ingress(ingress: Ingress, context: Context) -> str:
    """With the endpoints that its backends have, and the backends that there are not."""
    services = {service.name: service for service in context.objects.services}
    default = ingress.default_backend
    lines = [
        *heading(ingress.name, ingress.labels),
        ("Address:", ",".join(filter(None, ingress.addresses))),
        ("Ingress Class:", ingress.class_name or NONE),
        ("Default backend:", _backend(ingress, default, services, context) if default else "<default>"),
    ]
    text = table(lines, gap=2)
    if ingress.tls:
        ends = [f"{tls.secret or NONE} terminates {','.join(tls.hosts) or '*'}" for tls in ingress.tls]
        text += section("TLS", ends)
    rows = [("Host", "Path", "Backends"), ("----", "----", "--------")]
    for rule in ingress.rules:
        rows.append((rule.host or "*", "", ""))
        rows += (("", path.path, _backend(ingress, path.backend, services, context)) for path in rule.paths)
    text += section("Rules", table(rows if ingress.rules else [], gap=2))
    found = [*context.problems("Ingress", ingress.name), *_broken_backends(ingress, services)]
    return text + section("Problems", found)


def _backend(
    ingress: Ingress,
    backend: IngressBackend,
    services: Mapping[NamespacedName, Service],
    context: Context,
) -> str:
    """`web:80 (10.0.0.1:8080,10.0.0.2:8080)`."""
    name = NamespacedName(ingress.name.namespace, backend.service)
    if backend.resource:
        return str(backend)
    if name not in services:
        return f'{backend} (<error: services "{name.name}" not found>)'
    port = backend_port(backend, services[name])
    slices = [slice_ for slice_ in context.objects.slices if slice_.service == name]
    return f"{backend} ({cut(sockets(slices, port)) if port else ''})"


def backend_port(backend: IngressBackend, service: Service) -> ServicePort | None:
    """The port of the service that a backend names."""
    return next((port for port in service.ports if backend.port in (port.port, port.name)), None)


def _broken_backends(ingress: Ingress, services: Mapping[NamespacedName, Service]) -> Iterator[str]:
    """Backends that lead nowhere."""
    found = [(f"{rule.host or '*'}{p.path}", p.backend) for rule in ingress.rules for p in rule.paths]
    if ingress.default_backend:
        found.insert(0, ("default backend", ingress.default_backend))
    for where, backend in found:
        name = NamespacedName(ingress.name.namespace, backend.service)
        if backend.resource:
            yield f"{where}: {backend} is no Service"
        elif name not in services:
            yield f"{where}: there is no Service {name}"
        elif backend_port(backend, services[name]) is None:
            ports = " or ".join(f"{port.port} {port.name}".strip() for port in services[name].ports)
            yield f"{where}: Service {name} has no port {backend.port}, but {ports or 'none at all'}"

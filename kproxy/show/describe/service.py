"""Describes a Service as `kubectl describe service` does, and then what only kproxy knows of it.

That is its frontends on this node with their endpoints, and its problems. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kproxy.dns.core.master import presentation
from kproxy.dns.core.names import name_of, text_of
from kproxy.dns.core.records import Type, is_endpoint, service_records
from kproxy.model import Backends, Frontend, Service, format_address, format_socket
from kproxy.probes.core.readiness import not_ready_reason
from kproxy.show.describe.context import Context, annotation_lines, heading, section
from kproxy.show.describe.events import event_table, events_section
from kproxy.show.manifests import affinity, policy
from kproxy.show.snapshot import HeldFrontend
from kproxy.show.tables import FAMILY_NAMES, NONE, UNSET, balancer, cluster_ip, cut, labels, sockets, table

SHOWN = 10
"""The maximum number of endpoints of a frontend to show."""


def describe_service(service: Service, context: Context) -> str:
    """Return the description."""
    lines = [*_identity(service, context), *_ports(service, context), *_policies(service)]
    events = event_table(context.snapshot.events.get(service.name, ()), context.now)
    frontends = [row for frontend in context.frontends(service.name) for row in _frontend(frontend)]
    held = [_held(frontend) for frontend in context.held_frontends(service.name)]
    unready = table(_unready(service, context), gap=2)
    names = table(_names(service, context), gap=2)
    errors = table(context.failures("Service", service.name), gap=2)
    return (
        table(lines if events else [*lines, ("Events:", NONE)], gap=2)
        + (events_section(events) if events else "")
        + section("Frontends", table(frontends, gap=2))
        + (section("Held Frontends", table(held, gap=2)) if held else "")
        + (section("Pods Not Ready", unready) if unready else "")
        + (section("DNS", names) if names else "")
        + section("Problems", context.problems("Service", service.name))
        + (section("Last Errors", errors) if errors else "")
    )


def _identity(service: Service, context: Context) -> Iterator[tuple[str, str]]:
    addresses = ["None"] if service.headless else [format_address(ip) for ip in service.cluster_ips]
    yield from heading(service.name, service.labels)
    yield from annotation_lines(service.annotations, context)
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


def _ports(service: Service, context: Context) -> Iterator[tuple[str, str]]:
    slices = context.slices(service.name)
    for port in service.ports:
        protocol, name = port.protocol.upper(), port.name or UNSET
        yield "Port:", f"{name}  {port.port}/{protocol}"
        yield "TargetPort:", f"{port.target_port}/{protocol}"
        if port.node_port:
            yield "NodePort:", f"{name}  {port.node_port}/{protocol}"
        yield "Endpoints:", cut(sockets(slices, port)) or context.no_endpoints(service)
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


def _held(frontend: HeldFrontend) -> tuple[str, str]:
    side = " from outside" if frontend.from_outside else ""
    return f"{frontend}{side}", cut([format_socket(*each) for each in frontend.endpoints], SHOWN) or NONE


def leads_to(backends: Backends, hashed: bool = False) -> str:
    """Return the endpoints (without a hash, with weights above 1), or what happens to packets."""
    if not backends.endpoints:
        return "dropped: no endpoint on this node" if backends.elsewhere else "refused: no endpoint"
    counts = sorted(Counter(backends.endpoints).items())
    weighted = [
        (f"{format_socket(*at)} x{n}" if n > 1 and not hashed else format_socket(*at)) for at, n in counts
    ]
    return cut(weighted, SHOWN)


def _names(service: Service, context: Context) -> Iterator[tuple[str, str, str]]:
    """Return the DNS names of the Service and of its ports, with type and data."""
    domain = name_of(context.snapshot.cluster_domain)
    if domain is None:
        return
    for found in service_records(service, context.slices(service.name), domain):
        data = list(dict.fromkeys(_data(found.type, each) for each in found.data))
        if found.type is not Type.PTR and not is_endpoint(found.name, service, domain):
            yield text_of(found.name).removesuffix("."), found.type.name, cut(data, SHOWN)


def _data(kind: Type, data: bytes) -> str:
    """Return an address or a name; of SRV records only the port, since their targets have the same names."""
    text = presentation(kind, data).removesuffix(".")
    return f"port {text.split()[2]}" if kind is Type.SRV else text


def _unready(service: Service, context: Context) -> Iterator[tuple[str, str]]:
    """Return the selected pods that are not ready, and why."""
    for pod in sorted(context.selected(service), key=lambda pod: pod.name):
        found = (context.inventory.readiness or {}).get(pod.name)
        if pod.terminating:
            yield pod.name.name, "terminating"
        elif not pod.ready:
            yield pod.name.name, not_ready_reason(found) if found else "condition Ready is not True"

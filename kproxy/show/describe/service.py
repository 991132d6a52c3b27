"""One object at length, as `kubectl describe` shows it, and what kproxy alone knows of it.

The latter comes last: the frontends of a service with what each leads to, and what is wrong
with it. Pure, like views.py, whose cells these are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from kproxy.controlplane.slices import PodIndex, selects
from kproxy.model import (
    Backends,
    EndpointSlice,
    Frontend,
    NamespacedName,
    Pod,
    Service,
    format_address,
    format_socket,
)
from kproxy.probes.core.readiness import why_not
from kproxy.show.manifests import affinity, policy
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import (
    FAMILY_NAMES,
    NONE,
    UNSET,
    EndpointsView,
    balancer,
    cluster_ip,
    cut,
    labels,
    objects,
    sockets,
    table,
)

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

SHOWN = 10
"""Endpoints of a frontend that are named."""
PORTS = (("Name", "Port", "Protocol"), ("----", "----", "--------"))


class Context:
    """All that there is, and by service, for what an object has to do with others."""

    def __init__(self, given: Snapshot, now: float) -> None:
        """`now` in seconds of the Unix epoch."""
        self.given = given
        self.now = now
        self.objects = objects(given)
        self.services = {service.name: service for service in self.objects.services}
        self._frontends = _grouped(given.frontends, lambda frontend: frontend.owner.service)
        self._slices = _grouped(self.objects.slices, lambda slice_: slice_.service)
        self._problems = _grouped((*given.problems, *given.warnings), lambda problem: problem.object)
        self._pods = PodIndex(self.objects.pods)

    def frontends(self, service: NamespacedName) -> list[Frontend]:
        """Those of a service on this node."""
        return self._frontends.get(service, [])

    def slices(self, service: NamespacedName) -> list[EndpointSlice]:
        """Those of a service."""
        return self._slices.get(service, [])

    def selected(self, service: Service) -> list[Pod]:
        """The pods that it selects; it has a selector."""
        return self._pods.select(service.name.namespace, service.selector)

    def problems(self, kind: str, name: NamespacedName) -> list[str]:
        """Those of one object, without its name; warnings, too."""
        return [str(problem._replace(object="")) for problem in self._problems.get(f"{kind} {name}", [])]

    def failures(self, kind: str, name: NamespacedName) -> list[tuple[str, str]]:
        """When, and what could not be done with one object, or at all."""
        return [(f.time, f.message) for f in self.given.last_errors if f.object in (f"{kind} {name}", "")]


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def describe_service(service: Service, context: Context) -> str:
    """With its frontends on this node."""
    slices = context.slices(service.name)
    lines = [*_identity(service), *_ports(service, slices), *_policies(service)]
    mine = [row for frontend in context.frontends(service.name) for row in _frontend(frontend)]
    waiting = table(_unready(service, context), gap=2)
    failed = table(context.failures("Service", service.name), gap=2)
    return (
        table(lines, gap=2)
        + section("Frontends", table(mine, gap=2))
        + (section("Pods Not Ready", waiting) if waiting else "")
        + section("Problems", context.problems("Service", service.name))
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


def _ports(service: Service, slices: Iterable[EndpointSlice]) -> Iterator[tuple[str, str]]:
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


def _unready(service: Service, context: Context) -> Iterator[tuple[str, str]]:
    """The pods of its selector that are not ready, and why."""
    if service.name in context.objects.given or not selects(service):
        return
    for pod in sorted(context.selected(service), key=lambda pod: pod.name):
        found = (context.given.readiness or {}).get(pod.name)
        if pod.terminating:
            yield pod.name.name, "terminating"
        elif not pod.ready:
            yield pod.name.name, why_not(found) if found else "its condition Ready is not True"


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
        text += indented(table(lines, gap=2), 2) + "  Ports:\n"
        text += indented(table([*PORTS, *ports], gap=2), 4) + "\n"
    return text + section("Problems", context.problems("Endpoints", view.name))


def indented(text: str, by: int) -> str:
    """Each line so many blanks further to the right."""
    return "".join(" " * by + line for line in text.splitlines(keepends=True))

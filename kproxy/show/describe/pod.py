"""A pod at length, as `kubectl describe pod` shows it: what its probes found, and which services it is in.

Where no kproxy runs nobody has probed it, and that is said, not made up. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.model import Container, EndpointSlice, GRPCAction, Pod, format_address, format_socket
from kproxy.probes.core.readiness import Event, PodReadiness, describe_probe, supported_probes
from kproxy.show.describe.context import Context, annotation_lines, heading, indented, section
from kproxy.show.tables import NONE, UNKNOWN, cut, duration, table

SHOWN = 10
"""Sockets of a service that are named."""
FROM = "kproxy"


def describe_pod(pod: Pod, context: Context) -> str:
    """With the services that select it, and why it is not in one of them."""
    found = (context.inventory.readiness or {}).get(pod.name)
    addresses = [format_address(address) for address in pod.addresses]
    lines = [
        *heading(pod.name, pod.labels),
        *annotation_lines(pod.annotations, context),
        ("Node:", pod.node or NONE),
        ("Status:", "Terminating" if pod.terminating else pod.phase or UNKNOWN),
        ("IP:", addresses[0] if addresses else NONE),
        ("IPs:", ",".join(addresses) or NONE),
    ]
    containers = "".join(_container(container, pod, found) for container in pod.containers)
    conditions = [("Type", "Status"), ("----", "------"), ("Ready", str(pod.ready))]
    return (
        table(lines, gap=2)
        + section("Containers", containers)
        + section("Conditions", table(conditions, gap=2))
        + section("Services", table(_services(pod, context), gap=2))
        + section("Events", _events(pod, found, context))
        + section("Problems", context.problems("Pod", pod.name))
    )


def _container(container: Container, pod: Pod, found: PodReadiness | None) -> str:
    lines = [("Image:", container.image or NONE)]
    ports = [f"{port.port}/{port.protocol.upper()}" for port in container.ports]
    named = [f"{p} ({port.name})" if port.name else p for p, port in zip(ports, container.ports, strict=True)]
    lines.append(("Ports:" if len(named) > 1 else "Port:", ", ".join(named) or NONE))
    lines.append(("Ready:", _ready(container, pod, found)))
    if container.probe:
        is_made = not isinstance(container.probe.action, GRPCAction)
        note = "" if is_made else " (not supported: counts as ready)"
        lines.append(("Readiness:", describe_probe(container.probe) + note))
    return f"{container.name or UNKNOWN}:\n" + indented(table(lines, gap=2), 2)


def _ready(container: Container, pod: Pod, found: PodReadiness | None) -> str:
    """As it was found; else what its pod's readiness says of it."""
    if found is not None:
        return str(all(each.ready for each in found.containers if each.name == container.name))
    return str(pod.ready) if pod.ready or len(pod.containers) == 1 else UNKNOWN


def _services(pod: Pod, context: Context) -> Iterator[tuple[str, str]]:
    for service in context.objects.services:
        if service.name.namespace != pod.name.namespace:
            continue
        slices = context.slices(service.name)
        sockets = [socket for slice_ in slices for socket in _sockets(pod, slice_, service.headless)]
        selected = context.counts_selector(service) and service.selector.items() <= pod.labels.items()
        if usable := [text for text, ready in sockets if ready]:
            yield service.name.name, cut(usable, SHOWN)
        elif sockets or selected:
            yield service.name.name, f"not in it: {_why_not(pod)}"


def _sockets(pod: Pod, slice_: EndpointSlice, headless: bool) -> Iterator[tuple[str, bool]]:
    """Those of the pod, each with whether it is used; one without a port is, by name only."""
    for endpoint in slice_.endpoints:
        if endpoint.address in pod.addresses and endpoint.pod in ("", pod.name.name):
            for port in slice_.ports:
                yield format_socket(endpoint.address, port.port), endpoint.ready
            if not slice_.ports:
                yield format_address(endpoint.address), endpoint.ready and headless


def _why_not(pod: Pod) -> str:
    if not pod.addresses:
        return "no address"
    if pod.terminating:
        return "terminating, used where no other is ready" if pod.ready else "terminating"
    return "no port of that name, or no address of its families" if pod.ready else "not ready"


def _events(pod: Pod, found: PodReadiness | None, context: Context) -> str:
    """As kubectl shows them; or who has not probed it."""
    if not any(supported_probes(pod)):
        return ""
    if context.inventory.readiness is None:
        return "not probed: no kproxy run\n"
    if found is None:
        return f"not probed by node {context.snapshot.node.name}: the pod is on node {pod.node or NONE}\n"
    events = sorted((event for each in found.containers for event in each.events), key=lambda e: e.last)
    if not events:
        return ""
    titles = ("Type", "Reason", "Age", "From", "Message")
    rows = [titles, tuple("-" * len(title) for title in titles)]
    rows += (("Warning", event.reason, _age(event, context.now), FROM, event.message) for event in events)
    return table(rows, gap=2)


def _age(event: Event, now: float) -> str:
    """`98s (x61 over 11m)`: since the last one, and how many there were since the first."""
    last = duration(max(0, int(now - event.last)))
    return last if event.count == 1 else f"{last} (x{event.count} over {duration(int(now - event.first))})"

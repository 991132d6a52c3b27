"""Describes a pod as `kubectl describe pod` does, with the results of its probes, and its services.

If no kproxy runs, the description says that the pod is not probed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.model import Container, EndpointSlice, GRPCAction, Pod, family_of, format_address, format_socket
from kproxy.printable import printable
from kproxy.probes.core.readiness import PodReadiness, describe_probe, supported_probes
from kproxy.show.describe.context import Context, annotation_lines, heading, indented, section
from kproxy.show.describe.events import event_table, events_section
from kproxy.show.tables import NONE, UNKNOWN, cut, status_of, table

HAIRPIN = "reaches itself through a Service only with --bridge-hairpin"
SHOWN = 10
"""The maximum number of sockets to show."""


def describe_pod(pod: Pod, context: Context) -> str:
    """Return the description. It explains why a pod is not an endpoint of a service that selects it."""
    found = (context.inventory.readiness or {}).get(pod.name)
    addresses = [format_address(address) for address in pod.addresses]
    lines = [
        *heading(pod.name, pod.labels),
        *annotation_lines(pod.annotations, context),
        ("Node:", pod.node or NONE),
        ("Status:", status_of(pod)),
        ("IP:", addresses[0] if addresses else NONE),
        ("IPs:", ",".join(addresses) or NONE),
        *_bridge(pod, context),
    ]
    containers = "".join(_container(container, pod, found) for container in pod.containers)
    conditions = [("Type", "Status"), ("----", "------"), ("Ready", str(pod.ready))]
    return (
        table(lines, gap=2)
        + section("Containers", containers)
        + section("Conditions", table(conditions, gap=2))
        + section("Services", table(_services(pod, context), gap=2))
        + events_section(_events(pod, found, context))
        + section("Problems", context.problems("Pod", pod.name))
    )


def _bridge(pod: Pod, context: Context) -> Iterator[tuple[str, str]]:
    """Return the bridge of this node to which a pod is connected, and whether it needs hairpin there."""
    for bridge in context.snapshot.options.bridges:
        found = [each for each in pod.addresses if bridge.connects(bridge.name, each)]
        if found and not pod.host_network:
            needs = any(family_of(address) in bridge.filtered for address in found)
            yield "Bridge:", f"{bridge.name} ({HAIRPIN})" if needs else bridge.name


def _container(container: Container, pod: Pod, found: PodReadiness | None) -> str:
    image, ports, *probe = container_lines(container)
    lines = [image, ports, ("Ready:", _ready(container, pod, found)), *probe]
    return f"{printable(container.name) or UNKNOWN}:\n" + indented(table(lines, gap=2), 2)


def container_lines(container: Container) -> list[tuple[str, str]]:
    """Return the lines of a container in a manifest: its image, its ports, and its readiness probe."""
    lines = [("Image:", container.image or NONE)]
    ports = [f"{port.port}/{port.protocol.upper()}" for port in container.ports]
    named = [f"{p} ({port.name})" if port.name else p for p, port in zip(ports, container.ports, strict=True)]
    lines.append(("Ports:" if len(named) > 1 else "Port:", ", ".join(named) or NONE))
    if container.probe:
        is_made = not isinstance(container.probe.action, GRPCAction)
        note = "" if is_made else " (not supported: counts as ready)"
        lines.append(("Readiness:", describe_probe(container.probe) + note))
    return lines


def _ready(container: Container, pod: Pod, found: PodReadiness | None) -> str:
    """Return the result of the probes; without probes, what follows from the readiness of the pod."""
    if found is not None:
        return str(all(each.ready for each in found.containers if each.name == container.name))
    return str(pod.ready) if pod.ready or len(pod.containers) == 1 else UNKNOWN


def _services(pod: Pod, context: Context) -> Iterator[tuple[str, str]]:
    for service in context.objects.services:
        if service.name.namespace != pod.name.namespace:
            continue
        slices = context.slices(service.name)
        sockets = [socket for slice_ in slices for socket in _sockets(pod, slice_, service.headless)]
        selected = context.uses_selector(service) and service.selector.items() <= pod.labels.items()
        if usable := [text for text, ready in sockets if ready]:
            yield service.name.name, cut(usable, SHOWN)
        elif sockets or selected:
            yield service.name.name, f"not an endpoint: {_why_not(pod)}"


def _sockets(pod: Pod, slice_: EndpointSlice, headless: bool) -> Iterator[tuple[str, bool]]:
    """Return the sockets of the pod in a slice, and whether they are used.

    An endpoint without ports is used only for the names of a headless service.
    """
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
        return "terminating; used only if no other pod is ready" if pod.ready else "terminating"
    return "no port with that name, or no address of the Service's families" if pod.ready else "not ready"


def _events(pod: Pod, found: PodReadiness | None, context: Context) -> str:
    """Return the events as kubectl shows them, or why the pod is not probed."""
    if not any(supported_probes(pod)):
        return ""
    if context.inventory.readiness is None:
        return "not probed: kproxy is not running\n"
    if found is None:
        node = printable(pod.node) or NONE
        return f"not probed by node {context.snapshot.node.name}: the pod is on node {node}\n"
    return event_table((event for each in found.containers for event in each.events), context.now)

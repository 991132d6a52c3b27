"""Describes Endpoints and EndpointSlices as `kubectl describe` does. Pure."""

from __future__ import annotations

from kproxy.model import Endpoint, EndpointSlice, NamespacedName, format_address
from kproxy.show.describe.context import Context, annotation_lines, heading, indented, section
from kproxy.show.describe.events import event_table, events_section
from kproxy.show.manifests import slice_labels
from kproxy.show.tables import FAMILY_NAMES, NONE, UNFOLLOWED, UNSET, EndpointsView, table

PORTS = (("Name", "Port", "Protocol"), ("----", "----", "--------"))


def describe_endpoints(view: EndpointsView, context: Context) -> str:
    """Return the description, with a subset for each list of ports, as in an Endpoints object."""
    subsets = "".join(_subset(slice_) for slice_ in view.slices if slice_.endpoints)
    if not view.followed and not subsets:
        subsets = f"  {UNFOLLOWED}\n"
    lines = [*heading(view.name, view.labels), *annotation_lines(view.annotations, context)]
    text = table(lines, gap=2) + "Subsets:\n" + subsets
    events = event_table(context.snapshot.events.get(view.name, ()), context.now)
    return text + events_section(events) + section("Problems", context.problems("Endpoints", view.name))


def _subset(slice_: EndpointSlice) -> str:
    by_readiness = {
        ready: ",".join(format_address(e.address) for e in slice_.endpoints if e.ready is ready) or NONE
        for ready in (True, False)
    }
    lines = [("Addresses:", by_readiness[True]), ("NotReadyAddresses:", by_readiness[False])]
    return indented(table(lines, gap=2), 2) + "  Ports:\n" + _ports(slice_, 4) + "\n"


def _ports(slice_: EndpointSlice, indent: int) -> str:
    ports = [(port.name or UNSET, str(port.port), port.protocol.upper()) for port in slice_.ports]
    return indented(table([*PORTS, *ports], gap=2), indent)


def describe_slice(slice_: EndpointSlice, context: Context) -> str:
    """Return the description. Its endpoints have the fields that kproxy reads."""
    name = NamespacedName(slice_.service.namespace, slice_.name)
    lines = [
        *heading(name, slice_labels(slice_)),
        *annotation_lines(slice_.annotations, context),
        ("AddressType:", FAMILY_NAMES[slice_.family]),
    ]
    ports = "Ports:\n" + _ports(slice_, 2) if slice_.ports else f"Ports: {UNSET}\n"
    members = "".join(_endpoint(endpoint) for endpoint in slice_.endpoints)
    endpoints = "Endpoints:\n" + members if members else f"Endpoints: {NONE}\n"
    problems = section("Problems", context.problems("EndpointSlice", name))
    return table(lines, gap=2) + ports + endpoints + problems


def _endpoint(endpoint: Endpoint) -> str:
    """Describe an endpoint. Serving and Terminating are shown only if they cannot be concluded from Ready."""
    conditions = [("Ready:", _word(endpoint.ready))]
    if endpoint.terminating or endpoint.serving is not endpoint.ready:
        conditions += [("Serving:", _word(endpoint.serving)), ("Terminating:", _word(endpoint.terminating))]
    hints = {"ForNodes:": endpoint.for_nodes, "ForZones:": endpoint.for_zones}
    lines = [
        *((f"  {title}", word) for title, word in conditions),
        *([("TargetRef:", f"Pod/{endpoint.pod}")] if endpoint.pod else []),
        ("NodeName:", endpoint.node or UNSET),
        *((title, ",".join(names)) for title, names in hints.items() if names),
    ]
    first = f"  - Addresses:  {format_address(endpoint.address)}\n    Conditions:\n"
    return first + indented(table(lines, gap=2), 4)


def _word(value: bool) -> str:
    return str(value).lower()

"""The endpoints of a service at length, as `kubectl describe endpoints` shows them. Pure."""

from __future__ import annotations

from kproxy.model import EndpointSlice, format_address
from kproxy.show.describe.context import Context, heading, indented, section
from kproxy.show.tables import NONE, UNFOLLOWED, UNSET, EndpointsView, table

PORTS = (("Name", "Port", "Protocol"), ("----", "----", "--------"))


def describe_endpoints(view: EndpointsView, context: Context) -> str:
    """Subsets as in an Endpoints object: one for each list of ports."""
    subsets = "".join(_subset(slice_) for slice_ in view.slices if slice_.endpoints)
    if not view.followed and not subsets:
        subsets = f"  {UNFOLLOWED}\n"
    text = table(heading(view.name, view.labels), gap=2) + "Subsets:\n" + subsets
    return text + section("Problems", context.problems("Endpoints", view.name))


def _subset(slice_: EndpointSlice) -> str:
    by_readiness = {
        ready: ",".join(format_address(e.address) for e in slice_.endpoints if e.ready is ready) or NONE
        for ready in (True, False)
    }
    lines = [("Addresses:", by_readiness[True]), ("NotReadyAddresses:", by_readiness[False])]
    ports = [(port.name or UNSET, str(port.port), port.protocol.upper()) for port in slice_.ports]
    ports_table = indented(table([*PORTS, *ports], gap=2), 4)
    return indented(table(lines, gap=2), 2) + "  Ports:\n" + ports_table + "\n"

"""Changes one endpoint repeatedly in a process that keeps the state: plan and transaction.

The time starts when the new EndpointSlice is a value in memory, and ends when the kernel has acknowledged the
change. It includes the Service's frontends, their elements, the plan and the commit. This is a separate
process, so that nothing else shares its heap. It prints two lists of milliseconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

from msgspec.structs import replace

from bench.samples import spare
from kproxy.cli import settings_from
from kproxy.controlplane.ledger import NOTHING
from kproxy.controlplane.settle import settle
from kproxy.decode import decode
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Endpoint, EndpointSlice, Family, NamespacedName, parse_address
from kproxy.reconcile.dataplane import Dataplane
from kproxy.resolve.claims import all_frontends
from kproxy.resolve.frontends import service_frontends
from kproxy.settings.derived import dataplane_options, ranges
from kproxy.sources.files import read_documents
from kproxy.sources.node import find_node
from kproxy.table.compile import Delta, compile_frontends

CHANGES = 500


def replacements(slices: list[EndpointSlice]) -> Iterator[EndpointSlice]:
    """Yield slices, each with its last endpoint replaced by a new one."""
    for index in range(CHANGES):
        slice_ = slices[index * 7919 % len(slices)]
        *unchanged, last = slice_.endpoints
        yield replace(slice_, endpoints=(*unchanged, replace(last, address=parse_address(spare(index)))))


def resizes(slices: list[EndpointSlice]) -> Iterator[EndpointSlice]:
    """Yield slices, each with an additional endpoint and then without it."""
    for index in range(CHANGES // 2):
        slice_ = slices[index * 7919 % len(slices)]
        more = Endpoint(parse_address(spare(CHANGES + index)), node="node-0")
        yield replace(slice_, endpoints=(*slice_.endpoints, more))
        yield slice_


def main() -> None:
    """Measure and print. The flags are those of `kproxy sync`."""
    settings = settings_from(["sync", *sys.argv[1:]])
    decoded = decode(read_documents(settings.manifests)[0])
    node = find_node(settings, decoded.state.nodes)
    settled = settle(decoded, NOTHING, ranges(settings), node)
    frontends = all_frontends(settled.services.values(), settled.slices, node).frontends
    slices = [slice_ for found in decoded.state.slices.values() for slice_ in found]
    with Netlink() as netlink:
        dataplane = Dataplane(netlink, Family.IPV4, dataplane_options(settings, node))
        dataplane.reconcile(compile_frontends(frontends, Family.IPV4))

        def milliseconds(service: NamespacedName, slice_: EndpointSlice) -> float:
            begin = time.perf_counter()
            frontends = service_frontends(settled.services[service], (slice_,), node)
            done = dataplane.change(Delta(dict(compile_frontends(frontends, Family.IPV4).specs), {}))
            taken = time.perf_counter() - begin
            if not done:
                sys.exit(f"{service}: nothing was changed")
            return taken * 1000

        json.dump(
            {
                "resized": [milliseconds(s.service, s) for s in resizes(slices)],
                "replaced": [milliseconds(s.service, s) for s in replacements(slices)],
            },
            sys.stdout,
        )


if __name__ == "__main__":
    main()

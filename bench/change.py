"""One endpoint changes, in a process that keeps the state: plan and transaction, again and again.

What is timed begins when the new EndpointSlice is a value in memory, and ends when the kernel
has acknowledged: its service's frontends, their elements, the plan, the commit. A process of
its own, so that nothing else shares its heap; prints the two lists of milliseconds as JSON.
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
from kproxy.resolve.frontends import all_frontends, service_frontends
from kproxy.settings.derived import dataplane_options, ranges
from kproxy.sources.files import read_documents
from kproxy.sources.node import find_node
from kproxy.table.compile import Delta, compile_frontends

CHANGES = 500


def replacements(given: list[EndpointSlice]) -> Iterator[EndpointSlice]:
    """Slices one after another, each with its last endpoint replaced by a new one."""
    for index in range(CHANGES):
        slice_ = given[index * 7919 % len(given)]
        *protected, last = slice_.endpoints
        yield replace(slice_, endpoints=(*protected, replace(last, address=parse_address(spare(index)))))


def resizes(given: list[EndpointSlice]) -> Iterator[EndpointSlice]:
    """Slices one after another, each with an endpoint more and then as it was."""
    for index in range(CHANGES // 2):
        slice_ = given[index * 7919 % len(given)]
        more = Endpoint(parse_address(spare(CHANGES + index)), node="node-0")
        yield replace(slice_, endpoints=(*slice_.endpoints, more))
        yield slice_


def main() -> None:
    """Takes the flags of `kproxy sync`."""
    chosen = settings_from(["sync", *sys.argv[1:]])
    decoded = decode(read_documents(chosen.manifests)[0])
    node = find_node(chosen, decoded.state.nodes)
    settled = settle(decoded, NOTHING, ranges(chosen), node)
    frontends = all_frontends(settled.services.values(), settled.slices, node).frontends
    slices = [slice_ for found in decoded.state.slices.values() for slice_ in found]
    with Netlink() as netlink:
        dataplane = Dataplane(netlink, Family.IPV4, dataplane_options(chosen, node))
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

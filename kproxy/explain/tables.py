"""The part of the tables that concerns one packet, compiled from the frontends of a snapshot."""

from __future__ import annotations

from collections.abc import Set

from kproxy.model import Address, family_of
from kproxy.nft.elements import Elements
from kproxy.show.snapshot import Snapshot
from kproxy.table.compile import compile_frontends
from kproxy.table.plan import initial_elements
from kproxy.table.simulator import Simulator


def simulator(snapshot: Snapshot, destination: Address, host: Set[Address] = frozenset()) -> Simulator:
    """Return the table as it is desired, with the elements for packets to `destination`.

    `host` has the addresses of this host, as far as they are known besides those of its node. Only the
    frontends of the destination are compiled, so that the time does not grow with the other Services.
    """
    return Simulator(
        family_of(destination),
        _elements(snapshot, destination),
        snapshot.options,
        frozenset((*snapshot.node.addresses, *snapshot.node.node_port_addresses, *host)),
    )


def _elements(snapshot: Snapshot, destination: Address) -> Elements:
    frontends = [each for each in snapshot.frontends if each.address == destination]
    return initial_elements(*compile_frontends(frontends, family_of(destination)))

"""Removes everything of kproxy from this host, and nothing else: what `kproxy cleanup` does."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from kproxy.kernel import libnftables
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.structure import has_table
from kproxy.kernel.uplink import Uplink
from kproxy.model import Family, format_address
from kproxy.problems import TransactionError
from kproxy.state.store import Store
from kproxy.table.names import TABLE, ChainName


class CleanupResult(NamedTuple):
    """What was removed, and what could not be."""

    removed: list[str]
    warnings: tuple[str, ...]


def clean_up(state_dir: Path, keep_state: bool = False) -> CleanupResult:
    """Remove addresses and tables, and unless `keep_state` the allocations. HostError, StateError."""
    require_root()
    store = Store(state_dir)
    with store.lock("cleanup") if store.directory.exists() else nullcontext():
        # Addresses go first: without the table, packets to them would be for the node itself.
        addresses = Uplink().withdraw()
        removed = [f"address {format_address(c.address)} on {c.interface}" for c in addresses.changes]
        removed += _remove_tables()
        if not keep_state:
            removed += map(str, store.remove())
    return CleanupResult(removed, addresses.warnings)


def _remove_tables() -> list[str]:
    with Netlink() as netlink:
        families = [family for family in Family if has_table(netlink, family)]
    for family in families:
        remove_table(family)
    return [f"table {family} {TABLE}" for family in families]


def remove_table(family: Family) -> None:
    """Delete a table such that a packet in transit reaches the rules of other tables.

    When a table is deleted, its maps are empty immediately, but its sets are not: a packet in between would
    find that its service has no such port, and be rejected. So the chains that let packets in are emptied
    first.
    """
    chains = (ChainName.PREROUTING, ChainName.OUTPUT)
    entries = (f"flush chain {family} {TABLE} {chain}" for chain in chains)
    with suppress(TransactionError):  # a damaged table may have no such chains
        libnftables.run("\n".join(entries))
    libnftables.run(f"delete table {family} {TABLE}")

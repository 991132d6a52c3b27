"""Removes everything of kproxy, and nothing else, from this host, for `kproxy cleanup`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from kproxy.kernel.host import require_root
from kproxy.kernel.netlink.core.structure import flush_message, table_removal
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.kernel.ownership import check_owner
from kproxy.kernel.structure import has_table
from kproxy.kernel.uplink import Uplink
from kproxy.model import Family, format_address
from kproxy.problems import TransactionError
from kproxy.state.store import Store
from kproxy.table.layout import TABLE, ChainName


class CleanupResult(NamedTuple):
    """The result of a cleanup."""

    removed: list[str]
    """The removed tables, addresses and files."""
    warnings: tuple[str, ...]
    """Sentences that describe what could not be removed."""


def clean_up(state_dir: Path, warn: Callable[[str], None], keep_state: bool = False) -> CleanupResult:
    """Remove addresses, tables, and (unless `keep_state`) allocations. Raises HostError and StateError.

    `warn` is called with a sentence if the state directory is in use for a second.
    """
    require_root()
    store = Store(state_dir)
    with store.lock("cleanup", warn) if store.directory.exists() else nullcontext():
        with Netlink() as netlink:
            check_owner(netlink)
        # Addresses are removed first: without the table, this node itself would receive packets to them.
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
            remove_table(netlink, family)
    return [f"table {family} {TABLE}" for family in families]


def remove_table(netlink: Netlink, family: Family) -> None:
    """Delete a table, without a moment at which it refuses packets.

    When a table is deleted, its maps are empty immediately, but its sets are not. A packet in between would
    find the ClusterIP but not the port, and would be refused. So the base chains are flushed before the
    table is deleted, and packets pass to the rules of other tables.
    """
    chains = (ChainName.PREROUTING, ChainName.OUTPUT)
    with suppress(NetlinkError):  # a damaged table may not have these chains
        netlink.commit([flush_message(family, TABLE, chain) for chain in chains])
    try:
        netlink.commit([table_removal(family, TABLE)])
    except NetlinkError as error:
        raise TransactionError(
            f"The kernel refused to delete table {family} {TABLE}: {error.strerror}.", error.errno or 0
        ) from None

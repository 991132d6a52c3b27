"""`kproxy cleanup`: remove all that is kproxy's from this host, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from kproxy.cli.output import warn, write
from kproxy.kernel import libnftables
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.structure import has_table
from kproxy.kernel.uplink import Uplink
from kproxy.model import Family, format_address
from kproxy.problems import TransactionError
from kproxy.settings.settings import Settings
from kproxy.state.store import Store
from kproxy.table.names import TABLE, ChainName


def run(chosen: Settings, operands: Sequence[str]) -> int:
    """Returns the exit status."""
    require_root()
    store = Store(Path(chosen.state_dir))
    removed: list[str] = []
    lock = store.lock("cleanup") if store.directory.exists() else nullcontext()
    with lock, Netlink() as netlink:
        shown = Uplink().withdraw()  # first: without the table, they would be the node's own
        removed += [f"address {format_address(c.address)} on {c.interface}" for c in shown.changes]
        for family in Family:
            if has_table(netlink, family):
                remove_table(family)
                removed.append(f"table {family} {TABLE}")
        if not chosen.keep_state:
            removed += map(str, store.remove())
    write("".join(f"removed {name}\n" for name in removed) or "nothing to remove\n")
    for warning in shown.warnings:
        warn(warning)
    return 1 if shown.warnings else 0


def remove_table(family: Family) -> None:
    """Delete the table, so that a packet that is just passing goes to whose rules are below.

    When a table goes, its maps are empty at once, but its sets are not: a packet in between would find that
    its service has no such port, and be refused. So no packet is let in any more before.
    """
    chains = (ChainName.PREROUTING, ChainName.OUTPUT)
    entries = (f"flush chain {family} {TABLE} {chain}" for chain in chains)
    with suppress(TransactionError):  # a damaged table may have no such chains
        libnftables.run("\n".join(entries))
    libnftables.run(f"delete table {family} {TABLE}")

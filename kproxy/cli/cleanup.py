"""`kproxy cleanup`: remove all that is kproxy's from this host, and nothing else."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from kproxy.cli import options
from kproxy.kernel import libnftables
from kproxy.kernel.host import require_root
from kproxy.kernel.netlink import Netlink
from kproxy.kernel.structure import has_table
from kproxy.model import Family
from kproxy.nft.ruleset import TABLE
from kproxy.standalone.store import Store


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "cleanup",
        help="remove kproxy's tables and its state",
        description=f"Delete the tables `ip {TABLE}` and `ip6 {TABLE}`, and the allocations in --state-dir.",
    )
    parser.add_argument("--state-dir", metavar="DIR", type=Path, default=options.DEFAULT_STATE_DIR)
    parser.add_argument("--keep-state", action="store_true", help="leave the allocations for a later sync")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    require_root()
    store = Store(arguments.state_dir)
    removed: list[str] = []
    lock = store.lock("cleanup") if store.directory.exists() else nullcontext()
    with lock, Netlink() as netlink:
        for family in Family:
            if has_table(netlink, family):
                libnftables.run(f"delete table {family} {TABLE}")
                removed.append(f"table {family} {TABLE}")
        if not arguments.keep_state:
            removed += map(str, store.remove())
    for name in removed:
        print(f"removed {name}")
    if not removed:
        print("nothing to remove")
    return 0

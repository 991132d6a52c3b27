"""The kernel's settings of connection tracking, as kube-proxy sets them.

A value is only raised: what an administrator has set higher stays. All settings belong to the network
namespace, except for the maximum and the number of buckets, which only the host's namespace can change.

The settings exist as soon as the kernel has its module, which otherwise the first table loads: too late for
them. So a question about connections makes the kernel load it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kproxy.kernel.netlink.core.codec import message_type
from kproxy.kernel.netlink.core.constants import IPCTNL_MSG_CT_GET_STATS_CPU, NFNL_SUBSYS_CTNETLINK
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.problems import HostError

logger = logging.getLogger(__name__)
SYSCTLS = Path("/proc/sys/net/netfilter")
HASH_SIZE = Path("/sys/module/nf_conntrack/parameters/hashsize")
MAXIMUM = "nf_conntrack_max"
PER_BUCKET = 4
"""Entries per bucket of the hash table, when the table is full."""


def load_connection_tracking() -> None:
    """Make the kernel load its connection tracking, if that is a module. Without the right, do nothing."""
    with suppress(HostError, OSError), Netlink() as netlink:
        kind = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS_CPU)
        for _ in netlink.listing(kind, Family.IPV4, b""):
            pass


def raise_settings(
    values: Mapping[str, int],
    folder: Path = SYSCTLS,
    hash_size: Path = HASH_SIZE,
    load: Callable[[], None] = load_connection_tracking,
) -> None:
    """Raise settings (`nf_conntrack_max`) that are lower. A failure is logged as a warning.

    `load` is called if a setting does not exist yet.
    """
    if not all((folder / name).exists() for name in values):
        load()
    wanted = {folder / name: value for name, value in values.items()}
    if MAXIMUM in values:
        wanted[hash_size] = values[MAXIMUM] // PER_BUCKET
    failed = [failure for path, value in wanted.items() if (failure := _raise(path, value))]
    if failed:
        logger.warning("cannot change connection tracking: %s", "; ".join(failed))


def _raise(path: Path, value: int) -> str:
    """Returns why it failed, or ""."""
    try:
        before = int(path.read_text())
        if before < value:
            path.write_text(str(value))
            logger.info("set %s from %d to %d", path.name, before, value)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{path.name} to {value}: {reason}"
    return ""

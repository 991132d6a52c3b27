"""The kernel's settings of connection tracking, as kube-proxy sets them.

A value is only raised: what an administrator has set higher stays. All settings belong to the network
namespace, except for the maximum and the number of buckets, which only the host's namespace can change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)
SYSCTLS = Path("/proc/sys/net/netfilter")
HASH_SIZE = Path("/sys/module/nf_conntrack/parameters/hashsize")
MAXIMUM = "nf_conntrack_max"
PER_BUCKET = 4
"""Entries per bucket of the hash table, when the table is full."""


def raise_settings(values: Mapping[str, int], folder: Path = SYSCTLS, hash_size: Path = HASH_SIZE) -> None:
    """Raise settings (`nf_conntrack_max`) that are lower. A failure is logged as a warning."""
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
            logger.info("set %s to %d, before %d", path.name, value, before)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{path.name} to {value}: {reason}"
    return ""

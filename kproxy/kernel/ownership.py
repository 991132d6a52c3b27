"""Who may change kproxy's tables: every program, or only the socket that owns them.

Since Linux 6.9, a table can have an owner, and stay when the owner's socket is closed. `flush ruleset` of
other programs leaves out such a table, and other changes of it fail. When the socket is closed, another one
can own the table. The kernel does not let a table without the flag `persist` get it: such a table has to be
replaced by a new one.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kproxy.kernel.netlink.core.constants import NETLINK_NETFILTER
from kproxy.kernel.netlink.core.structure import table_message
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.kernel.structure import read_table
from kproxy.model import Family
from kproxy.nft.structure import TableFlags
from kproxy.printable import printable
from kproxy.problems import HostError
from kproxy.table.layout import TABLE

COMMAND_LENGTH = 80
"""The maximum length of a command line in an error."""


def adopt(netlink: Netlink) -> None:
    """Own the tables that an earlier owner left. A table that was never owned stays as it is."""
    for family in Family:
        table = read_table(netlink, family)
        if table and not table.owner and table.flags & TableFlags.PERSIST:
            with suppress(NetlinkError):  # another program was faster; the first round will see it
                netlink.commit([table_message(family, TABLE, TableFlags.OWNED)])


def check_owner(netlink: Netlink) -> None:
    """Raise HostError if another socket owns one of the tables. The error names the process."""
    for family in Family:
        if owner := foreign_owner(netlink, family):
            raise HostError(owner, "Stop that process first. The rules in the kernel are unchanged.")


def foreign_owner(netlink: Netlink, family: Family) -> str:
    """Return a sentence that names the process that owns the table; "" if no other socket owns it."""
    table = read_table(netlink, family)
    if not table or table.owner in (0, netlink.port):
        return ""
    return f"Table {family} {TABLE} belongs to {_process(table.owner)}, and only that process can change it."


def _process(port: int) -> str:
    """Describe the process that has the socket to netfilter with this port."""
    inode = _inode(port)
    for process in Path("/proc").glob("[0-9]*") if inode else ():
        if _has_socket(process, inode):
            return f"process {process.name} ({_command(process)})"
    return f"another process (netlink port {port})"


def _inode(port: int) -> str:
    """Return the inode of a socket in this network namespace; "" if there is none, or no /proc."""
    with suppress(OSError):
        for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
            _, protocol, number, *_, inode = line.split()
            if (int(protocol), int(number)) == (NETLINK_NETFILTER, port):
                return inode
    return ""


def _has_socket(process: Path, inode: str) -> bool:
    with suppress(OSError):  # it has ended, or belongs to another user namespace
        return any(str(each.readlink()) == f"socket:[{inode}]" for each in (process / "fd").iterdir())
    return False


def _command(process: Path) -> str:
    with suppress(OSError):
        words = (process / "cmdline").read_text(errors="replace").rstrip("\0").split("\0")
        return printable(" ".join(words))[:COMMAND_LENGTH]
    return "ended"

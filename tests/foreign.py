"""A set of another program that nft 1.0.6 cannot list: it crashes.

The user data of the set says that its key has the type of an expression (`typeof`). nft reads the table of
each kind of expression, and version 1.0.6 crashes if an expression of that kind cannot be in user data.
"""

from __future__ import annotations

import socket

from kproxy.kernel.netlink.core import constants as nl
from kproxy.kernel.netlink.core.codec import (
    attribute,
    be32,
    header,
    message_type,
    messages,
    read_error,
    string,
)
from kproxy.kernel.netlink.core.rules import record

NFPROTO_INET = 1
EXPR_SET_ELEM = 16
"""An expression that has no form in user data."""


def add_unreadable_set() -> None:
    """Add the table `inet foreign` with such a set, in the network namespace of the calling thread."""
    kind = record(nl.NFTNL_UDATA_SET_TYPEOF_EXPR, EXPR_SET_ELEM.to_bytes(4, "little"))
    typeof = kind + record(nl.NFTNL_UDATA_SET_TYPEOF_DATA, b"")
    declared = (
        string(nl.NFTA_SET_TABLE, "foreign"),
        string(nl.NFTA_SET_NAME, "odd"),
        be32(nl.NFTA_SET_ID, 1),
        be32(nl.NFTA_SET_FLAGS, 0),
        be32(nl.NFTA_SET_KEY_TYPE, nl.TYPE_IPADDR),
        be32(nl.NFTA_SET_KEY_LEN, 4),
        attribute(nl.NFTA_SET_USERDATA, record(nl.NFTNL_UDATA_SET_KEY_TYPEOF, typeof)),
    )
    table, odd = string(nl.NFTA_TABLE_NAME, "foreign"), b"".join(declared)
    flags = nl.NLM_F_CREATE | nl.NLM_F_ACK
    batch = (
        header(nl.NFNL_MSG_BATCH_BEGIN, 0, 1, 0, 0, nl.NFNL_SUBSYS_NFTABLES),
        header(
            message_type(nl.NFNL_SUBSYS_NFTABLES, nl.NFT_MSG_NEWTABLE),
            flags,
            2,
            NFPROTO_INET,
            len(table),
        ),
        table,
        header(
            message_type(nl.NFNL_SUBSYS_NFTABLES, nl.NFT_MSG_NEWSET),
            flags,
            3,
            NFPROTO_INET,
            len(odd),
        ),
        odd,
        header(nl.NFNL_MSG_BATCH_END, 0, 4, 0, 0, nl.NFNL_SUBSYS_NFTABLES),
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, nl.NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10)
        netlink.send(b"".join(batch))
        for _ in range(2):
            (answer,) = messages(memoryview(netlink.recv(1 << 16)))
            assert answer.kind == nl.NLMSG_ERROR
            assert read_error(answer).errno == 0

"""The kernel's table of connections: which UDP flows are in it, and the end of those that are stale.

table/flows.py says which ones; here they are found and deleted. Guaranteed, for each family:

- When a sync or a change returns, no entry of the UDP frontends it was about leads to an endpoint
  that is gone, and none of a frontend that has endpoints leads past them. Nothing else is deleted:
  no other protocol, address or port, and no flow to an endpoint that serves.
- A full sync looks at all UDP frontends, so it also ends what a crash between the switch of the
  table and this left behind; of a frontend that went, as long as its slots are still in the
  table, and they are removed after this. Where nothing is stale, it deletes nothing.
- An entry that is made anew while this runs is another one (its id differs), and stays.

A packet that was being evaluated when the table was switched has had its entry made by the time
the list is read, unless something holds packets back for longer than that (a queue to user space).

The kernel lists the entries of one port (5.8 and later; older ones list all) or, for frontends
with many ports, all of UDP; the rest is told apart here, by position: the two tuples come first,
their fields always in this order. Measured with 100,000 entries: 0.05 s for one port among them, 0.3 s
for all, 0.9 s if 95,000 are to be deleted; pyroute2 takes 9 s to decode them, and 38 s to make its own
entries of them. Without any entry it is 10 ms, the time to walk the kernel's hash table (of 262,144
buckets). Layout and numbers: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kproxy.kernel.netlink.core.codec import attribute, attributes, message_type, nested
from kproxy.kernel.netlink.core.constants import (
    CTA_FILTER,
    CTA_FILTER_F_CTA_PROTO_DST_PORT,
    CTA_FILTER_F_CTA_PROTO_NUM,
    CTA_FILTER_ORIG_FLAGS,
    CTA_FILTER_REPLY_FLAGS,
    CTA_ID,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_ZONE,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    NFNL_SUBSYS_CTNETLINK,
)
from kproxy.kernel.netlink.socket import Interrupted, Netlink, is_missing
from kproxy.model import Family, Protocol
from kproxy.table.flows import FlowRule, stale
from kproxy.table.keys import PackedSocket, join_socket, socket_port

GET = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET)
DELETE = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE)
FEW_PORTS = 2
"""Lists of one port that together cost less than one of all: a service port has its own and a node port."""


class EndedFlows(NamedTuple):
    """What came of it."""

    flows: int
    """Entries that were deleted."""
    warnings: tuple[str, ...]
    """Why that may not be all of them, in sentences."""


def end_flows(netlink: Netlink, family: Family, rules: Mapping[PackedSocket, FlowRule]) -> EndedFlows:
    """Delete the UDP entries that are stale by these rules. Without rules nothing is asked of the kernel."""
    if not rules:
        return EndedFlows(0, ())
    try:
        found = list(stale(_udp(netlink, family, rules), rules))
        failures = netlink.each(DELETE, family, [_identity(entry) for entry in found])
    except (OSError, Interrupted) as error:
        return EndedFlows(0, (_warning(family, error),))
    refused = [failure for failure in failures if not is_missing(failure)]  # else it ended by itself
    return EndedFlows(len(found) - len(failures), tuple(_warning(family, failure) for failure in refused[:1]))


def _warning(family: Family, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or "the list of connections was interrupted"
    return (
        f"Stale UDP flows ({family}) could not be ended: {reason}. Clients that never pause may stay with "
        "endpoints that are gone. It needs nf_conntrack_netlink in the kernel; the next sync tries again."
    )


def _udp(
    netlink: Netlink, family: Family, rules: Mapping[PackedSocket, FlowRule]
) -> Iterator[tuple[PackedSocket, PackedSocket, memoryview]]:
    """UDP entries, among them all with these destinations: destination, endpoint, attributes."""
    ports = {socket_port(frontend) for frontend in rules}
    filters = [_filter(port) for port in sorted(ports)] if len(ports) <= FEW_PORTS else [_filter()]
    width = family.width
    # TUPLE { IP { source, destination }, PROTO { number, source port, destination port } }, and with a
    # zone of its own a ZONE after them. A port's padding is zero, so that it reads as a packed one.
    original = struct.Struct(f"=H{14 + width}x{width}s8xB15x4s").unpack_from
    reply = struct.Struct(f"=12x{width}s{20 + width}x4s").unpack_from
    for wanted in filters:
        for entry in netlink.listing(GET, family, wanted):
            length, address, protocol, port = original(entry)
            if protocol == Protocol.UDP.number:
                source, source_port = reply(entry, (length + 3) & ~3)
                yield join_socket(address, port), join_socket(source, source_port), entry


def _filter(port: int | None = None) -> bytes:
    number = attribute(CTA_PROTO_NUM, bytes([Protocol.UDP.number]))
    flags = CTA_FILTER_F_CTA_PROTO_NUM
    if port is not None:
        number += attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big"))
        flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT
    original = attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    reply = attribute(CTA_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
    return nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, number)) + nested(CTA_FILTER, original, reply)


def _identity(entry: memoryview) -> bytes:
    """What tells the kernel which entry is meant: its original tuple, its zone, its id."""
    return b"".join(
        attribute(kind, bytes(content)) if kind != CTA_TUPLE_ORIG else nested(kind, bytes(content))
        for kind, content in attributes(entry)
        if kind in (CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID)
    )

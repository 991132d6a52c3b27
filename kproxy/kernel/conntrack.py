"""Finds and deletes conntrack entries of stale UDP flows, and of TCP handshakes that were not translated.

table/flows.py decides which UDP flows are stale. Guarantees, for each family:

- After a round, no conntrack entry of the UDP frontends that it changed leads to an endpoint that was
  removed, and no untranslated entry of a frontend that has endpoints remains. No other entry is deleted: none
  of other protocols, addresses or ports, and none of a flow to an endpoint that serves.
- A full comparison checks all UDP frontends. So it also deletes entries that remained because kproxy was
  killed after the switch. For a removed frontend, this works as long as its slots are in the table; they are
  swept after this step. If no entry is stale, nothing is deleted.
- A client that sends a SYN to a TCP frontend while the table is missing gets no answer, and its entry stays
  for two minutes after the last SYN. So its next SYNs from the same port would not be translated either.
  After the verdict of a frontend was written back, these entries are deleted: in the state SYN_SENT, and not
  translated. No other TCP entry is.
- An entry that is created again while this runs has another id, and stays.

If the kernel was evaluating a packet during the switch, the packet's entry exists before the list is read,
unless something delays packets for longer than that (for example a queue to user space).

The kernel lists the entries of one port (Linux 5.8 and later; older kernels list all entries), or, for
frontends with many ports, all UDP entries. The fields are read by position: the two tuples come first, and
their fields always have the same order. Measured with 100,000 entries: 0.05 s to list one port of them, 0.3 s
to list all, 0.9 s if 95,000 must be deleted; pyroute2 takes 9 s to decode them, and 38 s to create its own
objects of them. A list takes 10 ms at least, the time to walk the kernel's hash table (262,144 buckets). So a
namespace without any entry, such as a new one, is not asked for a list.
Layout and numbers: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from kproxy.kernel.netlink.core.codec import attribute, attributes, be32, message_type, nested
from kproxy.kernel.netlink.core.constants import (
    CTA_FILTER,
    CTA_FILTER_F_CTA_PROTO_DST_PORT,
    CTA_FILTER_F_CTA_PROTO_NUM,
    CTA_FILTER_ORIG_FLAGS,
    CTA_FILTER_REPLY_FLAGS,
    CTA_ID,
    CTA_IP_V4_DST,
    CTA_IP_V4_SRC,
    CTA_IP_V6_DST,
    CTA_IP_V6_SRC,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT,
    CTA_PROTOINFO,
    CTA_PROTOINFO_TCP,
    CTA_PROTOINFO_TCP_STATE,
    CTA_STATS_GLOBAL_ENTRIES,
    CTA_STATUS,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_ZONE,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    IPCTNL_MSG_CT_GET_STATS,
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    NFNL_SUBSYS_CTNETLINK,
    TCP_CONNTRACK_CLOSE,
    TCP_CONNTRACK_SYN_SENT,
    TCP_CONNTRACK_TIME_WAIT,
)
from kproxy.kernel.netlink.socket import Interrupted, Netlink, is_missing
from kproxy.model import Address, Family, Protocol, family_of
from kproxy.table.flows import FlowRule, stale_entries
from kproxy.table.layout import PackedSocket, join_socket, socket_port

_IP_KINDS = {
    Family.IPV4: (CTA_IP_V4_SRC, CTA_IP_V4_DST),
    Family.IPV6: (CTA_IP_V6_SRC, CTA_IP_V6_DST),
}
GET = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET)
GET_STATS = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS)
DELETE = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE)
CLOSED = (TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE)
"""The states of TCP connections that have ended."""
FEW_PORTS = 2
"""Up to this number of ports, one list per port is faster than one list of all UDP entries.

A service port often has two: its own port and a node port.
"""


FlowEntry = tuple[PackedSocket, PackedSocket, memoryview]
"""Frontend, endpoint, attributes."""


class EndedFlows(NamedTuple):
    """The result of `end_flows` and `end_handshakes`."""

    flows: int
    """The number of deleted entries."""
    warnings: tuple[str, ...]
    """Sentences that explain why stale entries may remain."""


class StaleEntry(Struct, frozen=True):
    """An entry of a stale UDP flow."""

    frontend: PackedSocket
    identity: bytes
    """The attributes that identify it to the kernel."""


class FoundFlows(Struct, frozen=True):
    """The result of `find_flows`."""

    entries: tuple[StaleEntry, ...]
    warnings: tuple[str, ...]
    """Sentences that explain why there may be more."""


def find_flows(netlink: Netlink, family: Family, rules: Mapping[PackedSocket, FlowRule]) -> FoundFlows:
    """Return the UDP entries that are stale by `rules`. Without rules, the kernel is not queried."""
    if not rules:
        return FoundFlows((), ())
    try:
        entries = _entries(netlink, family, rules, Protocol.UDP)
        named = ((frontend, endpoint, (frontend, entry)) for frontend, endpoint, entry in entries)
        stale = stale_entries(named, rules)
        found = tuple(StaleEntry(frontend, _identity(entry)) for frontend, entry in stale)
    except (OSError, Interrupted) as error:
        return FoundFlows((), (_warning(family, Protocol.UDP, error),))
    return FoundFlows(found, ())


def end_flows(netlink: Netlink, family: Family, found: FoundFlows) -> EndedFlows:
    """Delete what `find_flows` found. Its warnings are kept."""
    ended = _delete(netlink, family, [entry.identity for entry in found.entries], Protocol.UDP)
    return ended._replace(warnings=found.warnings + ended.warnings)


def end_handshakes(netlink: Netlink, family: Family, frontends: Collection[PackedSocket]) -> EndedFlows:
    """Delete the TCP entries to these frontends that are untranslated, and in which only SYNs were sent."""
    if not frontends:
        return EndedFlows(0, ())
    try:
        found = [
            _identity(entry)
            for frontend, endpoint, entry in _entries(netlink, family, frontends, Protocol.TCP)
            if frontend == endpoint and frontend in frontends and _tcp_state(entry) == TCP_CONNTRACK_SYN_SENT
        ]
    except (OSError, Interrupted) as error:
        return EndedFlows(0, (_warning(family, Protocol.TCP, error),))
    return _delete(netlink, family, found, Protocol.TCP)


def _delete(netlink: Netlink, family: Family, entries: Sequence[bytes], protocol: Protocol) -> EndedFlows:
    """Delete the entries with these identities."""
    try:
        failures = netlink.each(DELETE, family, entries)
    except OSError as error:
        return EndedFlows(0, (_warning(family, protocol, error),))
    refused = [each for each in failures if not is_missing(each)]  # a missing flow has ended by itself
    warnings = tuple(_warning(family, protocol, failure) for failure in refused[:1])
    return EndedFlows(len(entries) - len(failures), warnings)


def _has_entries(netlink: Netlink, family: Family) -> bool:
    """Whether the namespace has conntrack entries of any protocol and family.

    The kernel counts an entry from the first packet on, before it is listed.
    """
    found = netlink.one(GET_STATS, family, b"")
    return found is None or any(dict(attributes(found))[CTA_STATS_GLOBAL_ENTRIES])


def _warning(family: Family, protocol: Protocol, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or "the dump of conntrack entries was interrupted"
    if protocol is Protocol.UDP:
        return (
            f"Cannot delete the conntrack entries of stale UDP flows ({family}): {reason}. Clients that send "
            "without pause may still reach removed endpoints. kproxy needs nf_conntrack_netlink in the "
            "kernel, and tries again in the next full comparison."
        )
    return (
        f"Cannot delete the conntrack entries of TCP handshakes ({family}): {reason}. Clients that connected "
        "while the table was missing may have to wait for two minutes."
    )


def has_reply(
    netlink: Netlink, source: tuple[Address, int], destination: tuple[Address, int], protocol: Protocol
) -> bool | None:
    """Whether the connection between two sockets got a reply; None if the kernel does not track it."""
    family = family_of(source[0])
    from_kind, to_kind = _IP_KINDS[family]
    addresses = attribute(from_kind, source[0]) + attribute(to_kind, destination[0])
    ports = attribute(CTA_PROTO_NUM, bytes([protocol.number]))
    ports += attribute(CTA_PROTO_SRC_PORT, source[1].to_bytes(2, "big"))
    ports += attribute(CTA_PROTO_DST_PORT, destination[1].to_bytes(2, "big"))
    original = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_IP, addresses), nested(CTA_TUPLE_PROTO, ports))
    entry = netlink.one(GET, family, original)
    if entry is None:
        return None
    return bool(int.from_bytes(dict(attributes(entry))[CTA_STATUS], "big") & IPS_SEEN_REPLY)


def _entries(
    netlink: Netlink, family: Family, frontends: Collection[PackedSocket], wanted: Protocol
) -> Iterator[FlowEntry]:
    """Return the entries of a protocol, at least those of these frontends."""
    if not _has_entries(netlink, family):
        return
    ports = {socket_port(frontend) for frontend in frontends}
    few = len(ports) <= FEW_PORTS
    filters = [_filter(wanted, port) for port in sorted(ports)] if few else [_filter(wanted)]
    width = family.width
    # TUPLE { IP { source, destination }, PROTO { number, source port, destination port } }. A tuple with its
    # own zone ends with ZONE. The padding of a port is zero, so a port has the form of a packed port.
    original = struct.Struct(f"=H{14 + width}x{width}s8xB15x4s").unpack_from
    reply = struct.Struct(f"=12x{width}s{20 + width}x4s").unpack_from
    for each in filters:
        for entry in netlink.listing(GET, family, each):
            length, address, protocol, port = original(entry)
            if protocol == wanted.number:
                source, source_port = reply(entry, (length + 3) & ~3)
                yield join_socket(address, port), join_socket(source, source_port), entry


def flows(
    netlink: Netlink, family: Family, frontends: Collection[PackedSocket], protocol: Protocol
) -> Iterator[tuple[PackedSocket, PackedSocket, bool]]:
    """Return the entries of these frontends: frontend, endpoint, and whether no reply has come.

    An entry that is not translated has its frontend as endpoint.
    """
    for frontend, endpoint, entry in _entries(netlink, family, frontends, protocol):
        if frontend in frontends:
            status = dict(attributes(entry))[CTA_STATUS]
            yield frontend, endpoint, not int.from_bytes(status, "big") & IPS_SEEN_REPLY


class Translated(NamedTuple):
    """A connection whose destination was translated."""

    protocol: Protocol
    frontend: PackedSocket
    endpoint: PackedSocket
    answered: bool


def translated(
    netlink: Netlink, family: Family, ports: Collection[tuple[Protocol, int]] = ()
) -> Iterator[Translated]:
    """Return the live connections that were translated, by any program; at least those to these ports.

    TCP connections that were closed are left out; their entries stay for up to two minutes. An old kernel
    ignores the filter for translated entries, and lists all.
    """
    few = 0 < len(ports) <= FEW_PORTS
    is_translated = be32(CTA_STATUS, IPS_DST_NAT)
    filters = [_filter(*port) + is_translated for port in sorted(ports)] if few else [is_translated]
    width = family.width
    original = struct.Struct(f"=H{14 + width}x{width}s8xB15x4s").unpack_from
    reply = struct.Struct(f"=H10x{width}s{20 + width}x4s").unpack_from
    protocols = {protocol.number: protocol for protocol in Protocol}
    entries = (entry for each in filters for entry in netlink.listing(GET, family, each))
    for entry in entries:
        length, address, number, port = original(entry)
        start = (length + 3) & ~3
        replying, source, source_port = reply(entry, start)
        frontend, endpoint = join_socket(address, port), join_socket(source, source_port)
        if number in protocols and frontend != endpoint:
            status, state = _state(entry[start + ((replying + 3) & ~3) :])
            if status & IPS_DST_NAT and state not in CLOSED:
                yield Translated(protocols[number], frontend, endpoint, bool(status & IPS_SEEN_REPLY))


def _state(fields: memoryview) -> tuple[int, int]:
    """Return the status of an entry, and the state of a TCP connection (0 for other protocols)."""
    status = state = 0
    for kind, content in attributes(fields):
        if kind == CTA_STATUS:
            status = int.from_bytes(content, "big")
        elif kind == CTA_PROTOINFO:
            found = dict(attributes(content))
            if CTA_PROTOINFO_TCP in found:
                state = int(dict(attributes(found[CTA_PROTOINFO_TCP]))[CTA_PROTOINFO_TCP_STATE][0])
            break
    return status, state


def _tcp_state(entry: memoryview) -> int:
    """Return the state of a TCP entry (TCP_CONNTRACK_*)."""
    found = dict(attributes(dict(attributes(entry))[CTA_PROTOINFO]))
    return int(dict(attributes(found[CTA_PROTOINFO_TCP]))[CTA_PROTOINFO_TCP_STATE][0])


def _filter(protocol: Protocol, port: int | None = None) -> bytes:
    number = attribute(CTA_PROTO_NUM, bytes([protocol.number]))
    flags = CTA_FILTER_F_CTA_PROTO_NUM
    if port is not None:
        number += attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big"))
        flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT
    original = attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    reply = attribute(CTA_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
    return nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, number)) + nested(CTA_FILTER, original, reply)


def _identity(entry: memoryview) -> bytes:
    """Return the attributes that identify an entry to the kernel: its original tuple, zone and id."""
    return b"".join(
        attribute(kind, bytes(content)) if kind != CTA_TUPLE_ORIG else nested(kind, bytes(content))
        for kind, content in attributes(entry)
        if kind in (CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID)
    )

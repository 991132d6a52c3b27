"""Traces one packet through all tables of this network namespace (nftrace).

The trace is started by a table that belongs to this process (flag `owner`): the kernel deletes the table when
the process ends, however it ends. The table has no verdict, so it changes nothing for any packet.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from kproxy.kernel.netlink.core.codec import messages
from kproxy.kernel.netlink.core.constants import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    NFGENMSG_LEN,
    NFNLGRP_NFTRACE,
    SOL_NETLINK,
)
from kproxy.kernel.netlink.core.structure import whole_table
from kproxy.kernel.netlink.core.traces import TraceMessage, read_trace
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Protocol
from kproxy.nft.structure import TableFlags
from kproxy.nft.tracing import Flow, Hit, trace_table
from kproxy.table.layout import TABLE

SILENCE = 0.3
"""Seconds without a message after which the trace of a packet is complete. The kernel sends the messages
while it processes the packet, so this is many times as long as needed."""


class Tracer:
    """Receives the trace of a flow. Use `traced` to create one."""

    def __init__(self, listener: socket.socket, flow: Flow, table: str) -> None:
        """`table` is the name of the table that starts the trace."""
        self._listener = listener
        self._flow = flow
        self._table = table
        self._received: deque[TraceMessage] = deque()

    def first_packet(self, timeout: float) -> list[Hit]:
        """Return the rules that the next packet of the flow matches; [] if none comes within `timeout`.

        The kernel's number of a packet does not tell packets apart: it depends on the addresses, which
        change. But each packet begins with a rule of the table that starts the trace.
        """
        found: list[TraceMessage] = []
        while message := self._next(SILENCE if found else timeout):
            if message.table == self._table and found and found[-1].table != self._table:
                break  # the next packet
            found.append(message.completed(found[-1]) if found else message)
        return [self._hit(each) for each in found]

    def _next(self, timeout: float) -> TraceMessage | None:
        """Return the next message; None if none comes within `timeout` seconds."""
        if not self._received and select.select([self._listener], [], [], timeout)[0]:
            received = messages(memoryview(self._listener.recv(1 << 16)))
            self._received += (read_trace(each.content[NFGENMSG_LEN:]) for each in received)
        return self._received.popleft() if self._received else None

    def _hit(self, seen: TraceMessage) -> Hit:
        source, destination = seen.ports if isinstance(self._flow.protocol, Protocol) else (0, 0)
        interface = socket.if_indextoname(seen.interface) if seen.interface else ""
        return Hit(
            seen.table,
            seen.chain,
            seen.handle,
            seen.verdict,
            (seen.source, source),
            (seen.destination, destination),
            interface,
        )


@contextmanager
def traced(netlink: Netlink, flow: Flow) -> Iterator[Tracer]:
    """Trace a flow until the block ends. Raises NetlinkError if the kernel refuses the table.

    The table belongs to `netlink`, and exists until it is closed.
    """
    rules = trace_table(flow, f"{TABLE}-trace-{os.getpid()}")
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    ) as listener:
        listener.bind((0, 0))
        listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
        netlink.commit(whole_table(rules, TableFlags.OWNER))
        yield Tracer(listener, flow, rules.table)

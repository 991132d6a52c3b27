"""`kproxy trace`: show which rules a packet matches in the kernel, and what becomes of it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kproxy.cli.output import flush, warn, write_json, write_text
from kproxy.cli.question import Asked, ask
from kproxy.explain.question import THIS_NODE
from kproxy.explain.rules import OwnRules
from kproxy.explain.tracing import trace_json, trace_text
from kproxy.kernel.conntrack import has_reply
from kproxy.kernel.host import require_root, socket_family
from kproxy.kernel.live_table import rule_handles
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.tracer import Tracer, traced
from kproxy.model import Protocol, format_address
from kproxy.nft.tracing import Flow, Hit, Trace
from kproxy.problems import CommandLineError, KproxyError
from kproxy.settings.settings import Settings

REPLY_SECONDS = 3.0
"""How long to wait for a reply to the packet."""
POLL_SECONDS = 0.02


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    require_root()
    asked = ask(settings, operands, kernel=True)
    question, snapshot = asked.question, asked.snapshot
    if settings.send and question.sender != THIS_NODE:
        raise CommandLineError("--send sends from this node: FROM must be node, or an address of this node.")
    flow = Flow(*question.packet[:4])
    with Netlink() as netlink:
        trace = _trace(netlink, flow, settings)
        rules = _rules(netlink, asked, trace)
    names = {address: f"pod {pod.name}" for pod in snapshot.inventory.pods for address in pod.addresses}
    if settings.output == "json":
        write_json(trace_json(trace, flow, rules, names))
    else:
        write_text(trace_text(trace, flow, rules, names))
    return 0 if trace.hits else 1


def _trace(netlink: Netlink, flow: Flow, settings: Settings) -> Trace:
    with traced(netlink, flow) as tracer:
        if settings.send:
            with _sent(flow):
                return _result(netlink, tracer, flow, settings.timeout)
        sender, port = format_address(flow.source), f" to port {flow.port}" if flow.port else ""
        warn(
            f"waiting {settings.timeout:g} s for a packet from {sender} to "
            f"{format_address(flow.destination)}{port}"
        )
        flush()
        return _result(netlink, tracer, flow, settings.timeout)


def _result(netlink: Netlink, tracer: Tracer, flow: Flow, timeout: float) -> Trace:
    hits = tuple(tracer.first_packet(timeout))
    if not hits or hits[-1].verdict == "drop" or flow.protocol is None:
        return Trace(hits)
    return Trace(hits, _is_answered(netlink, hits[0], flow.protocol))


def _is_answered(netlink: Netlink, first: Hit, protocol: Protocol) -> bool | None:
    """Wait for a reply, or for the end of the connection."""
    end = time.monotonic() + REPLY_SECONDS
    while (found := has_reply(netlink, first.source, first.destination, protocol)) is False:
        if time.monotonic() >= end:
            break
        time.sleep(POLL_SECONDS)
    return found


@contextmanager
def _sent(flow: Flow) -> Iterator[None]:
    """Send the first packet of a connection from this node. Closes the socket at the end of the block."""
    if flow.protocol is None:
        raise CommandLineError("--send does not send ping. Run ping in another terminal.")
    kind = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}.get(flow.protocol)
    if kind is None:
        raise CommandLineError(f"--send does not send {flow.protocol}.")
    with socket.socket(socket_family(flow.destination), kind) as sender:
        sender.setblocking(False)
        sender.bind((format_address(flow.source), 0))
        error = sender.connect_ex((format_address(flow.destination), flow.port))
        if error not in (0, errno.EINPROGRESS, errno.ECONNREFUSED, errno.EPERM):
            raise KproxyError(f"Cannot send: {os.strerror(error)}.")
        if flow.protocol is Protocol.UDP:
            try:
                sender.send(b"")
            except OSError as refused:  # dropped or refused in the output hook
                if refused.errno not in (errno.EPERM, errno.ECONNREFUSED):
                    raise KproxyError(f"Cannot send: {refused.strerror}.") from None
        yield


def _rules(netlink: Netlink, asked: Asked, trace: Trace) -> OwnRules:
    """Return the rules of kproxy's table in the chains of a trace."""
    table = asked.table
    return OwnRules(table, (hit.chain for hit in trace.hits), rule_handles(netlink, table.family))

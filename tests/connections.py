"""Reads and creates conntrack entries for tests, and runs clients that send without pause.

pyroute2 reads the entries, so that kproxy's reader is not tested against itself.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import NamedTuple

from netns_lab import netns
from netns_lab.lab import Handle
from pyroute2 import Conntrack

from kproxy.kernel.netlink.core.codec import attribute, be32, message_type, nested
from kproxy.kernel.netlink.core.constants import (
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_ZONE,
    NFNL_SUBSYS_CTNETLINK,
    NLM_F_CREATE,
)
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from tests.support import eventually

# linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h
IPCTNL_MSG_CT_NEW = 0
CTA_TUPLE_REPLY = 2
CTA_STATUS = 3
CTA_PROTOINFO = 4
CTA_TIMEOUT = 7
CTA_TUPLE_IP = 1
CTA_IP_V4_SRC = 1
CTA_IP_V6_SRC = 3
CTA_PROTO_SRC_PORT = 2
CTA_PROTOINFO_TCP = 1
CTA_PROTOINFO_TCP_STATE = 1
IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED = 1 << 1, 1 << 2, 1 << 3
SYN_SENT, ESTABLISHED = 1, 3
NEW = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW)
PERIOD = 0.005
"""Seconds between two datagrams of a client that never pauses."""
SOME = 20
"""The number of datagrams after which a client does not move any more."""
PATIENCE = 60.0


class Entry(NamedTuple):
    """A connection: client, destination, and the source of the answers."""

    client: tuple[str, int]
    to: tuple[str, int]
    answers: tuple[str, int]
    protocol: int = socket.IPPROTO_UDP
    zone: int = 0


def entries(node: Handle) -> set[Entry]:
    """Return all UDP and TCP entries of a node."""

    def read() -> set[Entry]:
        with Conntrack(nfgen_family=socket.AF_UNSPEC) as table:
            return {
                Entry(
                    (one.tuple_orig.saddr, one.tuple_orig.sport),
                    (one.tuple_orig.daddr, one.tuple_orig.dport),
                    (one.tuple_reply.saddr, one.tuple_reply.sport),
                    one.tuple_orig.proto,
                    one.zone or 0,
                )
                for one in table.dump_entries()
                if one.tuple_orig.proto in (socket.IPPROTO_UDP, socket.IPPROTO_TCP)
            }

    return node.inside(read)


def _tuple(kind: int, source: tuple[str, int], destination: tuple[str, int], protocol: int) -> bytes:
    version = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    first = CTA_IP_V6_SRC if version == socket.AF_INET6 else CTA_IP_V4_SRC
    packed = [socket.inet_pton(version, end[0]) for end in (source, destination)]
    ports = [struct.pack(">H", end[1]) for end in (source, destination)]
    return nested(
        kind,
        nested(CTA_TUPLE_IP, attribute(first, packed[0]), attribute(first + 1, packed[1])),
        nested(
            CTA_TUPLE_PROTO,
            attribute(CTA_PROTO_NUM, bytes([protocol])),
            attribute(CTA_PROTO_SRC_PORT, ports[0]),
            attribute(CTA_PROTO_DST_PORT, ports[1]),
        ),
    )


def _body(entry: Entry, tcp_state: int) -> bytes:
    body = _tuple(CTA_TUPLE_ORIG, entry.client, entry.to, entry.protocol)
    body += _tuple(CTA_TUPLE_REPLY, entry.answers, entry.client, entry.protocol)
    body += be32(CTA_TIMEOUT, 600) + be32(CTA_STATUS, IPS_CONFIRMED | IPS_ASSURED | IPS_SEEN_REPLY)
    if entry.protocol == socket.IPPROTO_TCP:
        state = attribute(CTA_PROTOINFO_TCP_STATE, bytes([tcp_state]))
        body += nested(CTA_PROTOINFO, nested(CTA_PROTOINFO_TCP, state))
    if entry.zone:
        body += attribute(CTA_ZONE, struct.pack(">H", entry.zone))
    return body


def make(node: Handle, wanted: Iterable[Entry], tcp_state: int = ESTABLISHED) -> None:
    """Create entries on a node, as packets would. `tcp_state` is the state of those of TCP."""
    bodies: dict[Family, list[bytes]] = {Family.IPV4: [], Family.IPV6: []}
    for entry in wanted:
        bodies[Family.IPV6 if ":" in entry.to[0] else Family.IPV4].append(_body(entry, tcp_state))

    def write() -> None:
        with Netlink() as netlink:
            for family, messages in bodies.items():
                assert netlink.each(NEW, family, messages, NLM_F_CREATE) == []

    node.inside(write)


class Talk:
    """A client that sends numbered datagrams without pause, and the answers, which repeat the number."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        """The number of the datagram, and the pod that answered."""
        self.sent = 0

    def move(self, pod: str) -> None:
        """Wait until `pod` answers a datagram that is sent from now on."""
        start = self.sent
        eventually(lambda: pod in self.since(start))

    def since(self, start: int) -> set[str]:
        """Return the pods that answered datagrams from number `start` on."""
        return {pod for number, pod in self.answers if number >= start}

    def settled(self) -> set[str]:
        """Wait for answers to datagrams that are sent from now on. Returns the pods that answered."""
        start = self.sent
        eventually(lambda: sum(number >= start for number, _ in self.answers) >= SOME)
        return self.since(start)

    def silence(self) -> bool:
        """Whether several datagrams that are sent from now on remain unanswered."""
        start = self.sent
        eventually(lambda: self.sent >= start + SOME)
        return not self.since(start)


@contextmanager
def talking(client: Handle, address: str, port: int) -> Iterator[Talk]:
    """Send a datagram from one UDP socket every few milliseconds, whether or not it is answered."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    talk, stop = Talk(), threading.Event()

    def run(sock: socket.socket) -> None:
        while not stop.wait(PERIOD):
            try:
                talk.sent += 1
                sock.send(str(talk.sent - 1).encode())
                while True:
                    answer = json.loads(sock.recv(65536))
                    talk.answers.append((int(answer["echo"]), answer["pod"]))
            except OSError:  # no answer yet, or refused
                continue

    with client.socket(kind, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((address, port))
        thread = threading.Thread(target=partial(run, sock))
        thread.start()
        try:
            yield talk
        finally:
            stop.set()
            thread.join()


# --- clients that open TCP connections without pause ---

TOTAL_RETRANSMISSIONS = struct.Struct("=100xI")
"""The field tcpi_total_retrans of struct tcp_info (linux/tcp.h)."""
BACKLOG = 1024


class Opened:
    """What became of the connections."""

    def __init__(self) -> None:
        self.count = 0
        self.failures: Counter[str] = Counter()
        self.repeated = 0
        """Connections whose first packet was sent again, so that they took a second or more."""

    def more(self, count: int) -> None:
        """Wait until this many more connections were tried."""
        end = self.count + count
        eventually(lambda: self.count >= end)


@contextmanager
def accepting(pod: Handle, port: int) -> Iterator[None]:
    """Accept connections on a port, and close them."""
    with pod.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("", port))
        listener.listen(BACKLOG)

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def opening(
    client: Handle, addresses: Sequence[str], port: int, rate: int, parallel: int = 4
) -> Iterator[Opened]:
    """Open `rate` connections per second, in turn to these IPv4 addresses."""
    opened, stop = Opened(), threading.Event()

    def open_one(address: str) -> None:
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            try:
                sock.connect((address, port))
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANSMISSIONS.size)
                opened.repeated += TOTAL_RETRANSMISSIONS.unpack(info)[0] > 0
            except OSError as error:
                opened.failures[type(error).__name__] += 1
        opened.count += 1

    def run(first: int) -> None:
        netns.enter(client.netns)
        for number in count(first, parallel):
            if stop.wait(parallel / rate):
                return
            open_one(addresses[number % len(addresses)])

    running = [threading.Thread(target=run, args=(first,)) for first in range(parallel)]
    for thread in running:
        thread.start()
    try:
        yield opened
    finally:
        stop.set()
        for thread in running:
            thread.join()

"""A scenario in a lab: kproxy sync on its nodes, real packets, and their observed results.

The pods of the lab answer HTTP and UDP. SCTP packets are made by hand and captured in the pods. If a packet
gets no answer, the conntrack table of the node shows whether it was dropped, refused or untouched: a packet
that a hook dropped or refused has no entry.
"""

from __future__ import annotations

import errno
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, redirect_stdout, suppress
from functools import partial
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypeVar

from netns_lab.lab import Handle, Lab
from netns_lab.probe import Outcome, Reply, echo, http_get, udp_ask
from netns_lab.topology import Family
from netns_lab.wire import AF

from kproxy.cli import main
from kproxy.kernel.live_table import LiveTable
from kproxy.kernel.netlink.socket import Netlink
from kproxy.nft.elements import Elements
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.simulator import Fate, Packet, PacketOutcome
from tests.flows.objects import BOOK, FAMILIES
from tests.flows.scenario import REFUSED, TABLE_FAMILY, Row, Scenario
from tests.support import PATIENCE, eventually

T = TypeVar("T")
SILENCE = 0.15
"""Seconds to wait where no answer is expected. The conntrack table then decides."""
TRIES = 120
SCTP = 132
IP_RECVERR, IPV6_RECVERR = 11, 25


class Seen(NamedTuple):
    """The observed result of one packet."""

    fate: Fate
    source_port: int
    pod: str = ""
    port: int = 0
    masqueraded: bool = False


class World:
    """The lab of a scenario. It exists from construction to `close`."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario = scenario
        self._stack = ExitStack()
        self._ports = itertools.count(20001)
        try:
            self.lab = self._stack.enter_context(Lab(scenario.topology))
            for name, family in itertools.product(scenario.local, FAMILIES):
                address = f"{BOOK[name][family]}/{32 if family == 4 else 128}"
                self.lab.node("n1").run(
                    ["ip", "addr", "add", address, "dev", "eth0", "nodad"][: 6 + (family == 6)]
                )
            for node in scenario.nodes:
                self._sync(node, directory)
            self._sniffers = [
                (pod.name, family, self._listen(pod.name, family))
                for pod in scenario.topology.pods
                for family in FAMILIES
                if " sctp " in scenario.rows
            ]
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Remove the lab."""
        self._stack.close()

    def _sync(self, node: str, directory: Path) -> None:
        manifests = directory / "manifests.json"
        text = {"apiVersion": "v1", "kind": "List", "items": self.scenario.manifests()}
        manifests.write_text(json.dumps(text))
        where = ["-f", str(manifests), "--state-dir", str(directory / node)]
        command = ["sync", *where, *self.scenario.arguments(node)]
        with redirect_stdout(StringIO()):
            status = self.lab.node(node).inside(partial(main, command))
        assert status == 0

    def elements(self, node: str, family: Family) -> Elements:
        """Return the elements in the kernel."""

        def read() -> Elements:
            with Netlink() as netlink:
                dataplane = Dataplane(netlink, TABLE_FAMILY[family], self.scenario.compiled(node)[0])
                dataplane.read()
                return dataplane.applied

        return self.lab.node(node).inside(read)

    def outcome(self, node: str, family: Family, packet: Packet) -> PacketOutcome:
        """Return what the simulator computes from the elements in the kernel that it asks for."""
        simulator = self.scenario.simulator(node, family)

        def compute() -> PacketOutcome:
            with Netlink() as netlink:
                elements = LiveTable(netlink, TABLE_FAMILY[family])
                return simulator._replace(elements=elements).first_packet(packet)

        return self.lab.node(node).inside(compute)

    # --- packets ---

    def packets(self, row: Row, family: Family) -> Iterator[Seen]:
        """Send packets of a row, one after the other; yield the result of each."""
        send = {"tcp": self._http, "udp": self._udp, "sctp": self._sctp, "ping": self._ping}[row.protocol]
        return (send(row, family, next(self._ports)) for _ in range(TRIES))

    def _sender(self, row: Row) -> Handle:
        return next(
            call(row.source)
            for call, hosts in (
                (self.lab.node, self.scenario.topology.nodes),
                (self.lab.pod, self.scenario.topology.pods),
                (self.lab.client, self.scenario.topology.clients),
            )
            if row.source in {host.name for host in hosts}
        )

    def _http(self, row: Row, family: Family, source_port: int) -> Seen:
        to = self.scenario.address(row.destination, family)
        with self._server(row, family):
            patience = SILENCE if row.silent else PATIENCE
            reply = http_get(self._sender(row), to, row.port, patience, source_port, patience=patience)
        return self._judge(row, family, source_port, reply)

    def _server(self, row: Row, family: Family) -> AbstractContextManager[object]:
        """Listen where an untouched packet arrives. Without an answer, conntrack forgets it immediately."""
        to = self.scenario.address(row.destination, family)
        for node in self.scenario.topology.nodes:
            if row.fate == "untouched" and to in self.scenario.local_addresses(node.name, family):
                server = self.lab.node(node.name).socket(AF[family], socket.SOCK_STREAM)
                server.bind((to, row.port))
                server.listen()
                return server
        return nullcontext()

    def _udp(self, row: Row, family: Family, source_port: int) -> Seen:
        to = self.scenario.address(row.destination, family)
        timeout = SILENCE if row.silent else PATIENCE
        reply = udp_ask(self._sender(row), to, row.port, timeout=timeout, source_port=source_port)
        return self._judge(row, family, source_port, reply)

    def _judge(self, row: Row, family: Family, source_port: int, reply: Reply) -> Seen:
        translated = self._translated(row, family, source_port, reply.outcome is Outcome.REFUSED)
        own = (self.scenario.source_address(row, family), source_port)
        if translated is None:
            return Seen(Fate.REFUSED if reply.outcome is Outcome.REFUSED else Fate.DROPPED, source_port)
        if not translated:
            return Seen(Fate.UNTOUCHED, source_port)
        masqueraded = (reply.client, reply.client_port) != own
        return Seen(Fate.TRANSLATED, source_port, reply.pod, reply.port, masqueraded)

    def _ping(self, row: Row, family: Family, source_port: int) -> Seen:
        to = self.scenario.address(row.destination, family)
        answered = echo(self._sender(row), to, timeout=SILENCE)
        translated = self._translated(row, family, None, refused=False)
        return Seen(Fate.DROPPED if translated is None and not answered else Fate.UNTOUCHED, source_port)

    # --- conntrack ---

    def _translated(self, row: Row, family: Family, source_port: int | None, refused: bool) -> bool | None:
        """Whether conntrack has a translated entry for the packet; None if it has no entry.

        A packet may still be on its way. So an entry is waited for, unless the row or the answer says that
        there is none.
        """
        track = partial(self._tracked, row, family, source_port)
        if not refused and row.fate not in (REFUSED, "dropped"):
            eventually(lambda: track() is not None, lambda: f"conntrack has no entry for {row}")
        return track()

    def _tracked(self, row: Row, family: Family, source_port: int | None) -> bool | None:
        """The same, without waiting."""
        entries = [
            self.lab.node(node).inside(partial(self._entry, row, family, source_port))
            for node, _ in self.scenario.path(row, family)
        ]
        return True if True in entries else entries[-1]

    def _entry(self, row: Row, family: Family, source_port: int | None) -> bool | None:
        source = ip_address(self.scenario.source_address(row, family))
        to = ip_address(self.scenario.address(row.destination, family))
        wanted = "icmp" if source_port is None else f" sport={source_port} dport={row.port} "
        for line in Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines():
            if wanted not in line:
                continue
            original, asked, by, *_ = map(ip_address, re.findall(r"(?:src|dst)=(\S+)", line))
            if (original, asked) == (source, to) and (source_port is None or row.protocol in line.split()):
                from_port = re.findall(r"sport=(\d+)", line)[1:]
                return (by, from_port) != (to, [str(row.port)] if source_port is not None else [])
        return None

    # --- SCTP ---

    def _listen(self, pod: str, family: Family) -> socket.socket:
        listener = self.lab.pod(pod).socket(AF[family], socket.SOCK_RAW, SCTP)
        listener.setblocking(False)
        self._stack.callback(listener.close)
        return listener

    def _sctp(self, row: Row, family: Family, source_port: int) -> Seen:
        to = self.scenario.address(row.destination, family)
        refused = False
        with self._sender(row).socket(AF[family], socket.SOCK_RAW, SCTP) as sender:
            level, name = (
                (socket.IPPROTO_IP, IP_RECVERR) if family == 4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
            )
            sender.setsockopt(level, name, 1)
            sender.settimeout(SILENCE if row.silent else PATIENCE)
            try:
                sender.connect((to, 0))
                with suppress(PermissionError):  # dropped in the sender's own output hook
                    sender.send(init_chunk(source_port, row.port))
                if row.fate != "translated":
                    sender.recv(65536)
            except OSError as error:
                refused = error.errno == errno.ECONNREFUSED
        translated = self._translated(row, family, source_port, refused)
        if translated is None:
            return Seen(Fate.REFUSED if refused else Fate.DROPPED, source_port)
        if not translated:
            return Seen(Fate.UNTOUCHED, source_port)
        pod, source, from_port, port = self._arrived(family, source_port)
        masqueraded = (source, from_port) != (self.scenario.source_address(row, family), source_port)
        return Seen(Fate.TRANSLATED, source_port, pod, port, masqueraded)

    def _arrived(self, family: Family, tag: int) -> tuple[str, str, int, int]:
        """Return the pod that received the INIT with this tag, its source address and port, and its port."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for pod, of, listener in self._sniffers:
                while of == family and (packet := _receive(listener)):
                    payload, source = packet
                    if payload[16:20] == tag.to_bytes(4, "big"):
                        ports = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
                        return pod, source, *ports
        return "", "", 0, 0


def _receive(listener: socket.socket) -> tuple[bytes, str] | None:
    try:
        data, source = listener.recvfrom(65536)
    except BlockingIOError:
        return None
    header = (data[0] & 15) * 4 if listener.family == socket.AF_INET else 0
    return data[header:], source[0]


def init_chunk(source_port: int, port: int) -> bytes:
    """Return an SCTP INIT. Its tag equals its source port."""
    from netns_lab.probe import quiet_scapy

    quiet_scapy()
    from scapy.layers.sctp import SCTP as Header
    from scapy.layers.sctp import SCTPChunkInit

    return bytes(Header(sport=source_port, dport=port) / SCTPChunkInit(init_tag=source_port))

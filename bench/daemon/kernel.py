"""Finds out when the kernel has an element, independently of kproxy.

`Probe` asks repeatedly for one element, which costs the kernel almost nothing. `Listener` is notified of each
element of each commit. The kernel must write these messages for any listener. kproxy itself is one, but only
after it has programmed everything for the first time. Before that, `Listener` would affect the measurement,
so `Probe` is used.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.process import Failed, until
from kproxy.kernel.netlink.core.codec import (
    NFPROTO,
    attribute,
    attributes,
    message,
    message_type,
    messages,
    nested,
    read_string,
    string,
)
from kproxy.kernel.netlink.core.constants import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    NFGENMSG_LEN,
    NFNL_SUBSYS_NFTABLES,
    NFNLGRP_NFTABLES,
    NFT_MSG_DELSETELEM,
    NFT_MSG_GETSETELEM,
    NFT_MSG_NEWSETELEM,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NLMSG_ERROR,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
)
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.model import Family, Protocol, parse_address
from kproxy.table.layout import TABLE, SetName, endpoints_map, frontend_key, pack_socket

ELEMENTS = {message_type(NFNL_SUBSYS_NFTABLES, kind) for kind in (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM)}
GET_ELEMENTS = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM)
ENDPOINTS = [endpoints_map(protocol) for protocol in Protocol]
PATIENCE = 300.0
"""Seconds until a wait fails."""
PAUSE = 0.0005
"""Seconds between two requests."""
BUFFER = 16 << 20


def listeners() -> int:
    """Return the number of sockets in all network namespaces that are notified of commits to nftables.

    If there is one, the kernel writes a message for every element of every transaction.
    """
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/task/[0-9]*/net/netlink"):
        with suppress(OSError):  # the process has ended
            for line in path.read_text().splitlines()[1:]:
                address, protocol, _, groups, *_ = line.split()
                if int(protocol) == NETLINK_NETFILTER and int(groups, 16) >> (NFNLGRP_NFTABLES - 1) & 1:
                    found.add(address)
    return len(found)


def socket_bytes(address: str, port: int) -> bytes:
    """Return an endpoint as in the kernel: address . port."""
    return pack_socket(parse_address(address), port)


def frontend_bytes(address: str, protocol: str, port: int) -> bytes:
    """Return a frontend as in the kernel: address . protocol . port. `protocol` is as in a Service: `TCP`."""
    return frontend_key(parse_address(address), Protocol(protocol.lower()), port)


class Probe:
    """Asks whether a map has an element: kproxy's `services`, or one with the same keys."""

    def __init__(self, frontend: bytes, table: str = TABLE, name: str = SetName.SERVICES) -> None:
        key = nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, frontend))
        body = string(NFTA_SET_ELEM_LIST_TABLE, table) + string(NFTA_SET_ELEM_LIST_SET, name)
        body += nested(NFTA_SET_ELEM_LIST_ELEMENTS, nested(NFTA_LIST_ELEM, key))
        self._question = message(GET_ELEMENTS, 0, 1, NFPROTO[Family.IPV4], body)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        self._socket.settimeout(PATIENCE)

    def has(self) -> bool:
        """Ask the kernel whether it has the element now."""
        self._socket.send(self._question)
        answer = self._socket.recv(1 << 14)
        (kind,) = struct.unpack_from("=4xH", answer)
        if kind != NLMSG_ERROR:
            return True
        (code,) = struct.unpack_from("=16xi", answer)
        if -code != errno.ENOENT:
            raise OSError(-code, "the kernel does not report an element")
        return False

    def when(self, present: bool, check: Callable[[], None] = lambda: None) -> float:
        """Wait until the element exists, or does not. Returns the time (time.monotonic).

        `check` raises Failed if there is nothing to wait for.
        """
        outcome = f"the element {'does not appear' if present else 'stays'} in the kernel"
        return until(lambda: self.has() is present, lambda: outcome, PATIENCE, PAUSE, check)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def of_kproxy(name: str) -> bool:
    """Return whether a map of kproxy has frontends or endpoints."""
    return name == SetName.SERVICES or name in ENDPOINTS


class Listener:
    """Records when frontends and endpoints are added or removed. Runs in a thread while it is entered."""

    def __init__(self, maps: Callable[[str], bool] = of_kproxy) -> None:
        """`maps` selects by name the maps that have them."""
        self._maps = maps
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        self._socket.settimeout(0.1)
        self._over = False
        self._seen: dict[bytes, float] = {}
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()

    def forget(self) -> None:
        """Forget the elements so far."""
        with self._news:
            self._seen.clear()

    def when(self, *what: bytes) -> float:
        """Wait until one of these is added or removed. Returns time.monotonic() then.

        They are endpoints (`socket_bytes`) and frontends (`frontend_bytes`).
        """
        with self._news:
            if not self._news.wait_for(lambda: not self._seen.keys().isdisjoint(what), PATIENCE):
                raise Failed("a change does not reach the kernel")
            return min(self._seen[each] for each in what if each in self._seen)

    def _listen(self) -> None:
        while not self._over:
            try:
                data = memoryview(self._socket.recv(1 << 18))
            except TimeoutError:
                continue
            now = time.monotonic()
            with self._news:
                for received in messages(data):
                    if received.kind in ELEMENTS:
                        self._note(received.content[NFGENMSG_LEN:], now)
                self._news.notify_all()

    def _note(self, content: memoryview, now: float) -> None:
        fields = dict(attributes(content))
        if self._maps(read_string(fields[NFTA_SET_ELEM_LIST_SET])):
            for _, element in attributes(fields[NFTA_SET_ELEM_LIST_ELEMENTS]):
                key, value = read_element(element)
                self._seen.setdefault(value if isinstance(value, bytes) else key, now)

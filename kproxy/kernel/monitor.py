"""Notifications of the kernel: another program changed kproxy's tables, or this host's addresses changed.

The kernel sends a message for each object of a commit to nftables, and at the end one with the new
generation. A filter in the kernel drops the messages of kproxy's own commits by their netlink port;
otherwise kproxy would receive its own first sync of 10,000 Services. If messages are lost because
the socket's buffer is full, everything counts as changed. Layout and numbers: linux/netlink.h,
linux/netfilter/nfnetlink.h, linux/rtnetlink.h, linux/filter.h.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kproxy.kernel.netlink.core.codec import NFPROTO, attributes, message_type, messages, read_string
from kproxy.kernel.netlink.core.constants import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_DROP_MEMBERSHIP,
    NETLINK_NETFILTER,
    NFGENMSG_LEN,
    NFNL_SUBSYS_NFTABLES,
    NFNLGRP_NFTABLES,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWGEN,
    NFT_MSG_NEWSETELEM,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_TABLE_NAME,
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
    SO_ATTACH_FILTER,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
)
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.limits import NETLINK_DATAGRAMS
from kproxy.model import Family
from kproxy.nft.elements import Keys
from kproxy.table.layout import TABLE

NEW_GENERATION = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN)
ELEMENTS = tuple(
    message_type(NFNL_SUBSYS_NFTABLES, kind) for kind in (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM)
)
# linux/bpf_common.h
BPF_LD, BPF_JMP, BPF_RET = 0x00, 0x05, 0x06
BPF_W, BPF_ABS, BPF_JEQ, BPF_K = 0x00, 0x20, 0x10, 0x00
PORT_OFFSET = 12
"""The offset of nlmsg_pid in a netlink header."""
BUFFER = 1 << 20
SETTLING = 0.1
"""Seconds to wait after the first change of addresses or routes: others follow if an interface comes up."""


class TableMonitor:
    """Receives changes that other programs make to kproxy's tables, in the process's network namespace."""

    def __init__(self, own_port: int) -> None:
        """`own_port` is the netlink port of kproxy's own commits."""
        self._socket = _listen(NETLINK_NETFILTER)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        _ignore_port(self._socket, own_port)

    def fileno(self) -> int:
        """Return the descriptor, to wait for messages."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the multicast group in this block. Changes in the meantime are not noticed.

        While any process on the machine listens, the kernel needs 4 kB for each element of a transaction.
        """
        self._set(NETLINK_DROP_MEMBERSHIP)
        try:
            yield
        finally:
            self._set(NETLINK_ADD_MEMBERSHIP)

    def _set(self, membership: int) -> None:
        with suppress(OSError):  # the socket is closed if the daemon ends during a round
            self._socket.setsockopt(SOL_NETLINK, membership, NFNLGRP_NFTABLES)

    def foreign_changes(self) -> dict[Family, Keys | None]:
        """Return the families whose table other programs changed since the last call.

        The value is the keys of added and deleted elements; None if anything else changed, or if messages
        were lost. If there are very many messages, some remain to be read by the next call; the descriptor is
        readable then.
        """
        found: dict[Family, Keys | None] = {}
        for _ in range(NETLINK_DATAGRAMS):
            try:
                data = memoryview(self._socket.recv(1 << 18))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = dict.fromkeys(Family)
                continue
            for message in messages(data):
                if message.kind != NEW_GENERATION:
                    _add(found, message.kind, message.content)
        return found


def _add(found: dict[Family, Keys | None], kind: int, content: memoryview) -> None:
    """Add a message about an object to the changes. Its first attribute names the table."""
    fields = dict(attributes(content[NFGENMSG_LEN:]))
    if read_string(fields.get(NFTA_TABLE_NAME, memoryview(b""))) != TABLE:
        return
    for family, number in NFPROTO.items():
        if number == content[0]:
            _merge(found, family, _keys(fields) if kind in ELEMENTS else None)


def _keys(fields: dict[int, memoryview]) -> Keys:
    """Return the keys of a message about elements."""
    name, elements = fields[NFTA_SET_ELEM_LIST_SET], attributes(fields[NFTA_SET_ELEM_LIST_ELEMENTS])
    return {read_string(name): {read_element(element)[0] for _, element in elements}}


def _merge(found: dict[Family, Keys | None], family: Family, keys: Keys | None) -> None:
    merged = found.setdefault(family, {})
    if keys is None or merged is None:
        found[family] = None
        return
    for name, more in keys.items():
        merged.setdefault(name, set()).update(more)


async def readable(listener: socket.socket | TableMonitor | int) -> None:
    """Wait until a descriptor is readable.

    The reader is removed afterwards; otherwise the loop would call it continuously until data is read.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


async def address_changes(changed: Callable[[], None]) -> None:
    """Call `changed` whenever this host's addresses, routes or interfaces may have changed. Never returns."""
    groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
    with _listen(socket.NETLINK_ROUTE, groups) as listener:
        while True:
            await readable(listener)
            await asyncio.sleep(SETTLING)
            _drain(listener)
            changed()


def _drain(listener: socket.socket) -> None:
    """Read and discard all messages. Lost messages (ENOBUFS) do not matter."""
    while True:
        try:
            listener.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _listen(protocol: int, groups: int = 0) -> socket.socket:
    listener = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
    )
    listener.bind((0, groups))
    with suppress(PermissionError):
        listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    return listener


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _ignore_port(listener: socket.socket, port: int) -> None:
    """Attach a filter that drops messages with this port. BPF loads words in network order."""
    swapped = int.from_bytes(struct.pack("=I", port), "big")
    instructions = (
        (BPF_LD | BPF_W | BPF_ABS, 0, 0, PORT_OFFSET),
        (BPF_JMP | BPF_JEQ | BPF_K, 0, 1, swapped),
        (BPF_RET | BPF_K, 0, 0, 0),
        (BPF_RET | BPF_K, 0, 0, 0xFFFFFFFF),
    )
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))

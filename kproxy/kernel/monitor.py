"""The kernel's own notifications: somebody changed our tables, or this host's addresses.

Every commit to nftables is told to those who listen, object by object, and ends with the number of
the generation that it made. Our own commits are left out by a filter in the kernel (by the socket
they come from), else a first sync of 10,000 services would be told to ourselves; those that
libnftables makes on a socket of its own are known by their generation. Lost notifications (the
socket's buffer was full) count as a change of everything. Layout and numbers: linux/netlink.h,
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
    NFTA_GEN_ID,
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
from kproxy.model import Family
from kproxy.nft.elements import Keys
from kproxy.table.names import TABLE

NEW_GENERATION = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN)
ELEMENTS = tuple(
    message_type(NFNL_SUBSYS_NFTABLES, kind) for kind in (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM)
)
# linux/bpf_common.h
BPF_LD, BPF_JMP, BPF_RET = 0x00, 0x05, 0x06
BPF_W, BPF_ABS, BPF_JEQ, BPF_K = 0x00, 0x20, 0x10, 0x00
PORT_OFFSET = 12
"""Where nlmsg_pid is in a netlink header."""
BUFFER = 1 << 20
AT_ONCE = 200
"""Datagrams that are read before others have their turn: some 40 ms, should somebody load a large set."""
SETTLING = 0.1
"""Seconds after the first change of addresses or routes: an interface that comes up has several."""


class TableMonitor:
    """Listens for changes of our tables by others, in the network namespace the process is in."""

    def __init__(self, own_port: int) -> None:
        """`own_port`: the netlink port whose commits are ours."""
        self._socket = _listen(NETLINK_NETFILTER)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        _leave_out(self._socket, own_port)
        self._touched: dict[Family, Keys | None] = {}

    def fileno(self) -> int:
        """For those who wait until there is something to read."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not listen for the moment; what happens meanwhile is not noticed.

        While anybody on the machine listens, the kernel holds 4 kB for each element of a transaction.
        """
        self._set(NETLINK_DROP_MEMBERSHIP)
        try:
            yield
        finally:
            self._set(NETLINK_ADD_MEMBERSHIP)

    def _set(self, membership: int) -> None:
        with suppress(OSError):  # closed: the round that is under way when the daemon ends goes on
            self._socket.setsockopt(SOL_NETLINK, membership, NFNLGRP_NFTABLES)

    def touched(self, is_ours: Callable[[int], bool]) -> dict[Family, Keys | None]:
        """The families whose table others changed since the last call; `is_ours` knows generations.

        With the elements that came or went, or None: there was more to it, or nobody knows.
        Where very much was told, not all of it is read at once: then there is still something to read.
        """
        found: dict[Family, Keys | None] = {}
        for _ in range(AT_ONCE):
            try:
                data = memoryview(self._socket.recv(1 << 18))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = dict.fromkeys(Family)
                continue
            for told in messages(data):
                if told.kind != NEW_GENERATION:
                    self._note(told.kind, told.content)
                elif self._touched:
                    fields = dict(attributes(told.content[NFGENMSG_LEN:]))
                    (generation,) = struct.unpack(">I", fields[NFTA_GEN_ID])
                    if not is_ours(generation):
                        for family, keys in self._touched.items():
                            _join(found, family, keys)
                    self._touched.clear()
        return found

    def _note(self, kind: int, content: memoryview) -> None:
        """A message about any object: its first attribute is the name of its table."""
        fields = dict(attributes(content[NFGENMSG_LEN:]))
        if read_string(fields.get(NFTA_TABLE_NAME, memoryview(b""))) != TABLE:
            return
        for family, number in NFPROTO.items():
            if number == content[0]:
                _join(self._touched, family, _keys(fields) if kind in ELEMENTS else None)


def _keys(fields: dict[int, memoryview]) -> Keys:
    """The elements of a message: TABLE, SET, ELEMENTS."""
    name, elements = fields[NFTA_SET_ELEM_LIST_SET], attributes(fields[NFTA_SET_ELEM_LIST_ELEMENTS])
    return {read_string(name): {read_element(element)[0] for _, element in elements}}


def _join(found: dict[Family, Keys | None], family: Family, keys: Keys | None) -> None:
    known = found.setdefault(family, {})
    if keys is None or known is None:
        found[family] = None
        return
    for name, more in keys.items():
        known.setdefault(name, set()).update(more)


async def readable(listener: socket.socket | TableMonitor | int) -> None:
    """Wait until there is something to read.

    A reader that stays would be called again and again until it is read, which may be much later.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


async def address_changes(changed: Callable[[], None]) -> None:
    """Call `changed` whenever this host's addresses, routes or interfaces may be others; never returns."""
    groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
    with _listen(socket.NETLINK_ROUTE, groups) as listener:
        while True:
            await readable(listener)
            await asyncio.sleep(SETTLING)
            _drain(listener)
            changed()


def _drain(listener: socket.socket) -> None:
    """Read all there is; what was lost (ENOBUFS) is as good as read."""
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


def _leave_out(listener: socket.socket, port: int) -> None:
    """A filter that takes no message whose header names this port. It loads words in network order."""
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

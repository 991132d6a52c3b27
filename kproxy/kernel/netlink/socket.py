"""The socket to netfilter: dumps, batches, and single messages."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from kproxy.kernel.netlink.core.batch import Batch, BatchMessage, Refusal
from kproxy.kernel.netlink.core.codec import (
    NFPROTO,
    Message,
    attributes,
    message,
    message_type,
    messages,
    read_error,
    string,
)
from kproxy.kernel.netlink.core.constants import (
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_NETFILTER,
    NFGENMSG_LEN,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_GETGEN,
    NFT_MSG_GETSETELEM,
    NFTA_GEN_ID,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SOL_NETLINK,
)
from kproxy.model import Family
from kproxy.problems import HostError, KproxyError
from kproxy.table.names import TABLE

TIMEOUT = 30
"""Seconds that the kernel has to answer."""
DATAGRAM = 1 << 18
"""Bytes per read; the kernel's datagrams are shorter."""
TOGETHER = 500
"""Single messages per system call: all their answers must fit into the socket's buffer."""


class NetlinkError(OSError):
    """The kernel refused a message or a batch: `errno` says why, `refusals` which messages of the batch."""

    def __init__(self, number: int, refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__(number, os.strerror(number))
        self.refusals = refusals


class Interrupted(KproxyError):
    """The ruleset changed during a dump, which may be incomplete: try again."""

    def __init__(self, message: str = "The kernel's tables changed while they were read.") -> None:
        super().__init__(message, "Another program keeps changing them: try again.")


class Netlink:
    """A socket to netfilter in the network namespace that the thread is in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
            self._socket.bind((0, 0))
            self._socket.settimeout(TIMEOUT)
            # The kernel returns only the header of a message that it refuses. Else it would return 60 kB of
            # each, and fill the buffer.
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            # It also says which attribute it refuses. An answer takes 832 bytes of the buffer either way.
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            self._make_room(SO_RCVBUFFORCE, socket.SO_RCVBUF, 4 << 20)
        except OSError as error:
            raise _unusable(error) from None
        self._sequence = 0
        self.commits = 0
        """Batches that the kernel accepted from this socket: each makes a generation of the ruleset."""

    @property
    def port(self) -> int:
        """The kernel's number for this socket; notifications of a commit carry it."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_room(self, force: int, ask: int, size: int) -> None:
        """Enlarge a buffer, beyond the system's limit if allowed: not in a user namespace (namespace.py)."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, ask, size)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _replies(self, sequence: int) -> Iterator[Message]:
        """The answers to the requests from this sequence number on, as they arrive."""
        while True:
            for reply in messages(memoryview(self._socket.recv(DATAGRAM))):
                if reply.sequence >= sequence:
                    yield reply

    def _answers(self, sequence: int) -> Iterator[Message]:
        """All answers to a batch; the kernel queues them before `send` returns.

        If the buffer is too small, the kernel drops the later ones, and all further messages until the buffer
        is empty.
        """
        self._socket.settimeout(0)
        try:
            while True:
                try:
                    yield from self._replies(sequence)
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
        finally:
            self._socket.settimeout(TIMEOUT)

    def dump(self, kind: int, family: Family, body: bytes = b"") -> Iterator[memoryview]:
        """The attributes of each nf_tables object; `kind` is an NFT_MSG_GET*.

        NetlinkError (ENOENT: no such table or set), Interrupted.
        """
        return self.listing(message_type(NFNL_SUBSYS_NFTABLES, kind), family, body)

    def listing(self, kind: int, family: Family, body: bytes) -> Iterator[memoryview]:
        """The same for any of netfilter's subsystems; `kind` is a `message_type`."""
        sequence = self._next()
        self._socket.send(message(kind, NLM_F_DUMP, sequence, NFPROTO[family], body))
        interrupted = False
        for reply in self._replies(sequence):
            interrupted |= bool(reply.flags & NLM_F_DUMP_INTR)
            if reply.kind == NLMSG_DONE:
                break
            if reply.kind == NLMSG_ERROR:
                _check(reply)
                break
            yield reply.content[NFGENMSG_LEN:]
        if interrupted:
            raise Interrupted

    def generation(self) -> int:
        """The number of the ruleset's generation; each commit by any program increases it."""
        sequence, family = self._next(), NFPROTO[Family.IPV4]
        kind = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN)
        self._socket.send(message(kind, 0, sequence, family, b""))
        reply = next(self._replies(sequence))
        if reply.kind == NLMSG_ERROR:
            try:
                _check(reply)
            except NetlinkError as error:
                raise _unusable(error) from None
        (number,) = struct.unpack(">I", dict(attributes(reply.content[NFGENMSG_LEN:]))[NFTA_GEN_ID])
        return int(number)

    def each(self, kind: int, family: Family, bodies: Sequence[bytes], flags: int = 0) -> list[NetlinkError]:
        """Send single messages; the errors of those that the kernel refuses."""
        failures: list[NetlinkError] = []
        for start in range(0, len(bodies), TOGETHER):
            begin, parts = self._sequence + 1, []
            for body in bodies[start : start + TOGETHER]:
                parts.append(message(kind, flags, self._next(), NFPROTO[family], body))
            parts[-1] = message(kind, flags | NLM_F_ACK, self._sequence, NFPROTO[family], body)
            self._socket.send(b"".join(parts))
            for reply in self._replies(begin):
                if reply.kind != NLMSG_ERROR:
                    continue
                try:
                    _check(reply)
                except NetlinkError as error:
                    failures.append(error)
                if reply.sequence == self._sequence:
                    break
        return failures

    def elements(self, family: Family, name: str) -> Iterator[memoryview]:
        """The packed elements of a set or map of kproxy's table."""
        wanted = string(NFTA_SET_ELEM_LIST_TABLE, TABLE) + string(NFTA_SET_ELEM_LIST_SET, name)
        for content in self.dump(NFT_MSG_GETSETELEM, family, wanted):
            for kind, elements in attributes(content):
                if kind == NFTA_SET_ELEM_LIST_ELEMENTS:
                    for _, element in attributes(elements):
                        yield element

    def commit(self, contents: Iterable[BatchMessage]) -> int:
        """Send a batch; the kernel applies all of it, or nothing (NetlinkError). Its size in bytes."""
        batch = Batch(contents, self._sequence + 1)
        if not batch.messages:
            return 0
        self._sequence = batch.end
        packed = batch.pack()
        self._make_room(SO_SNDBUFFORCE, socket.SO_SNDBUF, max(2 * len(packed), 1 << 17))
        try:
            self._socket.send(packed)
        except OSError as error:  # larger than the buffer can be
            raise NetlinkError(error.errno or errno.EMSGSIZE) from None
        result = batch.read(self._answers(batch.begin))
        if result.errno:
            raise NetlinkError(result.errno, result.refusals)
        self.commits += 1
        return len(packed)


def _unusable(error: OSError) -> HostError:
    text = f"The kernel's nftables cannot be used: {error.strerror}."
    if error.errno in (errno.EPERM, errno.EACCES):
        return HostError(text, "It needs CAP_NET_ADMIN, which root may lack in a container.")
    return HostError(text, "It needs nf_tables in the kernel (modprobe nf_tables).")


def _check(reply: Message) -> None:
    """Raise NetlinkError unless the answer is an acknowledgement."""
    number = read_error(reply).errno
    if number:
        raise NetlinkError(number)


def is_missing(error: OSError) -> bool:
    """Whether the kernel says that there is no such table, set or element."""
    return error.errno == errno.ENOENT

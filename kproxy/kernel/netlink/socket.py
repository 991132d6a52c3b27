"""The socket to netfilter: dumps, batches, and single messages."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from kproxy.kernel.netlink.core.codec import (
    NFPROTO,
    NFPROTO_OF_TABLES,
    Batch,
    BatchMessage,
    Message,
    attributes,
    message,
    message_type,
    messages,
    nested,
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
from kproxy.kernel.netlink.core.elements import KernelRefusal, pack_elements, refusals
from kproxy.limits import NETLINK_SECONDS
from kproxy.model import Family
from kproxy.problems import HostError, KproxyError
from kproxy.table.layout import TABLE

DATAGRAM = 1 << 18
"""The number of bytes to read at once. The kernel's datagrams are shorter."""
GET_ELEMENT = message_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM)
MESSAGES_PER_SEND = 500
"""Single messages per system call. All their answers must fit into the socket's buffer."""


class NetlinkError(OSError):
    """The kernel refused a message or a batch. `refusals` are the refused messages of a batch."""

    def __init__(self, number: int, refusals: tuple[KernelRefusal, ...] = ()) -> None:
        super().__init__(number, os.strerror(number))
        self.refusals = refusals


class Interrupted(KproxyError):
    """The ruleset changed during a dump, so the dump may be incomplete."""

    def __init__(self, message: str = "The kernel's tables changed while they were read.") -> None:
        super().__init__(message, "Another program changes them at the same time. Try again.")


def _open_here() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)


class Netlink:
    """A socket to netfilter, in one network namespace."""

    def __init__(self, opened: Callable[[], socket.socket] = _open_here) -> None:
        """`opened` returns the socket: by default, in the network namespace of the calling thread."""
        try:
            self._socket = opened()
            self._socket.bind((0, 0))
            self._socket.settimeout(NETLINK_SECONDS)
            # Of a refused message, the kernel returns only the header. Without this option it would return
            # the whole message of up to 60 kB, and fill the buffer.
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            # The answer also names the refused attribute. It takes 832 bytes of the buffer in either case.
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            self._enlarge_buffer(SO_RCVBUFFORCE, socket.SO_RCVBUF, 4 << 20)
        except OSError as error:
            raise unusable(error) from None
        self._sequence = 0
        self.commits = 0
        """The number of batches that the kernel accepted from this socket. Each creates a generation."""

    @property
    def port(self) -> int:
        """The kernel's number of this socket. Notifications of its commits contain it."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enlarge_buffer(self, force_option: int, option: int, size: int) -> None:
        """Set the size of a buffer. In a user namespace (fresh_namespace.py), the system's limit applies."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force_option, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, option, size)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _replies(self, sequence: int) -> Iterator[Message]:
        """Return the answers to requests with this sequence number or a later one, as they arrive."""
        while True:
            for reply in messages(memoryview(self._socket.recv(DATAGRAM))):
                if reply.sequence >= sequence:
                    yield reply

    def _answers(self, sequence: int) -> Iterator[Message]:
        """Return all answers to a batch. The kernel has queued them when `send` returns.

        If the buffer is full, the kernel drops further answers until the buffer is empty.
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
            self._socket.settimeout(NETLINK_SECONDS)

    def dump(self, kind: int, family: str, body: bytes = b"") -> Iterator[memoryview]:
        """Return the attributes of each nf_tables object. `kind` is an NFT_MSG_GET*, `family` nft's name.

        Raises NetlinkError (ENOENT if there is no such table or set) and Interrupted.
        """
        return self.listing(message_type(NFNL_SUBSYS_NFTABLES, kind), family, body)

    def listing(self, kind: int, family: str, body: bytes) -> Iterator[memoryview]:
        """Dump the objects of any subsystem of netfilter. `kind` is a `message_type`. Errors as of `dump`."""
        sequence = self._next()
        self._socket.send(message(kind, NLM_F_DUMP, sequence, NFPROTO_OF_TABLES[family], body))
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

    def get(self, kind: int, family: Family, body: bytes = b"") -> memoryview:
        """Return the attributes of one nf_tables object. `kind` is an NFT_MSG_GET*.

        Raises NetlinkError (ENOENT if there is no such object).
        """
        sequence = self._next()
        message_kind = message_type(NFNL_SUBSYS_NFTABLES, kind)
        self._socket.send(message(message_kind, 0, sequence, NFPROTO[family], body))
        reply = next(self._replies(sequence))
        if reply.kind == NLMSG_ERROR:
            _check(reply)
        return reply.content[NFGENMSG_LEN:]

    def generation(self) -> int:
        """Return the number of the ruleset's generation. Each commit by any program increases it."""
        try:
            content = self.get(NFT_MSG_GETGEN, Family.IPV4)
        except NetlinkError as error:
            raise unusable(error) from None
        (number,) = struct.unpack(">I", dict(attributes(content))[NFTA_GEN_ID])
        return int(number)

    def each(self, kind: int, family: Family, bodies: Sequence[bytes], flags: int = 0) -> list[NetlinkError]:
        """Send independent messages. Returns the errors of those that the kernel refuses."""
        failures: list[NetlinkError] = []
        for start in range(0, len(bodies), MESSAGES_PER_SEND):
            begin, parts = self._sequence + 1, []
            for body in bodies[start : start + MESSAGES_PER_SEND]:
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
        """Return the packed elements of a set or map of kproxy's table."""
        for content in self.element_lists(family, name):
            yield from listed_elements(content)

    def element_lists(self, family: Family, name: str) -> Iterator[memoryview]:
        """Return the packed elements in lists, which `listed_elements` reads."""
        return self.dump(NFT_MSG_GETSETELEM, family, _set_of_table(name))

    def element(self, family: Family, name: str, key: bytes) -> memoryview | None:
        """Return the packed element with a key in a set or map of kproxy's table; None if there is none.

        Not for sets whose keys are ranges. Raises NetlinkError if the kernel does not answer the question.
        """
        found = self.one(GET_ELEMENT, family, _set_of_table(name) + _key(key))
        return None if found is None else next(listed_elements(found), None)

    def some_elements(self, family: Family, name: str, keys: Sequence[bytes]) -> Iterator[memoryview]:
        """Return the packed elements with these keys, as `element` does. Missing ones are left out.

        The answers to all keys must fit into the buffer of the socket; those to MESSAGES_PER_SEND do.
        """
        begin, head = self._sequence + 1, _set_of_table(name)
        number = NFPROTO[family]
        parts = [message(GET_ELEMENT, 0, self._next(), number, head + _key(key)) for key in keys]
        if parts:
            self._socket.send(b"".join(parts))
        for reply in islice(self._replies(begin), len(parts)):  # to each message there is one answer
            if reply.kind != NLMSG_ERROR:
                yield from listed_elements(reply.content[NFGENMSG_LEN:])
            elif read_error(reply).errno != errno.ENOENT:
                _check(reply)

    def one(self, kind: int, family: Family, body: bytes) -> memoryview | None:
        """Return the attributes of one object of any subsystem of netfilter; None if it does not exist.

        `kind` is a `message_type`. Raises NetlinkError if the kernel refuses the question.
        """
        sequence = self._next()
        self._socket.send(message(kind, 0, sequence, NFPROTO[family], body))
        reply = next(self._replies(sequence))
        if reply.kind == NLMSG_ERROR:
            if read_error(reply).errno != errno.ENOENT:
                _check(reply)
            return None
        return reply.content[NFGENMSG_LEN:]

    def commit(self, contents: Iterable[BatchMessage]) -> int:
        """Send a batch, which the kernel applies completely or not at all. Returns its size in bytes.

        Raises NetlinkError if the kernel refuses it.
        """
        batch = Batch(contents, self._sequence + 1)
        if not batch.messages:
            return 0
        self._sequence = batch.end
        packed = batch.pack()
        self._enlarge_buffer(SO_SNDBUFFORCE, socket.SO_SNDBUF, max(2 * len(packed), 1 << 17))
        try:
            self._socket.send(packed)
        except OSError as error:  # the batch exceeds the maximum size of the buffer
            raise NetlinkError(error.errno or errno.EMSGSIZE) from None
        result = batch.read(self._answers(batch.begin))
        if result.errno:
            raise NetlinkError(result.errno, refusals(result.refused))
        self.commits += 1
        return len(packed)


def _set_of_table(name: str) -> bytes:
    """Return the attributes that name a set or map of kproxy's table."""
    return string(NFTA_SET_ELEM_LIST_TABLE, TABLE) + string(NFTA_SET_ELEM_LIST_SET, name)


def _key(key: bytes) -> bytes:
    """Return the attribute that names an element."""
    return nested(NFTA_SET_ELEM_LIST_ELEMENTS, *pack_elements({key: b""}))


def listed_elements(content: memoryview) -> Iterator[memoryview]:
    """Return the packed elements in an answer of the kernel."""
    for _, element in attributes(element_list(content)):
        yield element


def element_list(content: memoryview) -> memoryview:
    """Return the list of packed elements in an answer of the kernel."""
    return dict(attributes(content)).get(NFTA_SET_ELEM_LIST_ELEMENTS, memoryview(b""))


def unusable(error: OSError) -> HostError:
    """Return the error that says that this process cannot use nftables."""
    text = f"Cannot use nftables in the kernel: {error.strerror}."
    if error.errno in (errno.EPERM, errno.EACCES):
        return HostError(text, "kproxy needs CAP_NET_ADMIN, which root may lack in a container.")
    return HostError(text, "kproxy needs nf_tables in the kernel (modprobe nf_tables).")


def _check(reply: Message) -> None:
    """Raise NetlinkError if the answer is an error, and HostError if this process lacks rights."""
    number = read_error(reply).errno
    if number in (errno.EPERM, errno.EACCES):
        raise unusable(NetlinkError(number))
    if number:
        raise NetlinkError(number)


def is_missing(error: OSError) -> bool:
    """Whether the error says that a table, set or element does not exist."""
    return error.errno == errno.ENOENT

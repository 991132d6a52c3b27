"""Netfilter over netlink, for what has to be fast: elements out and in, dumps, one batch per transaction.

Written for elements by the ten thousand: an element is packed by joining four byte strings,
and read by position. The rules and declarations are libnftables' work (libnftables.py), save
the one rule that its older versions cannot take. Layout and numbers: linux/netlink.h,
linux/netfilter/nfnetlink.h and nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias

from kproxy.model import Family
from kproxy.nft.elements import RANGES, Value, Verdict
from kproxy.nft.ruleset import TABLE, AffinityUpdate
from kproxy.problems import HostError, KproxyError

NETLINK_NETFILTER = 12
SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP, CREATE, APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
DUMP_INTERRUPTED = 0x10
NESTED = 0x8000
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SOL_NETLINK, CAP_ACK = 270, 10
FAMILIES = {Family.IPV4: 2, Family.IPV6: 10}
GOTO, JUMP = -4, -3
VERDICTS = {0: "drop", 1: "accept", -5: "return", -1: "continue"}
CHUNK = 60_000
"""Bytes of elements per message: an attribute's length has 16 bits."""
TOGETHER = 500
"""Messages without a transaction per system call: their answers must fit into the socket's buffer."""
COUNTER = b"counter\0"
KEY, DATA, FLAGS, USERDATA, KEY_END = 1, 2, 3, 6, 10  # NFTA_SET_ELEM_*
CATCH_ALL = 2  # NFT_SET_ELEM_CATCHALL
ELEMENT_COMMENT = 0  # type of the record in an element's user data


class Message(IntEnum):
    """NFT_MSG_*."""

    GETTABLE = 1
    GETCHAIN = 4
    NEWRULE = 6
    GETRULE = 7
    GETSET = 10
    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14
    GETGEN = 16
    DESTROYSETELEM = 30


BatchMessage: TypeAlias = tuple[Message, int, Family, bytes]
"""One message of a batch: what it does, flags, family, attributes."""


class NetlinkError(OSError):
    """The kernel refused a message; `errno` is its reason."""


class Interrupted(KproxyError):
    """The ruleset changed while it was being dumped; try again."""

    def __init__(self, message: str = "The kernel's tables changed while they were read.") -> None:
        super().__init__(message, "Somebody keeps changing them: try again.")


# --- packing ---


def attribute(kind: int, data: bytes) -> bytes:
    """A netlink attribute, padded to four bytes."""
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NESTED, b"".join(attributes))


def string(kind: int, text: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(kind, text.encode() + b"\0")


def be32(kind: int, number: int) -> bytes:
    """A 32-bit number in network order."""
    return attribute(kind, struct.pack(">I", number & 0xFFFFFFFF))


def message(kind: int, flags: int, sequence: int, family: int, body: bytes, resource: int = 0) -> bytes:
    """A netlink message with nfnetlink's header."""
    header = struct.pack("=IHHII", len(body) + 20, kind, flags | REQUEST, sequence, 0)
    return header + struct.pack(">BBH", family, 0, resource) + body


def _nft(kind: Message, flags: int, sequence: int, family: Family, body: bytes) -> bytes:
    return message(SUBSYSTEM << 8 | kind, flags, sequence, FAMILIES[family], body)


def _verdict_value(text: str) -> bytes:
    action, _, chain = text.partition(" ")
    code = {"goto": GOTO, "jump": JUMP}[action]
    return nested(DATA, nested(2, be32(1, code), string(2, chain)))  # { VERDICT { CODE, CHAIN } }


@lru_cache
def _data(kind: int, width: int) -> bytes:
    """What comes before `width` bytes of data: kind { VALUE }. Registers are whole words: nothing to pad."""
    return struct.pack("=HHHH", width + 8, kind | NESTED, width + 4, 1)


@lru_cache
def _element(width: int) -> bytes:
    """What comes before `width` bytes of an element."""
    return struct.pack("=HH", width + 4, 1 | NESTED)


def pack_elements(members: Mapping[bytes, Value], ranges: bool = False) -> Iterator[bytes]:
    """Each element as an attribute, ready to be joined. With `ranges`, a key is a first and a last one."""
    verdicts: dict[str, bytes] = {}
    for key, value in members.items():
        if not key:
            body = be32(FLAGS, CATCH_ALL)
        elif ranges:
            width = len(key) // 2
            body = _data(KEY, width) + key[:width] + _data(KEY_END, width) + key[width:]
        else:
            body = _data(KEY, len(key)) + key
        if isinstance(value, Verdict):
            if value.text not in verdicts:
                verdicts[value.text] = _verdict_value(value.text)
            body += verdicts[value.text]
            if value.comment:
                comment = value.comment.encode() + b"\0"
                body += attribute(USERDATA, bytes([ELEMENT_COMMENT, len(comment)]) + comment)
        elif value:
            body += _data(DATA, len(value)) + value
        yield _element(len(body)) + body


def _chunks(elements: Iterable[bytes]) -> Iterator[bytes]:
    chunk, size = [], 0
    for element in elements:
        chunk.append(element)
        size += len(element)
        if size > CHUNK:
            yield b"".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, string(1, name), nested(2, *attributes))


def _conntrack(register: int, key: int, direction: int) -> bytes:
    return _expression("ct", be32(1, register), be32(2, key), attribute(3, bytes([direction])))


def affinity_rule(update: AffinityUpdate) -> bytes:
    """The expressions of an affinity rule; nft lists it as it lists libnftables' own.

    The map's key is put together in consecutive 32-bit registers from 1 on (register 1 is 16 bytes
    wide, 8 + n the n-th word), its value right behind it.
    """
    words = update.family.width // 4
    source, destination = (19, 20) if update.family is Family.IPV4 else (21, 22)

    def register(word: int) -> int:
        return word // 4 + 1 if word % 4 == 0 else 8 + word

    return nested(
        4,
        _expression("meta", be32(2, 16), be32(1, 1)),  # l4proto -> register 1
        _expression("cmp", be32(1, 1), be32(2, 0), nested(3, attribute(1, bytes([update.protocol.number])))),
        _conntrack(register(0), source, 0),
        _conntrack(register(words), destination, 0),
        _conntrack(register(2 * words), 12, 0),  # original proto-dst
        _conntrack(register(2 * words + 1), source, 1),
        _conntrack(register(3 * words + 1), 11, 1),  # reply proto-src
        _expression(
            "dynset",
            string(1, f"affinity-{update.protocol}"),
            be32(3, 1),  # update
            be32(4, register(0)),
            be32(5, register(2 * words + 1)),
            attribute(6, struct.pack(">Q", update.timeout * 1000)),
        ),
    )


# --- reading ---


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in a message's body: type without flags, content."""
    position = 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        yield kind & 0x3FFF, data[position + 4 : position + length]
        position += (length + 3) & ~3


def read_string(data: memoryview) -> str:
    """A NUL-terminated string."""
    return bytes(data).rstrip(b"\0").decode(errors="replace")


def _read_verdict(data: memoryview) -> str:
    fields = dict(attributes(data))
    (code,) = struct.unpack(">i", fields[1])
    if code in (GOTO, JUMP):
        return f"{'goto' if code == GOTO else 'jump'} {read_string(fields[2])}"
    return VERDICTS.get(code, str(code))


def _read_comment(data: memoryview) -> str:
    position = 0
    while position + 2 <= len(data):
        kind, length = data[position], data[position + 1]
        if kind == ELEMENT_COMMENT:
            return read_string(data[position + 2 : position + 2 + length])
        position += 2 + length
    return ""


def read_element(data: memoryview, ranges: bool = False) -> tuple[bytes, Value]:
    """Key and value of one element of a dump. Counters and time-outs are passed over."""
    key, last, value, comment = b"", b"", b"", ""
    verdict: str | None = None
    for kind, content in attributes(data):
        if kind == KEY:  # { VALUE }
            key = bytes(content[4:])
        elif kind == DATA:  # { VALUE | VERDICT }
            if struct.unpack_from("=HH", content)[1] & 0x3FFF == 1:
                value = bytes(content[4:])
            else:
                verdict = _read_verdict(content[4:])
        elif kind == USERDATA:
            comment = _read_comment(content)
        elif kind == KEY_END:  # { VALUE }
            last = bytes(content[4:])
    if ranges:
        key += last or key
    return key, (value if verdict is None else Verdict(verdict, comment))


def read_counter(element: memoryview) -> tuple[bytes, bytes, int]:
    """Key, value and counted packets (0 without a counter) of one element of a map that counts.

    By position, as 100,000 of them are read for one scrape: KEY { VALUE }, DATA { VALUE }, and
    EXPR { NAME "counter", DATA { BYTES, PACKETS } }, in this order since counters can be in elements.
    """
    key_end = 4 + int.from_bytes(element[4:6], sys.byteorder)
    value_end = key_end + 4 + int.from_bytes(element[key_end + 4 : key_end + 6], sys.byteorder)
    counted = 0
    if element[value_end + 8 : value_end + 16] == COUNTER:
        counted = int.from_bytes(element[value_end + 36 : value_end + 44], "big")
    return bytes(element[8:key_end]), bytes(element[key_end + 8 : value_end]), counted


class Netlink:
    """A socket to netfilter in the network namespace that the thread is in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
            self._socket.bind((0, 0))
            self._socket.settimeout(30)
            # Of a message that is refused only the header comes back: 60 kB of each would fill the buffer.
            self._socket.setsockopt(SOL_NETLINK, CAP_ACK, 1)
            self._make_room(SO_RCVBUFFORCE, socket.SO_RCVBUF, 4 << 20)
        except OSError as error:
            raise _unusable(error) from None
        self._sequence = 0
        self.commits = 0
        """How many transactions of ours the kernel took: each makes a generation."""

    @property
    def port(self) -> int:
        """What the kernel calls this socket: whose commits are this one's."""
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
        """Beyond the system's limit, where we may: not in a user namespace of our own (namespace.py)."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, ask, size)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _replies(self, sequence: int) -> Iterator[tuple[int, int, memoryview]]:
        """Type, flags and content of the messages that answer, as they come."""
        while True:
            data = memoryview(self._socket.recv(1 << 18))
            position = 0
            while position < len(data):
                length, kind, flags, number, _ = struct.unpack_from("=IHHII", data, position)
                if number >= sequence:
                    yield kind, flags, data[position + 16 : position + length]
                position += (length + 3) & ~3

    def dump(self, kind: Message, family: Family, body: bytes = b"") -> Iterator[memoryview]:
        """The attributes of every object; NetlinkError (ENOENT: no such table or set), Interrupted."""
        return self.listing(SUBSYSTEM << 8 | kind, family, body)

    def listing(self, kind: int, family: Family, body: bytes) -> Iterator[memoryview]:
        """What a message of any of netfilter's subsystems lists; errors as of `dump`."""
        sequence = self._next()
        self._socket.send(message(kind, DUMP, sequence, FAMILIES[family], body))
        interrupted = False
        for reply, flags, content in self._replies(sequence):
            interrupted |= bool(flags & DUMP_INTERRUPTED)
            if reply == NLMSG_DONE:
                break
            if reply == NLMSG_ERROR:
                _check(content)
                break
            yield content[4:]
        if interrupted:
            raise Interrupted

    def generation(self) -> int:
        """The number of the ruleset's generation; every commit by anyone makes it another."""
        sequence = self._next()
        self._socket.send(_nft(Message.GETGEN, 0, sequence, Family.IPV4, b""))
        for reply, _, content in self._replies(sequence):
            if reply == NLMSG_ERROR:
                try:
                    _check(content)
                except NetlinkError as error:
                    raise _unusable(error) from None
            (number,) = struct.unpack(">I", dict(attributes(content[4:]))[1])
            return int(number)
        raise AssertionError("unreachable: a socket that ends raises")

    def each(self, kind: int, family: Family, bodies: Sequence[bytes], flags: int = 0) -> list[NetlinkError]:
        """Send messages that stand each for itself; why those were refused that were."""
        failures: list[NetlinkError] = []
        for start in range(0, len(bodies), TOGETHER):
            begin, parts = self._sequence + 1, []
            for body in bodies[start : start + TOGETHER]:
                parts.append(message(kind, flags, self._next(), FAMILIES[family], body))
            parts[-1] = message(kind, flags | ACK, self._sequence, FAMILIES[family], body)
            self._socket.send(b"".join(parts))
            for reply, _, content in self._replies(begin):
                if reply != NLMSG_ERROR:
                    continue
                try:
                    _check(content)
                except NetlinkError as error:
                    failures.append(error)
                if struct.unpack_from("=I", content, 12)[0] == self._sequence:
                    break
        return failures

    def elements(self, family: Family, name: str) -> Iterator[memoryview]:
        """The elements of a set or map of our table, raw."""
        for content in self.dump(Message.GETSETELEM, family, string(1, TABLE) + string(2, name)):
            for kind, elements in attributes(content):
                if kind == 3:
                    for _, element in attributes(elements):
                        yield element

    def commit(self, messages: Iterable[BatchMessage]) -> int:
        """Send a batch: all of it is applied or nothing. Its size in bytes, 0 if empty; NetlinkError."""
        begin = self._next()
        parts = [message(BATCH_BEGIN, 0, begin, 0, b"", SUBSYSTEM)]
        parts += [
            _nft(kind, flags | ACK, self._next(), family, body) for kind, flags, family, body in messages
        ]
        last = self._sequence
        if last == begin:
            return 0
        parts.append(message(BATCH_END, 0, self._next(), 0, b"", SUBSYSTEM))
        batch = b"".join(parts)
        self._make_room(SO_SNDBUFFORCE, socket.SO_SNDBUF, max(2 * len(batch), 1 << 17))
        try:
            self._socket.send(batch)
        except OSError as error:  # larger than the buffer may be
            raise NetlinkError(error.errno, error.strerror) from None
        failure: NetlinkError | None = None
        for reply, _, content in self._replies(begin):
            if reply != NLMSG_ERROR:
                continue
            (sequence,) = struct.unpack_from("=I", content, 12)
            try:
                _check(content)
            except NetlinkError as error:
                failure = failure or error
                if sequence == begin:
                    break
            if sequence >= last:
                break
        if failure:
            raise failure
        self.commits += 1
        return len(batch)


def _unusable(error: OSError) -> HostError:
    text = f"The kernel's nftables cannot be used: {error.strerror}."
    if error.errno in (errno.EPERM, errno.EACCES):
        return HostError(text, "It needs CAP_NET_ADMIN, which root may lack in a container.")
    return HostError(text, "It needs nf_tables in the kernel (modprobe nf_tables).")


def _check(content: memoryview) -> None:
    """Raise for an error message; an acknowledgement has the error 0."""
    (code,) = struct.unpack_from("=i", content)
    if code:
        raise NetlinkError(-code, os.strerror(-code))


def element_messages(
    kind: Message, family: Family, name: str, members: Mapping[bytes, Value]
) -> Iterator[BatchMessage]:
    """The messages that add or remove elements of one set or map."""
    flags = CREATE if kind is Message.NEWSETELEM else 0
    head = string(1, TABLE) + string(2, name)
    for chunk in _chunks(pack_elements(members, ranges=name == RANGES)):
        yield kind, flags, family, head + attribute(3 | NESTED, chunk)


def rule_message(chain: str, update: AffinityUpdate) -> BatchMessage:
    """The message that appends an affinity rule to a chain."""
    body = string(1, TABLE) + string(2, chain) + affinity_rule(update)
    return Message.NEWRULE, CREATE | APPEND, update.family, body


def is_missing(error: OSError) -> bool:
    """Whether the kernel says that there is no such table, set or element."""
    return error.errno == errno.ENOENT

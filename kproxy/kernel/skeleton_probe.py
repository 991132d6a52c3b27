"""A child process in which `kproxy run` calls `expected_structure`.

`expected_structure` forks. A process with threads must not fork, because the child would inherit
locks that other threads hold. So `kproxy run` forks once, before it starts threads, and this child
without threads forks when needed. It ends when its socket is closed, so also if the daemon crashes.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
from contextlib import suppress
from typing import Any

from kproxy.kernel.monitor import readable
from kproxy.kernel.structure import expected_structure
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.structure import Structure
from kproxy.problems import HostError, KproxyError

_LENGTH = struct.Struct("=I")


class SkeletonProbe:
    """The child process, from construction until `close`. Only one thread at a time may use it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._child = os.fork()
        if not self._child:
            self._socket.close()
            with suppress(BaseException):
                _serve(theirs)
            os._exit(0)
        theirs.close()

    def close(self) -> None:
        """End the child."""
        self._socket.close()
        os.waitpid(self._child, 0)

    def __enter__(self) -> SkeletonProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expected_structure(self, skeleton: Skeleton) -> Structure:
        """Return the result of structure.expected_structure, or raise its error."""
        try:
            _send(self._socket, skeleton)
            result = _receive(self._socket)
        except (OSError, EOFError):
            raise _died() from None
        if isinstance(result, KproxyError):
            raise result
        assert isinstance(result, Structure)
        return result

    async def watch(self) -> None:
        """Wait until the child has died, which it never does by itself. Then raises HostError."""
        descriptor = os.pidfd_open(self._child)
        try:
            await readable(descriptor)
        finally:
            os.close(descriptor)
        raise _died()


def _died() -> HostError:
    return HostError("kproxy's child process has died.", "Restart kproxy.")


def _serve(connection: socket.socket) -> None:
    # A terminal signals the whole process group, but only the daemon ends this child.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        skeleton = _receive(connection)
        try:
            _send(connection, expected_structure(skeleton))
        except KproxyError as error:
            _send(connection, error)


def _send(connection: socket.socket, value: object) -> None:
    data = pickle.dumps(value)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    return pickle.loads(_read(connection, length))


def _read(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError("the other end is closed")
        data += more
    return bytes(data)

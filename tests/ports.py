"""Ports for servers of tests, which no other program of this host gets meanwhile.

A test often has to know the number of a port before its server listens on it, or while the server is away. A
port that was only looked up may belong to another program by then: other tests run at the same time.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOOPBACK = "127.0.0.1"


def kept(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """Return a socket that is bound to a port, by default to an unused one, and does not listen.

    As long as it is open, a program that asks for any unused port gets another one, and connections are
    refused unless a server listens. A server that sets SO_REUSEADDR, as most do, can listen on the port.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if found.family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((host, port))
    except BaseException:
        found.close()
        raise
    return found


def number_of(bound: socket.socket) -> int:
    """Return the port of a socket."""
    number: int = bound.getsockname()[1]
    return number


@contextmanager
def kept_ports(count: int) -> Iterator[list[int]]:
    """Keep so many ports of loopback until the block ends."""
    with ExitStack() as stack:
        yield [number_of(stack.enter_context(kept())) for _ in range(count)]
